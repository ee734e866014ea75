"""examples/pocket/spikes.py for a few steps: every model that its table compares is made, kept and measured."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import e2e

SCRIPT = e2e.TOP / "examples/pocket/spikes.py"
HELD_OUT = e2e.TOP / "tests/data/pocket/held_out.txt"
PROGRAM = pathlib.Path(os.environ.get("MNEME_TRAIN_PROGRAM", pathlib.Path(e2e.MNEME).parent / "mneme-train"))


@unittest.skipUnless(os.access(PROGRAM, os.X_OK), "mneme-train is not built (libtorch)")
class PocketSpikes(unittest.TestCase):
    def test_it_makes_what_its_table_compares(self):
        build = pathlib.Path(tempfile.mkdtemp(prefix="mneme-pocket-spikes-"))
        self.addCleanup(shutil.rmtree, build, ignore_errors=True)
        text = HELD_OUT.read_text()
        for name, part in (("train", text[4000:24000]), ("held_out", text[:4000])):
            (build / f"{name}.jsonl").write_text(json.dumps({"text": part, "source": "test"}) + "\n")
        (build / "sizes.json").write_text("{}")

        def script(*words):
            ran = subprocess.run([sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True, env=os.environ | {"MNEME_BIN": str(e2e.MNEME)})
            self.assertEqual(ran.returncode, 0, ran.stderr)
            return ran.stdout

        command = ["--build", build, "--seeds", "5,6", "--tokens", 4096]
        models = json.loads(script(*command))["models"]
        self.assertEqual([(m["model"], m["seed"]) for m in models],
                         [("shipped", 0), ("untrained", 0), *((name, seed) for name in ("spike stage", "no price", "fine-tuned") for seed in (5, 6))])
        by_name = {m["model"]: m for m in models}
        self.assertNotIn("silent", by_name["fine-tuned"])
        self.assertGreater(by_name["untrained"]["silent"], 0.3)
        self.assertGreater(by_name["untrained"]["ppl"], by_name["shipped"]["ppl"])
        self.assertNotEqual(models[2]["ppl"], models[3]["ppl"])  # the seed decides the order
        self.assertEqual(len(models[2]["curve"]), 1)
        before = {p: p.stat().st_mtime_ns for p in build.rglob("*.gguf")}
        self.assertEqual(len(before), 7)
        self.assertEqual(json.loads(script(*command))["models"], models)  # nothing is made twice
        self.assertEqual({p: p.stat().st_mtime_ns for p in build.rglob("*.gguf")}, before)
        page = build / "page.md"
        page.write_text("above\n<!-- figures: examples/pocket/spikes.py --card -->\nold\n<!-- end of figures -->\nbelow\n")
        script("--card", page, build / "spikes/spikes.json")
        card = page.read_text()
        self.assertIn(f"| as shipped (int8 activations) | 1 | {by_name['shipped']['ppl']:.2f} | 1.000 | – |", card)
        self.assertRegex(card, r"\| \*\*spike stage\*\* \| 2 \| [\d.]+ ± [\d.]+ \| [\d.]+ ± [\d.]+ \| [\d.]+ ± [\d.]+ % \|")
        self.assertNotIn("old", card)
        self.assertTrue(card.startswith("above\n") and card.endswith("below\n"))


if __name__ == "__main__":
    e2e.main()
