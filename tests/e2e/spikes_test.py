"""`mneme spikes`: figures and pictures of spikes from outside, on tiny models and on real ones."""
import json
import pathlib
import shutil
import struct
import tempfile
import unittest
import xml.etree.ElementTree

import e2e

MODELS = e2e.TOP / "tests" / "data" / "models"
LLAMA = MODELS / "llama.gguf"
TEXT = "The owl hunts at night. The mouse listens, and both are right. " * 4


class SpikesTest(unittest.TestCase):
    def setUp(self):
        self.out = pathlib.Path(tempfile.mkdtemp(prefix="mneme spikes "))
        self.addCleanup(shutil.rmtree, self.out, ignore_errors=True)

    def refused(self, code, *arguments, says=""):
        ran = e2e.mneme("spikes", *arguments)
        self.assertEqual(ran.returncode, code, ran.stderr)
        self.assertEqual(ran.stderr.count("\n"), 1, ran.stderr)
        self.assertEqual(ran.stdout, "")
        self.assertIn(says, ran.stderr)

    def test_which_way_is_taken_changes_no_bit(self):
        quiet = ("--activation", "spike:k=4,dead_zone=2")
        model = MODELS / "llama_q8_0.gguf"
        for gaps, rule in (("cheap", "95 %"), ("dear", "35 %")):
            self.assertIn(rule, e2e.mneme("inspect", model, "--plan", *quiet, env={"MNEME_GAPS": gaps}).stdout)
        logits = [e2e.mneme_json("logits", model, "--ids", "5,6,7,8", *quiet, env={"MNEME_GAPS": gaps})["logits"] for gaps in ("cheap", "dear")]
        self.assertEqual(*logits)
        ran = e2e.mneme("logits", model, "--ids", "5,6,7", *quiet, env={"MNEME_GAPS": "none"})
        self.assertEqual(ran.returncode, 1)
        self.assertIn("MNEME_GAPS=none is neither dear nor cheap", ran.stderr)

    def test_figures_are_those_of_the_counts(self):
        got = e2e.mneme_json("spikes", LLAMA, "-p", TEXT, "--k", "2.5", "--steps", "4")
        self.assertEqual((got["k"], got["steps"]), (2.5, 4))
        self.assertEqual([p["name"] for p in got["projections"][:7]], ["q", "k", "v", "o", "gate", "up", "down"])
        counts = None
        for p in got["projections"]:
            counts = p.get("counts", counts)  # projections that read the same input share them
            values = sum(n for _, n in counts)
            mean = lambda figure: sum(figure(abs(s)) * n for s, n in counts) / values
            windows = [(abs(s) >> shift & 15, n) for s, n in counts for shift in (0, 4, 8)]
            self.assertEqual(values, got["tokens"] * p["inputs"])
            for name, value in (("silent", mean(lambda s: s == 0)), ("mean_abs", mean(lambda s: s)), ("popcount", mean(lambda s: s.bit_count() if hasattr(s, "bit_count") else bin(s).count("1"))),
                                ("le7", mean(lambda s: s <= 7)), ("max", max(abs(s) for s, _ in counts)),
                                ("silent_windows", sum(n for w, n in windows if w == 0) / sum(n for _, n in windows))):
                self.assertAlmostEqual(p[name], value, places=9, msg=(p["layer"], p["name"], name))
            self.assertAlmostEqual(p["slot_sparsity"], 1 - p["popcount"] / 4, places=9)
            self.assertAlmostEqual(p["mean_abs"], 2.5, delta=0.4)
        self.assertAlmostEqual(got["energy_model"]["pj_per_mac"]["spike"], got["mean"]["popcount"] * 0.03, places=9)
        self.assertIn("memory traffic", got["energy_model"]["leaves_out"])

    def test_codes_of_the_whole_model(self):
        codes = {c["code"]: c for c in e2e.mneme_json("spikes", LLAMA, "-p", TEXT)["codes"]}
        self.assertIn("negative", codes["binary"]["why_not"])
        self.assertAlmostEqual(codes["ternary"]["spikes"], 3, delta=0.4)
        self.assertLess(codes["bidirectional"]["spikes"], 2)
        self.assertGreater(codes["twos-complement"]["rate"], 0.3)  # not sparse
        self.assertEqual(codes["twos-complement"]["steps"], codes["bidirectional"]["steps"] + 1)

    def test_more_silence_with_a_lower_k_or_a_dead_zone(self):
        silent = [e2e.mneme_json("spikes", LLAMA, "-p", TEXT, *o)["mean"]["silent"]
                  for o in ((), ("--k", "1.5"), ("--dead-zone", "2"))]
        self.assertLess(silent[0], silent[1])
        self.assertLess(silent[0], silent[2])

    def test_any_model_and_any_activation(self):
        for model in ("gemma3", "qwen3.gguf", "mistral", "llama_q8_0.gguf"):
            for activation in ("float", "int8"):
                with self.subTest((model, activation)):
                    got = e2e.mneme_json("spikes", MODELS / model, "--ids", "5,6,7,8,9,10,11", "--activation", activation)
                    self.assertEqual(got["tokens"], 7)
                    self.assertGreater(got["mean"]["silent"], 0)

    def test_threads_windows_and_sources_of_text(self):
        file = self.out / "text.txt"
        file.write_text(TEXT)
        one = e2e.mneme_json("spikes", LLAMA, "-f", file, "--threads", "1", "--ctx", "32")
        self.assertEqual(one, e2e.mneme_json("spikes", LLAMA, "-p", f"@{file}", "--threads", "2", "--ctx", "32"))
        self.assertEqual(e2e.mneme_json("spikes", LLAMA, "-f", file, "--tokens", "9")["tokens"], 9)

    def test_perplexity_with_spikes_and_without(self):
        file = self.out / "text.txt"
        file.write_text(TEXT)
        window = ("--ctx", "64", "--kv", "f32")
        got = e2e.mneme_json("spikes", LLAMA, "-f", file, "--k", "2", *window)
        for name, activation in (("ppl", "spike:k=2"), ("ppl_float", "float")):
            alone = e2e.mneme_json("perplexity", LLAMA, file, "--activation", activation, *window)
            self.assertAlmostEqual(got[name], alone["ppl"], places=6, msg=name)
            self.assertEqual(got["ppl_tokens"], alone["tokens"])
        self.assertNotEqual(got["ppl"], got["ppl_float"])
        quick = e2e.mneme_json("spikes", LLAMA, "-f", file, "--k", "2", "--no-ppl", *window)
        self.assertEqual((quick["ppl"], quick["projections"]), (None, got["projections"]))
        self.assertIsNone(e2e.mneme_json("spikes", LLAMA, "--ids", "5")["ppl"])
        odd = e2e.mneme("spikes", MODELS / "spikingbrain", "--ids", "5,6,7")  # rows of 48
        self.assertEqual(odd.returncode, 0, odd.stderr)
        self.assertIn("perplexity not measured: ", odd.stdout)

    def test_a_model_that_fires_is_counted_with_its_own_neurons(self):
        q8 = MODELS / "llama_q8_0.gguf"
        got = e2e.mneme_json("spikes", q8, "-p", TEXT, "--activation", "spike:k=1,down=int8")
        self.assertIsNone(got["k"])  # not the same everywhere
        self.assertEqual({p["name"]: p["k"] for p in got["projections"]}, {"q": 1, "k": 1, "v": 1, "o": 1, "gate": 1, "up": 1, "down": 3})
        self.assertEqual({p["path"] for p in got["projections"] if p["name"] != "down"}, {"events"})
        self.assertEqual({p["path"] for p in e2e.mneme_json("spikes", q8, "-p", TEXT, "--k", "60")["projections"]}, {"dense"})

    def test_table(self):
        ran = e2e.mneme("spikes", LLAMA, "-p", TEXT)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        for words in ("q, k, v", "gate, up", "down", "E|s|", "twos-complement", "a model and not measured", "leaves out"):
            self.assertIn(words, ran.stdout)

    def test_pictures(self):
        for coding in ("ternary", "bidirectional", "twos-complement"):
            raster, png, bars = (self.out / f"{coding}{end}" for end in (".svg", ".png", " bars.svg"))
            common = ("spikes", LLAMA, "-p", TEXT, "--coding", coding, "--layer", "1", "--quiet")
            self.assertEqual(e2e.mneme(*common, "--projection", "down", "--raster", raster, "--histogram", bars).returncode, 0)
            self.assertEqual(e2e.mneme(*common, "--projection", "down", "--raster", png).returncode, 0)
            root = xml.etree.ElementTree.parse(raster).getroot()
            texts = ["".join(node.itertext()) for node in root if node.tag.endswith("text")]
            self.assertIn(f"layer 1, input of down: {coding} spikes", texts)
            self.assertEqual(struct.unpack(">II", png.read_bytes()[16:24]), (int(root.get("width")), int(root.get("height"))))
            texts = ["".join(node.itertext()) for node in xml.etree.ElementTree.parse(bars).getroot() if node.tag.endswith("text")]
            self.assertTrue(any(text.startswith("q, k, v: T = ") for text in texts), texts)

    def test_wrong_usage(self):
        self.refused(2, LLAMA, says="-p TEXT")
        self.refused(2, LLAMA, "-p", "", says="empty")
        self.refused(2, LLAMA, "-p", "x", "--ids", "1", says="one of")
        self.refused(2, LLAMA, "-p", "x", "--k", "0", says="--k")
        self.refused(2, LLAMA, "-p", "x", "--k", "nan", says="--k")
        self.refused(2, LLAMA, "-p", "x", "--dead-zone", "-1", says="--dead-zone")
        self.refused(2, LLAMA, "-p", "x", "--steps", "40", says="--steps")
        self.refused(2, LLAMA, "-p", "x", "--coding", "ternery", says="ternary")
        self.refused(2, LLAMA, "-p", "x", "--layer", "one", says="--layer")
        self.refused(2, LLAMA, "-p", "x", "--raster", self.out / "spikes.gif", says=".svg")
        empty = self.out / "empty.txt"
        empty.write_text("")
        self.refused(2, LLAMA, "-f", empty, says="empty")

    def test_bad_input(self):
        raster = self.out / "raster.svg"
        self.refused(1, LLAMA, "-p", "x", "--layer", "2", "--quiet", says="layers 0 to 1")
        self.refused(1, LLAMA, "-p", "x", "--raster", raster, "--projection", "dwon", "--quiet", says="down")
        self.refused(1, LLAMA, "-p", TEXT, "--raster", raster, "--coding", "binary", "--quiet", says="negative")
        self.refused(1, LLAMA, "-p", "x", "--raster", "/nowhere/raster.svg", "--quiet", says="/nowhere")
        self.refused(1, LLAMA, "-f", self.out / "none.txt", "--quiet", says="none.txt")
        self.refused(1, LLAMA, "--ids", "100000", "--quiet", says="100000")
        self.refused(1, LLAMA, "-p", TEXT * 9, "--ctx", "300", "--quiet", says="context")
        self.assertFalse(raster.exists())

    def real(self, variable):
        model = e2e.real_model(variable)
        text = (e2e.TOP / "docs" / "architecture.md").read_text()[:3000]
        got = e2e.mneme_json("spikes", model, "-p", text, "--k", "3", timeout=600)
        for p in got["projections"]:
            self.assertAlmostEqual(p["mean_abs"], 3, delta=0.4, msg=(p["layer"], p["name"]))  # whatever the input is
        self.assertTrue(0.05 < got["mean"]["silent"] < 0.5, got["mean"])
        self.assertTrue(0.6 < got["mean"]["silent_windows"] < 0.8, got["mean"])
        self.assertTrue(0.9 < got["ppl"] / got["ppl_float"] < 1.5, got["ppl"])

    def test_a_real_model(self):
        self.real("MNEME_TEST_MODEL")

    def test_a_real_gemma(self):
        self.real("MNEME_TEST_GEMMA")


if __name__ == "__main__":
    e2e.main()
