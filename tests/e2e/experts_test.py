"""Mixtures of experts from outside: they run, convert, report where their routers send a text, and refuse what is broken."""
import json
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import xml.etree.ElementTree

import e2e
from quantize_test import IDS, check_round_trip, distance, logits

MODELS = e2e.TOP / "tests" / "data" / "models"
MIXERS = e2e.TOP / "tests" / "data" / "mixers"
FAMILIES = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "granitemoeshared", "dots1")


class ExpertsTest(unittest.TestCase):
    def setUp(self):
        self.out = pathlib.Path(tempfile.mkdtemp(prefix="mneme experts "))
        self.addCleanup(shutil.rmtree, self.out, ignore_errors=True)

    def refused(self, code, *arguments, says=""):
        ran = e2e.mneme(*arguments)
        self.assertEqual(ran.returncode, code, ran.stderr)
        self.assertEqual(ran.stderr.count("\n"), 1, ran.stderr)
        self.assertIn(says, ran.stderr)

    def test_round_trips_keep_the_logits_of_every_family(self):
        for family in FAMILIES:
            with self.subTest(family):
                gguf = check_round_trip(self, family, self.out)
                names = {t["name"]: t["shape"] for t in e2e.mneme_json("inspect", gguf)["tensors"]}
                self.assertTrue(any(name.endswith("ffn_up_exps.weight") and len(shape) == 3 for name, shape in names.items()), names)

    def test_standard_families_keep_their_architecture(self):
        for family, architecture in (("mixtral", "llama"), ("qwen3_moe", "qwen3moe"), ("olmoe", "olmoe"), ("dots1", "dots1")):
            with self.subTest(family):
                gguf = self.out / f"{family}.gguf"
                e2e.mneme_json("quantize", MODELS / family, gguf, "--type", "q8_0")
                raw = gguf.read_bytes()[:4096]
                self.assertIn(b"general.architecture\x08\x00\x00\x00" + len(architecture).to_bytes(8, "little") + architecture.encode(), raw)
                answer = e2e.mneme_json("generate", gguf, "-p", "the", "-n", "8", "--temp", "0")
                self.assertGreater(answer["generated_tokens"], 0)

    def test_routing_report(self):
        got = e2e.mneme_json("experts", MODELS / "qwen3_moe", "--ids", IDS)
        self.assertEqual(got["tokens"], 12)
        self.assertEqual([layer["layer"] for layer in got["layers"]], [0, 1])
        for layer in got["layers"]:
            self.assertEqual((layer["experts"], layer["top_k"], layer["null_experts"]), (6, 3, 0))
            self.assertAlmostEqual(sum(layer["load"]), 1)
            self.assertEqual(layer["mean_active"], 3)
            self.assertEqual(layer["active"], [0, 0, 0, 12])
            self.assertLessEqual(max(layer["load"]), 1 / 3 + 1e-9)  # an expert is chosen once a token
            self.assertEqual(layer["starved"], [e for e, part in enumerate(layer["load"]) if part < 0.1 / 6])
            mean = 1 / 6
            self.assertAlmostEqual(layer["cv"], (sum((part - mean) ** 2 for part in layer["load"]) / 6) ** 0.5 / mean)
        one = e2e.mneme_json("experts", MODELS / "qwen3_moe", "--ids", IDS, "--threads", "1", "--chunk", "3")
        self.assertEqual(one, got)
        text = e2e.mneme("experts", MODELS / "qwen3_moe", "-p", "The owl hunts at night.")
        self.assertEqual(text.returncode, 0, text.stderr)
        self.assertIn("experts a token and layer", text.stdout)

    def test_adaptive_width_is_reported(self):
        got = e2e.mneme_json("experts", MIXERS / "moe_adaptive", "--ids", "5,9,33,7,60,12,44,3,1,2,8,50,41,22,10,11")
        self.assertLess(got["mean_active"], 4)
        self.assertGreater(got["layers"][0]["null_share"], 0)
        for layer in got["layers"]:
            self.assertEqual(sum(layer["active"]), 16)
            self.assertAlmostEqual(layer["mean_active"], sum(n * count for n, count in enumerate(layer["active"])) / 16)

    def upcycle(self, **stage):
        (self.out / "text.txt").write_text("The owl hunts at night. The mouse listens, and both are right. " * 20)
        recipe = {"mneme_convert": 1, "type": "f32", "data": {"validation": ["text.txt"], "context": 64, "tokens": 1000},
                  "stages": [{"kind": "upcycle", **stage}]}
        (self.out / "recipe.json").write_text(json.dumps(recipe))
        return self.out / "recipe.json"

    def test_upcycling_keeps_what_the_model_computes(self):
        out = self.out / "mixture"
        got = e2e.mneme_json("convert", MODELS / "llama", out, "--recipe", self.upcycle(experts=8, shared=1, top_k=1))
        self.assertAlmostEqual(got["stages"][0]["alpha"], (8 / 9) ** (1 / 3))
        self.assertEqual(got["stages"][0]["layers"], [0, 1])
        self.assertEqual(got, json.loads((out / "conversion.json").read_text()))
        self.assertLess(abs(got["ppl_ratio"] - 1), 0.03)
        ppl = e2e.mneme_json("perplexity", out, self.out / "text.txt", "--ctx", "64", "--tokens", "1000", "--activation", "float")["ppl"]
        self.assertAlmostEqual(got["ppl"], ppl, delta=1e-6 * ppl)
        self.assertEqual(len(e2e.mneme_json("experts", out, "--ids", IDS)["layers"]), 2)
        exact = e2e.mneme("convert", MODELS / "llama", self.out / "exact", "--recipe", self.upcycle(scale="down", router_deviation=0, top_k=2))
        self.assertEqual(exact.returncode, 0, exact.stderr)
        self.assertIn("+0.00 %", exact.stdout.replace("-0.00 %", "+0.00 %"))
        self.assertLess(distance(logits(self.out / "exact"), logits(MODELS / "llama")), 1e-4)

    def test_a_mixture_that_was_not_scored_says_so(self):
        out, recipe = self.out / "mixture", self.upcycle()
        said = json.loads(recipe.read_text())
        said["data"]["tokens"] = 60000
        recipe.write_text(json.dumps(said))
        (self.out / "text.txt").write_text("The owl hunts at night. The mouse listens, and both are right. " * 5000)
        words = [e2e.MNEME, "convert", str(MODELS / "llama"), str(out), "--recipe", str(recipe), "--threads", "1"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not out.exists() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=120)
        self.assertEqual((process.returncode, printed), (130, ""), said)
        self.assertIn("its perplexity was not measured", said)
        report = json.loads((out / "conversion.json").read_text())
        self.assertGreater(report["original"]["ppl"], 1)
        self.assertIsNone(report["ppl"])
        self.assertEqual(len(e2e.mneme_json("experts", out, "--ids", IDS)["layers"]), 2)

    def test_upcycling_recipes_are_refused(self):
        out = self.out / "mixture"
        self.refused(1, "convert", MODELS / "llama", out, "--recipe", self.upcycle(expert=8), says='did you mean "experts"?')
        self.refused(1, "convert", MODELS / "llama", out, "--recipe", self.upcycle(top_k=17), says="top_k is 17")
        self.refused(1, "convert", MODELS / "mixtral", out, "--recipe", self.upcycle(), says="no layer has a dense feed-forward")
        for option in (("--restart",), ("--snapshot", self.out / "now")):
            self.refused(2, "convert", MODELS / "llama", out, "--recipe", self.upcycle(), *option, says="--snapshot and --restart have no meaning")
        self.assertFalse(out.exists())
        out.mkdir()
        (out / "mine").write_text("x")
        self.refused(1, "convert", MODELS / "llama", out, "--recipe", self.upcycle(), says="not an empty folder")
        self.refused(1, "convert", self.out / "none.gguf", out, "--recipe", self.upcycle(), says="not an empty folder")  # before anything is read

    def test_picture(self):
        picture = self.out / "load.svg"
        e2e.mneme_json("experts", MODELS / "dots1", "--ids", IDS, "--map", picture)
        self.assertIn("Experts of dots1", picture.read_text())
        e2e.mneme_json("experts", f"{MODELS / 'dots1'}/", "--ids", IDS, "--map", picture)
        self.assertIn("Experts of dots1", picture.read_text())
        words = [e.text for e in xml.etree.ElementTree.parse(picture).iter() if e.text]
        self.assertIn("expert", words)
        self.assertIn("7", words)
        e2e.mneme_json("experts", MODELS / "dots1", "--ids", IDS, "--map", self.out / "load.png")
        self.assertEqual((self.out / "load.png").read_bytes()[:4], b"\x89PNG")

    def test_bad_input(self):
        self.refused(1, "experts", MODELS / "llama", "--ids", IDS, says="has no mixture of experts")
        self.refused(2, "experts", MODELS / "dots1", says="what shall the model read?")
        self.refused(2, "experts", MODELS / "dots1", "--ids", IDS, "-p", "x", says="give one of")
        self.refused(2, "experts", MODELS / "dots1", "--ids", IDS, "--map", "load.gif", says="--map")
        self.refused(1, "experts", MODELS / "dots1", "--ids", "99999", says="99999")
        self.refused(1, "experts", MODELS / "dots1", "--ids", IDS, "--map", self.out / "none" / "load.svg", says="there is no folder")
        (self.out / "folder.svg").mkdir()
        self.refused(1, "experts", MODELS / "dots1", "--ids", IDS, "--map", self.out / "folder.svg", says="it is a folder")

    def test_experts_on_disk_give_the_same_text(self):
        model = self.out / "mixture.gguf"
        e2e.mneme_json("quantize", MODELS / "dots1", model, "--type", "q8_0")
        home = {"MNEME_HOME": self.out / "home"}
        ask = ("generate", model, "-p", "The owl hunts at night.", "-n", "24", "--temp", "0", "--ignore-eos")
        want = e2e.mneme_json(*ask, env=home)
        self.assertNotIn("experts", want)
        whole = e2e.mneme_json(*ask, "--experts", "direct", env=home)["experts"]
        self.assertEqual(whole["slots"], whole["experts"])
        self.assertLessEqual(whole["misses"], whole["experts"])
        budget = whole["expert_bytes"] * (whole["experts"] // 2)
        for placement in ("mmap", "direct"):
            with self.subTest(placement):
                got = e2e.mneme_json(*ask, "--experts", placement, "--experts-budget", budget, env=home)
                self.assertEqual(got["text"], want["text"])
                experts = got["experts"]
                self.assertEqual((experts["placement"], experts["slots"]), (placement, whole["experts"] // 2))
                self.assertEqual(experts["hits"] + experts["misses"], whole["hits"] + whole["misses"])
                self.assertGreater(experts["misses"], whole["misses"])
                self.assertAlmostEqual(experts["hit_rate"], experts["hits"] / (experts["hits"] + experts["misses"]))
                self.assertEqual(experts["bytes_read"] % experts["expert_bytes"], 0)
                self.assertGreaterEqual(experts["bytes_read"] // experts["expert_bytes"], experts["misses"])
                slow = e2e.mneme_json(*ask, "--experts", placement, "--experts-budget", budget, "--no-read-ahead", env={**home, "MNEME_IO": "threads"})
                self.assertEqual(slow["text"], want["text"])
                self.assertEqual(slow["experts"]["read_ahead"], 0)
                self.assertEqual(slow["experts"]["bytes_read"], slow["experts"]["misses"] * experts["expert_bytes"])
        said = e2e.mneme(*ask, "--experts", "direct", env=home)
        self.assertIn("uses found there", said.stderr)
        self.assertEqual(len(list((self.out / "home" / "cache" / "experts").iterdir())), 1)

    def test_experts_on_disk_in_every_verb_that_runs_a_model(self):
        home = {"MNEME_HOME": self.out / "home"}
        text = self.out / "text.txt"
        text.write_text("The owl hunts at night. The mouse listens, and both are right. " * 10)
        disk = ("--experts", "direct")
        for ask in (("perplexity", MODELS / "qwen3_moe", text, "--ctx", "64"), ("logits", MODELS / "qwen3_moe", "--ids", IDS, "--all"),
                    ("experts", MODELS / "qwen3_moe", "--ids", IDS)):
            with self.subTest(ask[0]):
                want, got = e2e.mneme_json(*ask, env=home), e2e.mneme_json(*ask, *disk, env=home)
                got.pop("experts", None)
                self.assertEqual(got, want)
        timed = e2e.mneme_json("bench", MODELS / "qwen3_moe", "--prompt", "16", "--gen", "8", "--repeat", "1", *disk, env=home)
        for test in timed:
            self.assertGreater(test["experts"]["hits"], 0)
        told = e2e.mneme_json("inspect", MODELS / "qwen3_moe", *disk, env=home)
        self.assertEqual(told["experts"]["experts"], 12)
        self.assertTrue(any("read when chosen" in t["layout"] for t in told["tensors"]))

    def test_experts_on_disk_are_refused(self):
        model = MODELS / "qwen3_moe"
        ask = ("logits", model, "--ids", IDS)
        self.refused(1, *ask, "--experts", "direct", "--experts-budget", "1K", says="but a token chooses 3 in a layer; give at least")
        self.refused(2, *ask, "--experts", "cloud", says="--experts")
        self.refused(2, *ask, "--experts-budget", "1G", says="--experts mmap")
        self.refused(2, *ask, "--experts", "mmap", "--load", "read", says="--load read")
        self.refused(2, *ask, "--experts", "mmap", "--experts-budget", "much", says="--experts-budget")

    def broken(self, change, family="qwen3_moe"):
        """A copy of a model whose config.json has been changed."""
        folder = self.out / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(MODELS / family, folder)
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def test_configs_that_do_not_fit_the_tensors(self):
        self.refused(1, "inspect", self.broken(lambda c: c.update(num_experts_per_tok=7)),
                     says="top_k is 7, but must be from 1 to the number of experts, which is 6")
        self.refused(1, "inspect", self.broken(lambda c: c.update(num_experts=7)), says="asks for [7, 32]")
        self.refused(1, "inspect", self.broken(lambda c: c.update(moe_intermediate_size=64)), says="has shape [32, 32], but the config asks for [64, 32]")
        self.refused(1, "inspect", self.broken(lambda c: c.update(mlp_only_layers=[0])), says="mlp.gate_proj.weight is missing")
        self.refused(1, "inspect", self.broken(lambda c: c.update(num_local_experts=5), "granitemoe"), says="5")
        self.refused(1, "inspect", self.broken(lambda c: c.update(model_type="deepseek_v3")), says="multi-head latent attention")


if __name__ == "__main__":
    e2e.main()
