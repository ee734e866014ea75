"""`mneme convert` with a calibration from outside: the model that comes out spikes without flags, as silently and as well as was reported."""
import json
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

import e2e

MODELS = e2e.TOP / "tests/data/models"
Q8 = MODELS / "llama_q8_0.gguf"
TEXT = "".join(f"the {i * 7 % 11} cats see a red house, and {i * 5 % 13} stars.\n" for i in range(60))
HELD_OUT = "".join(f"a bird hears {i * 3 % 17} owls by night.\n" for i in range(30))


class CalibrateTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="mneme calibrate ")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "train.txt").write_text(TEXT)
        (self.folder / "valid.txt").write_text(HELD_OUT)

    def recipe(self, data=None, **stage):
        path = self.folder / "recipe.json"
        data = {"train": ["train.txt"], "validation": ["valid.txt"], "context": 64, "tokens": 512} | (data or {})
        stage = {"kind": "calibrate", "tokens": 512, "probe_tokens": 128} | stage
        path.write_text(json.dumps({"mneme_convert": 1, "data": {k: v for k, v in data.items() if v is not None}, "stages": [stage]}))
        return path

    def convert(self, *arguments, model=Q8, out="out.gguf", recipe=None, **options):
        return e2e.mneme("convert", model, f"{self.folder}/{out}", "--recipe", recipe or self.recipe(), *arguments, **options)

    def test_the_model_does_what_was_reported(self):
        ran = self.convert("--json", recipe=self.recipe(budget=0.01, share=False, curve=[0.1]))
        self.assertEqual(ran.returncode, 0, ran.stderr)
        got, out = json.loads(ran.stdout), self.folder / "out.gguf"
        self.assertLessEqual(got["ppl_after"], got["ppl_before"] * 1.01)
        window = ("--ctx", "64", "--tokens", "512")
        for name, model in (("ppl_before", Q8), ("ppl_after", out)):
            self.assertAlmostEqual(e2e.mneme_json("perplexity", model, self.folder / "train.txt", *window)["ppl"], got[name], places=8)
            self.assertAlmostEqual(e2e.mneme_json("perplexity", model, self.folder / "valid.txt", *window)["ppl"], got["held_out"][name], places=8)
        counted = e2e.mneme_json("spikes", out, "-f", self.folder / "valid.txt", "--tokens", "512", "--ctx", "64", "--no-ppl")["projections"]
        self.assertEqual([(p["layer"], p["name"], p["k"]) for p in counted], [(p["layer"], p["name"], p["k"]) for p in got["projections"]])
        for mine, theirs in zip(got["projections"], counted, strict=True):
            self.assertAlmostEqual(mine["silent"], theirs["silent"], places=9)
            self.assertAlmostEqual(mine["dead_zone"], theirs["dead_zone"], places=3)
        self.assertGreater(got["silent"], 0.1)
        self.assertAlmostEqual(got["model_silent"], sum(p["skipped"] for p in got["projections"]), places=9)
        self.assertGreater(got["curve"][-1]["silent"], got["curve"][0]["silent"])
        config = e2e.mneme_json("inspect", out)["config"]
        self.assertIn("spike", json.dumps(config))
        self.assertIn("in stripes", e2e.mneme("inspect", out, "--plan").stdout)
        self.assertGreater(len(e2e.mneme_json("generate", out, "-p", "the cat", "-n", "8")["text"]), 0)
        dense = e2e.mneme_json("perplexity", out, self.folder / "train.txt", *window, "--activation", "auto")
        self.assertAlmostEqual(dense["ppl"], got["ppl_after"], delta=0.1 * got["ppl_after"])

    def test_the_same_bits_with_one_thread_and_two(self):
        files = []
        for threads in ("1", "2"):
            ran = self.convert("--threads", threads, out=f"{threads}.gguf")
            self.assertEqual(ran.returncode, 0, ran.stderr)
            files.append((self.folder / f"{threads}.gguf").read_bytes())
        self.assertEqual(*files)

    def test_one_text_is_divided_and_tables_say_what_came_of_it(self):
        ran = self.convert(recipe=self.recipe({"validation": None}, projections=["gate", "up", "down"], k=[8, 16]))
        self.assertEqual(ran.returncode, 0, ran.stderr)
        for words in ("gate, up", "down", "dead zone", "calibration text: perplexity", "held-out text: perplexity", "of all that a token reads"):
            self.assertIn(words, ran.stdout)
        self.assertNotIn("q, k, v", ran.stdout)

    def test_folders(self):
        ran = self.convert("--json", model=MODELS / "llama", out="folder/", recipe=self.recipe(weights="q8_0"))
        self.assertEqual(ran.returncode, 0, ran.stderr)
        config = json.loads((self.folder / "folder/config.json").read_text())
        self.assertIn("spike", json.dumps(config["mneme_config"]))
        after = e2e.mneme_json("perplexity", self.folder / "folder", self.folder / "train.txt", "--ctx", "64", "--tokens", "512", "--type", "q8_0")
        self.assertAlmostEqual(after["ppl"], json.loads(ran.stdout)["ppl_after"], places=8)
        ran = self.convert("--json", model=MODELS / "llama", out="file.gguf", recipe=self.recipe(weights="q8_0"))
        self.assertEqual(ran.returncode, 0, ran.stderr)
        file = e2e.mneme_json("perplexity", self.folder / "file.gguf", self.folder / "train.txt", "--ctx", "64", "--tokens", "512")
        self.assertAlmostEqual(file["ppl"], after["ppl"], delta=0.01)  # rows of q and k in another order

    def refused(self, says, **options):
        ran = self.convert(**options)
        with self.subTest(says):
            self.assertEqual(ran.returncode, 1, ran.stdout + ran.stderr)
            self.assertEqual(len(ran.stderr.strip().splitlines()), 1, ran.stderr)
            self.assertIn(says, ran.stderr)
            self.assertEqual(sorted(p.name for p in self.folder.iterdir()), self.there)

    def test_bad_input_is_one_line_and_writes_nothing(self):
        (self.folder / "empty.txt").write_text("")
        (self.folder / "tiny.txt").write_text("the cat")
        self.recipe()
        self.there = sorted(p.name for p in self.folder.iterdir())
        self.refused("has 0 tokens", recipe=self.recipe({"train": ["empty.txt"]}))
        self.refused("128 at least", recipe=self.recipe({"train": ["tiny.txt"]}))
        self.refused("fewer than one window", recipe=self.recipe({"validation": ["tiny.txt"]}))
        self.refused("nothere.txt", recipe=self.recipe({"train": ["nothere.txt"]}))
        self.refused("stages[0].budget", recipe=self.recipe(budget=-0.02))
        self.refused("stages[0].budget", recipe=self.recipe(budget=0))
        self.refused("cannot be met", recipe=self.recipe(budget=1e-9, k=[0.05]))
        self.refused("type f32", model=MODELS / "llama.gguf")
        self.refused("leave it out", recipe=self.recipe(weights="q8_0"))
        self.refused("name a .gguf file", out="folder/")
        self.refused("nowhere", out="nowhere/out.gguf")
        self.refused("recipe.json", recipe=self.recipe(surprise=1))
        (self.folder / "recipe.json").write_text('{"stages": [NaN]}')
        self.refused("recipe.json", recipe=self.folder / "recipe.json")
        copy = self.folder / "model.gguf"
        copy.write_bytes(Q8.read_bytes())
        self.there = sorted(p.name for p in self.folder.iterdir())
        self.refused("name another output", model=copy, out="model.gguf")
        self.assertEqual(copy.read_bytes(), Q8.read_bytes())
        ran = self.convert("--restart")
        self.assertEqual((ran.returncode, len(ran.stderr.strip().splitlines())), (2, 1), ran.stderr)

    def test_a_model_that_spikes_is_refused(self):
        self.assertEqual(self.convert(out="once.gguf").returncode, 0)
        again = self.convert(model=self.folder / "once.gguf", out="twice.gguf")
        self.assertEqual(again.returncode, 1)
        self.assertIn("spikes already", again.stderr)

    def test_ctrl_c_leaves_nothing(self):
        (self.folder / "train.txt").write_text(TEXT * 400)
        words = [e2e.MNEME, "convert", str(Q8), str(self.folder / "out.gguf"), "--recipe", str(self.recipe(tokens=80000, rounds=8)), "--quiet", "--threads", "1"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        self.assertEqual((process.returncode, out), (130, ""))
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["recipe.json", "train.txt", "valid.txt"])


if __name__ == "__main__":
    e2e.main()
