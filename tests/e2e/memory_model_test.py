"""Models with memory packs, from outside. The pack is the one of tests/engine/memory_model_test.cpp, for models/llama."""
import json
import os
import pathlib
import shutil
import tempfile
import unittest

import e2e

DATA = e2e.TOP / "tests" / "data"
MODEL = DATA / "models" / "llama.gguf"
PACK = DATA / "engram" / "golden.engram"
IDS = "0,52,244,107,135,250,7,90,89,138"


class MemoryModel(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="mneme memory "))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def logits(self, model, *options):
        return e2e.mneme_json("logits", model, "--ids", IDS, "--all", *options)["logits"]

    def refused(self, *arguments, code=1, says=""):
        ran = e2e.mneme(*arguments, "--quiet")
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr.count("\n")), (code, "", 1), ran.stderr)
        self.assertIn(says, ran.stderr)

    def test_every_placement_gives_the_same_logits_which_the_model_alone_does_not(self):
        answers = [self.logits(MODEL, "--memory", f"{PACK}{placement}") for placement in ("", ":ram", ":mmap", ":cache")]
        answers.append(self.logits(MODEL, "--memory", PACK, "--memory-budget", "8M"))
        for answer in answers:
            self.assertEqual(answer, answers[0])
        self.assertNotEqual(self.logits(MODEL), answers[0])

    def test_attach_makes_it_permanent(self):
        shutil.copy(PACK, self.folder / "facts.engram")
        out = self.folder / "with facts.gguf"
        made = e2e.mneme_json("memory", "attach", MODEL, self.folder / "facts.engram", out)
        self.assertEqual(made, {"out": str(out), "bytes": out.stat().st_size, "layers": [0, 1]})
        self.assertEqual(self.logits(out), self.logits(MODEL, "--memory", PACK))
        config = e2e.mneme_json("inspect", out)["config"]
        self.assertEqual(config["tables"]["memory"]["file"], "facts.engram")
        (self.folder / "facts.engram").unlink()
        self.refused("logits", out, "--ids", IDS, says="facts.engram")
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), [out.name])

    def test_inspect_and_the_first_line_say_where_the_rows_are(self):
        shown = e2e.mneme_json("inspect", MODEL, "--memory", f"{PACK}:mmap")
        memory, = shown["memory"]
        self.assertEqual((memory["placement"], memory["layers"], memory["rows"], memory["path"]), ("mmap", [0, 1], 680, str(PACK)))
        self.assertTrue(0 <= memory["resident_fraction"] <= 1, memory)
        self.assertTrue(any(line.startswith("memory rows") for line in shown["plan"]["decode"]))
        self.assertGreater(shown["state_bytes"], e2e.mneme_json("inspect", MODEL)["state_bytes"])
        text = e2e.mneme("inspect", MODEL, "--memory", PACK)
        self.assertEqual(text.returncode, 0, text.stderr)
        self.assertIn("orders 2 to 3, 2 heads of 16, convolution 4 x 3", text.stdout)
        ran = e2e.mneme("generate", MODEL, "-p", "a", "-n", "3", "--memory", f"{PACK}:ram")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("memory of layers 0, 1", ran.stderr)
        self.assertIn("ram", ran.stderr)

    def test_wrong_packs_and_placements(self):
        self.refused("logits", MODEL, "--ids", "1", "--memory", self.folder / "none.engram", says="none.engram")
        self.refused("logits", MODEL, "--ids", "1", "--memory", f"{PACK}:rma", code=2, says="direct")
        self.refused("logits", MODEL, "--ids", "1", "--memory", PACK, "--memory-budget", "lots", code=2, says="--memory-budget")
        self.refused("logits", DATA / "models" / "qwen2", "--ids", "1", "--memory", PACK, says="golden.engram")
        self.refused("logits", MODEL, "--ids", "1", "--memory", MODEL, says="llama.gguf")
        self.refused("memory", "attach", MODEL, PACK, PACK, says="name another output")
        damaged = self.folder / "damaged.engram"
        damaged.write_bytes(PACK.read_bytes()[:-5000])
        self.refused("logits", MODEL, "--ids", "1", "--memory", damaged, says="damaged.engram")


if __name__ == "__main__":
    e2e.main()
