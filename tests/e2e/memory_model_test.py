"""Models with memory packs, from outside. The pack is the one of tests/engine/memory_model_test.cpp, for models/llama."""
import json
import os
import pathlib
import shutil
import struct
import tempfile
import unittest

import e2e

DATA = e2e.TOP / "tests" / "data"
MODEL = DATA / "models" / "llama.gguf"
PACK = DATA / "engram" / "golden.engram"
IDS = "0,52,244,107,135,250,7,90,89,138"


def write_safetensors(path, tensors):
    """{name: (shape, bytes)}, all F32."""
    header, at = {}, 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, data in tensors.values()))


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
        self.assertTrue(any("memory rows of layer 0" in line for line in shown["plan"]["decode"]))
        self.assertGreater(shown["state_bytes"], e2e.mneme_json("inspect", MODEL)["state_bytes"])
        text = e2e.mneme("inspect", MODEL, "--memory", PACK)
        self.assertEqual(text.returncode, 0, text.stderr)
        self.assertIn("orders 2 to 3, 2 heads of 16, convolution 4 x 3", text.stdout)
        ran = e2e.mneme("generate", MODEL, "-p", "a", "-n", "3", "--memory", f"{PACK}:ram")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("memory of layers 0, 1", ran.stderr)
        self.assertIn("ram", ran.stderr)

    def released_checkpoint(self):
        """The tensors of the golden pack as a checkpoint in two shards, and the description of its rows."""
        golden = json.loads((DATA / "engram" / "model_golden.json").read_text())
        data, at, tensors = (DATA / "engram" / "model_golden.f32").read_bytes(), 0, {}
        for entry in golden["tensors"]:
            size = 4
            for dim in entry["shape"]:
                size *= dim
            tensors[entry["name"]] = (entry["shape"], data[at:at + size])
            at += size
        prime_sums = [int(n) for n in e2e.mneme_json("memory", "inspect", PACK)["prime_sums"]]
        rows, width, first, weight_map = tensors["rows"][1], 4 * golden["table"]["head_dim"], 0, {}
        shards = self.folder / "released"
        shards.mkdir()
        for layer, count in enumerate(prime_sums):
            shard = f"model-0000{layer + 1}-of-00002.safetensors"
            name = f"model.layers.{layer}.engram.weight"
            write_safetensors(shards / shard, {name: ([count, golden["table"]["head_dim"]], rows[first * width:(first + count) * width])})
            weight_map[name] = shard
            first += count
        self.assertEqual(first * width, len(rows))
        (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        write_safetensors(self.folder / "modules.safetensors", {n: t for n, t in tensors.items() if n.startswith("blk.")})
        return {"rows": {"from": "released", "weight": "model.layers.{layer}.engram.weight"}, "table": golden["table"],
                "modules": [{**m, "table": "memory"} for m in golden["modules"]], "tensors": "modules.safetensors"}

    def test_rows_are_read_in_place_from_a_released_checkpoint(self):
        description = self.folder / "facts.json"
        description.write_text(json.dumps(self.released_checkpoint()))
        wanted = self.logits(MODEL, "--memory", PACK)
        for placement in ("", ":ram", ":mmap", ":cache"):
            self.assertEqual(self.logits(MODEL, "--memory", f"{description}{placement}"), wanted)
        # a folder has its description inside
        folder = self.folder / "memory"
        folder.mkdir()
        moved = json.loads(description.read_text())
        moved["rows"]["from"], moved["tensors"] = "../released", "../modules.safetensors"
        (folder / "engram.json").write_text(json.dumps(moved))
        self.assertEqual(self.logits(MODEL, "--memory", f"{folder}:direct" if self.direct(PACK) else folder), wanted)
        # and a model can name either for good
        out = self.folder / "with facts.gguf"
        e2e.mneme_json("memory", "attach", MODEL, description, out)
        self.assertEqual(e2e.mneme_json("inspect", out)["config"]["tables"]["memory"]["file"], "facts.json")
        self.assertEqual(self.logits(out), wanted)

    def direct(self, path):
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
            return True
        except OSError:
            return False

    def test_descriptions_that_do_not_fit(self):
        good = self.released_checkpoint()
        path = self.folder / "bad.json"

        def refused(says, **changes):
            path.write_text(json.dumps({**good, **changes}))
            self.refused("logits", MODEL, "--ids", "1", "--memory", path, says=says)
        refused("weihgt", rows={**good["rows"], "weihgt": 1})
        refused("no tensor", rows={**good["rows"], "weight": "x.{layer}"})
        refused("bf16", table={**good["table"], "format": "bf16"})
        refused("go together", modules=[])
        refused("classes", table={**good["table"], "compressed_vocab": 249})
        refused("compressed_vocab", table={k: v for k, v in good["table"].items() if k != "compressed_vocab"})
        path.write_text("{")
        self.refused("logits", MODEL, "--ids", "1", "--memory", path, says="bad.json")
        self.refused("logits", MODEL, "--ids", "1", "--memory", self.folder / "released", says="engram.json")

    def test_overlays_are_laid_over_and_taken_away(self):
        head_dim, edits = 16, {}
        for name, value, row in (("first", 3.0, range(0, 680)), ("second", -3.0, range(0, 340))):
            edits[name] = self.folder / f"{name}+1.overlay"  # a plus sign in a name
            lines = self.folder / f"{name}.jsonl"
            lines.write_text("".join(json.dumps({"row": r, "values": [value] * head_dim}) + "\n" for r in row))
            e2e.mneme_json("memory", "overlay", PACK, edits[name], "--rows", lines)
        before = PACK.read_bytes()
        plain = self.logits(MODEL, "--memory", PACK)
        one = self.logits(MODEL, "--memory", f"{PACK}+{edits['first']}")
        two = self.logits(MODEL, "--memory", f"{PACK}+{edits['first']}+{edits['second']}")
        swapped = self.logits(MODEL, "--memory", f"{PACK}+{edits['second']}+{edits['first']}")
        self.assertNotEqual(one, plain)
        self.assertNotEqual(two, one)
        self.assertEqual(swapped, one)  # the last one counts, and it covers all rows
        for placement in ("ram", "mmap", "cache"):
            self.assertEqual(self.logits(MODEL, "--memory", f"{PACK}:{placement}+{edits['first']}+{edits['second']}"), two)
        self.assertEqual(self.logits(MODEL, "--memory", PACK), plain)
        self.assertEqual(PACK.read_bytes(), before)
        self.refused("logits", MODEL, "--ids", "1", "--memory", f"{PACK}+{self.folder}/none.overlay", says="none.overlay")
        self.refused("logits", MODEL, "--ids", "1", "--memory", f"{PACK}:ram+", code=2, says="changed rows")
        self.refused("logits", MODEL, "--ids", "1", "--memory", f"{PACK}+{PACK}", says="golden.engram")

    def test_quantize_into_another_folder_still_finds_the_pack(self):
        shutil.copy(PACK, self.folder / "facts.engram")
        attached = self.folder / "a" / "with.gguf"
        attached.parent.mkdir()
        e2e.mneme_json("memory", "attach", MODEL, self.folder / "facts.engram", attached)
        wanted = self.logits(attached)
        for out, file in ((self.folder / "b" / "c" / "again.gguf", "../../facts.engram"), (self.folder / "again.gguf", "facts.engram"),
                          (self.folder / "hf", "../facts.engram")):
            out.parent.mkdir(parents=True, exist_ok=True)
            form = ["--format", "hf"] if out.suffix == "" else []
            e2e.mneme_json("quantize", attached, out, "--type", "f32", *form)
            self.assertEqual(e2e.mneme_json("inspect", out)["config"]["tables"]["memory"]["file"], file)
            for got, want in zip(self.logits(out), wanted, strict=True):
                self.assertLess(max(abs(g - w) for g, w in zip(got, want, strict=True)), 1e-4)

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
