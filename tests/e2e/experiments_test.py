"""examples/experiments/run.py from outside: one experiment at its smallest size, interrupted, out of time, gone on with and
finished; what it counts and concludes; names that do not exist."""
import json
import math
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

import e2e
import train_fixture as fixture

FOLDER = e2e.TOP / "examples" / "experiments"
sys.path.insert(0, str(FOLDER))
import mixtures  # noqa: E402
import paired  # noqa: E402
import runs  # noqa: E402
import sizes  # noqa: E402


def program(*arguments):
    return [sys.executable, str(FOLDER / "run.py"), *map(str, arguments)]


class Statistics(unittest.TestCase):
    def test_paired_differences_have_students_interval(self):
        found = paired.paired([1.0, 2.0, 4.0], [0.5, 1.0, 2.5])  # differences 0.5, 1, 1.5: mean 1, sd 0.5
        self.assertAlmostEqual(found["difference"], 1.0)
        self.assertAlmostEqual(found["high"] - 1.0, 4.303 * 0.5 / math.sqrt(3), places=6)
        self.assertEqual(found["reading"], "null")
        self.assertEqual(paired.paired([1.0, 1.1, 1.2], [2.0, 2.1, 2.25])["reading"], "lower")
        self.assertEqual(paired.paired([1.0], [2.0])["reading"], "one pair: no interval")

    def test_a_level_is_found_between_the_points_of_a_curve(self):
        curve = [[100, 4.0], [1000, 3.0], [10000, 2.0]]
        tokens, bound = paired.crossing(curve, 2.5)
        self.assertAlmostEqual(tokens, 10 ** 3.5, delta=1)
        self.assertEqual((bound, paired.crossing(curve, 1.0), paired.crossing(curve, 5.0)), ("", (10000, ">"), (100, "<")))

    def test_rows_of_a_table_are_the_published_primes(self):
        table = {"max_ngram": 3, "heads": 8, "base_rows": [646400, 646400], "layer_ids": [1, 15]}  # of Engram's demo
        self.assertEqual(runs.table_rows(table | {"layer_ids": [1]}), 10344164)
        self.assertEqual(runs.table_rows(table), 10344164 + 10348242)


