"""`mneme convert` from outside: the folder that comes out runs, exports to GGUF, and survives kill -9 and Ctrl-C on the way."""
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

import e2e

LLAMA = e2e.TOP / "tests/data/models/llama"
PROGRAM = pathlib.Path(os.environ.get("MNEME_TRAIN_PROGRAM", pathlib.Path(e2e.MNEME).parent / "mneme-train"))
IDS = ",".join(str(3 + i * 37 % 250) for i in range(40))
HYBRID = [{"kind": "hybrid", "layers": [1], "to": {"type": "gla", "gate_rank": 4}}, {"kind": "window", "layers": "full", "window": 24, "sinks": 2},
          {"kind": "transfer", "steps": 400, "length": 64, "save_every": 10}, {"kind": "distill", "steps": 200, "length": 64, "save_every": 10}]


def logits(model, ids=IDS):
    return e2e.mneme_json("logits", model, "--ids", ids, "--all", "--activation", "float", "--kv", "f32")["logits"]


def distance(a, b):
    return max(abs(x - y) for r, s in zip(a, b, strict=True) for x, y in zip(r, s, strict=True))


@unittest.skipUnless(os.access(PROGRAM, os.X_OK), "mneme-train is not built (libtorch)")
class Convert(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        for name, word in (("train.txt", "cat"), ("valid.txt", "bird")):
            (self.folder / name).write_text("".join(f"the {i * 7 % 11} {word} sees a red house, and {i * 5 % 13} stars.\n" for i in range(300)))

    def recipe(self, stages, **more):
        path = self.folder / "recipe.json"
        data = {"train": ["train.txt"], "validation": ["valid.txt"], "context": 64, "tokens": 512}
        path.write_text(json.dumps({"mneme_convert": 1, "data": data, "stages": stages} | more))
        return path

    def convert(self, out, stages, *arguments, **options):
        return e2e.mneme("convert", LLAMA, self.folder / out, "--recipe", self.recipe(stages), "--threads", "1", *arguments, **options)

    def test_window_needs_no_training_and_is_exact_within_it(self):
        ran = self.convert("out", [{"kind": "window", "window": 24}], "--json")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        summary = json.loads(ran.stdout)
        self.assertEqual([s["kind"] for s in summary["stages"]], ["window"])
        self.assertEqual(summary["tokens"], 0)
        want, got = logits(LLAMA), logits(self.folder / "out")
        self.assertLess(distance(want[:24], got[:24]), 1e-5)
        self.assertGreater(distance(want[30:], got[30:]), 1e-4)

    def test_w8aspike_keeps_its_rounded_weights_and_its_spikes(self):
        model = e2e.TOP / "tests/data/models/spikingbrain_w8aspike"
        out = self.folder / "spiking"
        ran = e2e.mneme("convert", model, out, "--recipe", self.recipe([{"kind": "window", "layers": [1], "window": 16}]), "--threads", "1")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        before, after = (e2e.mneme_json("inspect", m)["config"] for m in (model, out))
        mixers = [config["layers"][1]["mixer"] for config in (before, after)]
        self.assertEqual([m["query"] for m in mixers] + [m["kv_int8"] for m in mixers], ["spike", "spike", True, True])
        self.assertEqual(after["defaults"]["activation"], before["defaults"]["activation"])
        ids = ",".join(IDS.split(",")[:24])
        want, got = (e2e.mneme_json("logits", m, "--ids", ids, "--all")["logits"] for m in (model, out))
        self.assertLess(distance(want[:8], got[:8]), 1e-3)  # the window was 9 keys
        self.assertGreater(distance(want[12:], got[12:]), 1e-2)

    def test_hybrid_runs_exports_and_reports(self):
        ran = self.convert("out/", HYBRID)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("transfer: perplexity", ran.stdout)
        report = json.loads((self.folder / "out/conversion.json").read_text())
        transfer = report["stages"][2]
        self.assertLess(transfer["errors_after"][0]["error"], transfer["errors_before"][0]["error"])
        self.assertFalse((self.folder / "out.convert").exists())
        self.assertGreater(len(e2e.mneme_json("generate", self.folder / "out", "-p", "the cat", "-n", "8")["text"]), 0)
        ppl = e2e.mneme_json("perplexity", self.folder / "out", self.folder / "valid.txt", "--ctx", "64", "--tokens", "512", "--kv", "f32")["ppl"]
        self.assertAlmostEqual(ppl / report["ppl"], 1, delta=1e-3)
        e2e.mneme_json("quantize", self.folder / "out", self.folder / "out.gguf", "--type", "f32")
        self.assertLess(distance(logits(self.folder / "out"), logits(self.folder / "out.gguf")), 1e-4)

    def test_a_spike_stage_makes_a_model_that_fires_less(self):
        stage = {"kind": "spike", "steps": 120, "length": 64, "lr": 0.01, "k": [8, 3], "dead_zone": [0.5, 1.0], "penalty": 2, "cross_entropy": 1, "log_every": 30}
        ran = self.convert("out", [stage])
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertRegex(ran.stdout, r"spike: perplexity [\d.]+ -> [\d.]+, silent [\d.]+ %")
        report = json.loads((self.folder / "out/conversion.json").read_text())["stages"][0]
        self.assertEqual([line["step"] for line in report["curve"]], [30, 60, 90, 120])
        self.assertGreater(report["activity"]["silent"], report["untrained"]["activity"]["silent"] + 0.05)
        self.assertLess(report["ppl_after"], report["untrained"]["ppl"])
        # What the engine fires in the same windows, of the folder and of a file in 8 bits.
        e2e.mneme_json("quantize", self.folder / "out", self.folder / "out.gguf", "--type", "q8_0")
        for model in ("out", "out.gguf"):
            shown = e2e.mneme_json("spikes", self.folder / model, "-f", self.folder / "valid.txt", "--ctx", "64", "--no-ppl")
            self.assertEqual((shown["k"], shown["dead_zone"]), (3, 1))
            self.assertAlmostEqual(shown["mean"]["silent"], report["activity"]["silent"], delta=0.03)
            ppl = e2e.mneme_json("perplexity", self.folder / model, self.folder / "valid.txt", "--ctx", "64", "--tokens", "512", "--kv", "f32")["ppl"]
            # Rounded weights move inputs of so small a model across whole thresholds; how many depends on the last bits of training, so on the CPU.
            self.assertAlmostEqual(ppl / report["ppl_after"], 1, delta=2e-3 if model == "out" else 0.1)

    def test_upcycling_and_training_make_experts_that_differ(self):
        stages = [{"kind": "upcycle", "experts": 4, "scale": "down"},
                  {"kind": "distill", "steps": 60, "sequences": 2, "length": 64, "lr": 0.01, "cross_entropy": 1, "train": ["ffn", "router", "norms"], "experts": {"balance": 0.02}}]
        ran = self.convert("out", stages)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        report = json.loads((self.folder / "out/conversion.json").read_text())
        made, trained = report["stages"]
        self.assertAlmostEqual(made["ppl_after"] / report["original"]["ppl"], 1, delta=0.01)
        self.assertLess(trained["ppl_after"], 0.7 * made["ppl_after"])
        self.assertGreater(trained["experts"]["spread"], 0.02)
        e2e.mneme_json("quantize", self.folder / "out", self.folder / "out.gguf", "--type", "f32")
        ppl = e2e.mneme_json("perplexity", self.folder / "out.gguf", self.folder / "valid.txt", "--ctx", "64", "--tokens", "512", "--activation", "float", "--kv", "f32")["ppl"]
        self.assertAlmostEqual(ppl / trained["ppl_after"], 1, delta=1e-3)
        shown = e2e.mneme_json("experts", self.folder / "out", "-f", self.folder / "valid.txt", "--ctx", "64")
        self.assertEqual(shown["mean_active"], 1)

    def test_bad_spike_settings_name_the_field(self):
        for fields, says in (({"deadzone": 1}, "dead_zone"), ({"penalty": -1}, "penalty is -1"), ({"k": [8, "3"]}, "stages[0].k"), ({"anneal": 0.5}, "neither k nor dead_zone")):
            ran = self.convert("out", [{"kind": "spike", "steps": 2} | fields])
            self.assertEqual((ran.returncode, ran.stderr.count("\n")), (1, 1), ran.stderr)
            self.assertIn(says, ran.stderr)

    def start(self, out):
        words = [e2e.MNEME, "convert", str(LLAMA), str(self.folder / out), "--recipe", str(self.recipe(HYBRID)), "--threads", "1", "--quiet"]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def test_kill_and_interrupt_lose_nothing(self):
        self.assertEqual(self.convert("whole", HYBRID).returncode, 0)
        ends = []
        for sent, wait in ((signal.SIGKILL, 0.6), (signal.SIGKILL, 0.9), (signal.SIGINT, 0.8), (signal.SIGKILL, 1.1)):
            process = self.start("pieces")
            time.sleep(wait)
            process.send_signal(sent)
            _, err = process.communicate(timeout=60)
            ends.append(process.returncode)
            if sent == signal.SIGINT and process.returncode == 130:
                self.assertIn("goes on from there", err)
            if process.returncode == 0:
                break
        if ends[-1] != 0:
            self.assertEqual(self.convert("pieces", HYBRID).returncode, 0)
        self.assertLess(min(ends), 0, "no process was killed: the conversion is too short for this test")
        for name in ("model.safetensors", "config.json"):
            self.assertEqual((self.folder / "whole" / name).read_bytes(), (self.folder / "pieces" / name).read_bytes(), name)

    def test_bad_recipes_and_places_are_one_line(self):
        cases = [([{"kind": "window", "window": 24, "layers": [7]}], "layers 0 to 1"), ([{"kind": "widen"}], "stages[0].kind"),
                 ([{"kind": "transfer", "steps": 3}], "fits no layer"), ([{"kind": "window", "window": 0}], "stages[0].window")]
        for stages, says in cases:
            with self.subTest(says):
                ran = self.convert("out", stages)
                self.assertEqual(ran.returncode, 1, ran.stderr)
                self.assertIn(says, ran.stderr)
                self.assertEqual(len(ran.stderr.strip().splitlines()), 1, ran.stderr)
        (self.folder / "taken").mkdir()
        (self.folder / "taken/file").write_text("x")
        self.assertIn("not an empty folder", self.convert("taken", [{"kind": "window", "window": 24}]).stderr)
        ran = e2e.mneme("convert", LLAMA, self.folder / "out", "--recipe", self.folder / "none.json")
        self.assertEqual((ran.returncode, len(ran.stderr.strip().splitlines())), (1, 1))
        (self.folder / "train.txt").write_bytes(b"\x00\x01\x02" * 100)
        ran = self.convert("out", HYBRID)
        self.assertEqual((ran.returncode, len(ran.stderr.strip().splitlines())), (1, 1), ran.stderr)
        self.assertIn("train.txt", ran.stderr)

    def test_missing_trainer_is_named(self):
        ran = self.convert("out", [{"kind": "window", "window": 24}], env={"MNEME_TRAIN_PROGRAM": self.folder / "no-such-program"})
        self.assertEqual(ran.returncode, 1)
        self.assertIn("no-such-program", ran.stderr)


if __name__ == "__main__":
    e2e.main()