class Experiments(unittest.TestCase):
    def setUp(self):
        if not fixture.available():
            raise unittest.SkipTest(f"{fixture.PROGRAM} is not built: it needs libtorch")
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        pick = random.Random(1)
        words = [pick.choice("bcdfgklmn") + pick.choice("aeiou") + pick.choice(["", "s", "t"]) for _ in range(60)]
        with open(self.folder / "text.jsonl", "w") as file:
            file.writelines(json.dumps({"text": " ".join(pick.choice(words) for _ in range(120))}) + "\n" for _ in range(300))

    def arguments(self, name, *more):
        return program(name, "--size", "smoke", "--seeds", 1, "--mneme", e2e.MNEME, "--work", self.folder / "work", "--out", self.folder / "docs",
                       "--text", self.folder / "text.jsonl", "--threads", 1, *more)

    def finished_runs(self):
        return {path: path.stat().st_mtime_ns for path in self.folder.glob("work/smoke/runs/*/result.json")}

    def test_an_experiment_goes_on_where_it_was_stopped(self):
        child = subprocess.Popen(self.arguments("equal"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        until = time.monotonic() + 120
        while len(self.finished_runs()) < 2 and child.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
        self.assertEqual(child.returncode, 130, errors)
        self.assertIn("the same command goes on", errors)

        first = self.finished_runs()
        self.assertGreaterEqual(len(first), 2)
        ran = subprocess.run(self.arguments("equal", "--minutes", 0), capture_output=True, text=True, timeout=60)
        self.assertEqual(ran.returncode, 75, ran.stderr)
        self.assertEqual(self.finished_runs(), first)

        # A run whose checkpoint is there, but not what run.py makes of it: resumed, with the same result.
        lost = min(first)
        before = json.loads(lost.read_text())
        lost.unlink()
        ran = subprocess.run(self.arguments("b"), capture_output=True, text=True, timeout=300)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual(json.loads(lost.read_text()), before)
        after = self.finished_runs()
        for path, when in first.items():
            if path != lost:
                self.assertEqual(after[path], when, f"{path} ran twice")
        self.check_results()

        result = (self.folder / "docs/experiments/equal.json").read_bytes()
        ran = subprocess.run(self.arguments("equal"), capture_output=True, text=True, timeout=60)
        self.assertEqual((ran.returncode, self.finished_runs()), (0, after))
        self.assertEqual((self.folder / "docs/experiments/equal.json").read_bytes(), result)

    def check_results(self):
        found = json.loads((self.folder / "docs/experiments/equal.json").read_text())["smoke"]
        variants = {variant["name"]: variant for variant in found["variants"]}
        self.assertEqual(set(variants), {"no table", "reference", "dense, equal parameters", "additive", "capacity 1"})
        for variant in variants.values():
            self.assertEqual(len(variant["lr_tried"]), 2)
            self.assertLess(variant["mean"], math.log(272))  # better than guessing among all tokens
        self.assertEqual(variants["no table"]["table_parameters"], 0)
        self.assertGreater(variants["reference"]["table_parameters"], 4 * 61 * 8)
        self.assertAlmostEqual(variants["dense, equal parameters"]["parameters"] / variants["reference"]["parameters"], 1, delta=0.02)
        self.assertLess(variants["capacity 1"]["table_parameters"], 100)
        # Counted from configs and from the tensors that were written.
        for name in ("no-table", "reference", "dense-equal-parameters"):
            (run,) = {path.parent for path in self.folder.glob(f"work/smoke/runs/{name}-*/run.json")} & {path.parent for path in self.folder.glob("work/smoke/runs/*/result.json")
                      if json.loads((path.parent / "run.json").read_text())["optimiser"]["lr"] == 0.01}
            self.assertEqual(sizes.count(json.loads((run / "run.json").read_text())["model"]), json.loads((run / "result.json").read_text())["parameters"])
        # The additive control's gate is closed to training: its weight stays exactly 0.
        (run, *_) = self.folder.glob("work/smoke/runs/additive-*")
        checkpoint = run / "out" / (run / "out/latest").read_text().strip() / "model.safetensors"
        header, start = runs.header_of(checkpoint)
        (name,) = (name for name in header if name.endswith("engram.k_norm.weight"))
        first, last = header[name]["data_offsets"]
        self.assertEqual(checkpoint.read_bytes()[start + first:start + last].strip(b"\0"), b"")
        for pair in found["pairs"]:
            self.assertEqual((pair["n"], pair["reading"]), (1, "one pair: no interval"))
        text = (self.folder / "docs/experiments.md").read_text()
        for words in ("### smoke size, seeds 1", "capacity 1", "Not run yet: `examples/experiments/run.py rows --size small`"):
            self.assertIn(words, text)
        circles = xml.etree.ElementTree.parse(self.folder / "docs/experiments/equal-smoke.svg").findall(".//{*}circle")
        self.assertEqual(len(circles), 5)

    def test_experiments_with_experts_compare_equal_models(self):
        for name in ("allocation", "combinations"):
            ran = subprocess.run(self.arguments(name), capture_output=True, text=True, timeout=600)
            self.assertEqual(ran.returncode, 0, ran.stderr)
        found = json.loads((self.folder / "docs/experiments/allocation.json").read_text())["smoke"]
        variants = {variant["name"]: variant for variant in found["variants"]}
        self.assertEqual(list(variants), ["100 % experts", "50 % experts", "dense, equal operations"])
        self.assertAlmostEqual(variants["50 % experts"]["parameters"] / variants["100 % experts"]["parameters"], 1, delta=0.01)
        self.assertEqual(found["line"]["x"], [100, 50])
        self.assertTrue(all(measure["mean"] > 0 for measure in found["measures"]))
        size = sizes.SIZES["smoke"]
        whole, half = (mixtures.parameters(mixtures.allocated(size, experts, 0)) for experts in size.expert_counts)
        self.assertAlmostEqual(half[1] / whole[1], 1, delta=0.01)
        # Counted from configs and from the tensors that were written.
        for path in self.folder.glob("work/smoke/runs/*experts*/run.json"):
            self.assertEqual(mixtures.parameters(json.loads(path.read_text())["model"])[0], json.loads((path.parent / "result.json").read_text())["parameters"])
        self.assertIn("| 50 % experts | 5 routed experts and a table;", (self.folder / "docs/experiments.md").read_text())

        found = json.loads((self.folder / "docs/experiments/combinations.json").read_text())["smoke"]
        values = {variant["name"]: variant["values"][0] for variant in found["variants"]}
        self.assertEqual(list(values), ["base", "H", "M", "S", "H+M", "H+S", "M+S", "H+M+S"])
        self.assertEqual(len(set(values.values())), 8)  # every part changes what is computed
        effect = sum(values[a] - values[b] for a, b in (("M", "base"), ("H+M", "H"), ("M+S", "S"), ("H+M+S", "H+S"))) / 4
        self.assertAlmostEqual(found["measures"][1]["values"][0], effect, places=9)
        self.assertEqual(len(found["pairs"]), 8)

    def test_what_does_not_exist_is_named(self):
        ran = subprocess.run(self.arguments("layers"), capture_output=True, text=True, timeout=60)
        self.assertEqual(ran.returncode, 1)
        self.assertIn('there is no experiment "layers" (did you mean layer?)', ran.stderr)
        self.assertFalse((self.folder / "work").exists())
        ran = subprocess.run(program("rows", "--mneme", self.folder / "nothing"), capture_output=True, text=True, timeout=60)
        self.assertEqual(ran.returncode, 1)
        self.assertIn("is not there", ran.stderr)


if __name__ == "__main__":
    e2e.main()
