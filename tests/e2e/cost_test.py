"""mneme cost: counts of configs and models, the ratio, predictions, sweeps, pictures, prices, and bad input."""
import json
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import e2e

MODELS = e2e.TOP / "tests/data/models"
MIXERS = e2e.TOP / "tests/data/mixers"
PUBLISHED = ("--alpha", "0.8", "--context", "4Mi", "--attended", "32Ki", "--activity", "0.31", "--active-experts", "2/64")
CONFIG = {"mneme": 1, "name": "hand", "d_model": 64, "vocab": 256, "context": 1048576, "tied": True,
          "defaults": {"mixer": {"heads": 4, "kv_heads": 2, "head_dim": 16}, "ffn": {"type": "dense", "hidden": 128}},
          "layers": [{"mixer": {"type": "full"}}, {"mixer": {"type": "window", "window": 512}}]}


class Case(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="mneme cost "))
        self.addCleanup(shutil.rmtree, self.work)
        self.env = {"MNEME_HOME": self.work / "home"}
        self.config = self.work / "config.json"
        self.config.write_text(json.dumps(CONFIG))

    def cost(self, *arguments, machine="none"):
        return e2e.mneme_json("cost", *arguments, "--machine", machine, env=self.env)

    def fails(self, *arguments, code, says):
        ran = e2e.mneme("cost", *arguments, env=self.env)
        self.assertEqual(ran.returncode, code, ran.stderr)
        self.assertEqual(ran.stdout, "")
        self.assertEqual(ran.stderr.strip().count("\n"), 0, ran.stderr)
        self.assertIn(says, ran.stderr)


class Counts(Case):
    def test_a_config_by_hand(self):
        got = self.cost(self.config, "--context", 1000, "--type", "q8_0")
        layer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64
        positions = 2 * 64 * (1000 + 512)
        self.assertEqual(got["macs"], 2 * layer + 64 * 256 + positions)
        self.assertEqual(got["position_macs"], positions)
        weights = (2 * layer + 64 * 256) * (1 + 1 / 16)
        self.assertEqual(got["weight_bytes"], weights)
        row = 2 * 2 * 16 * 2
        self.assertEqual(got["bytes"], weights + row * (1000 + 512) + 2 * row)
        self.assertEqual(got["kv_bytes"], row * (1000 + 512))
        self.assertEqual(got["state_bytes"], got["kv_bytes"])
        self.assertEqual(got["prompt"]["tokens"], 1000)
        self.assertAlmostEqual(sum(got["share"].values()), 1)
        self.assertAlmostEqual(sum(got["share_bytes"].values()), 1)
        self.assertIsNone(got["predicted_ms"])
        self.assertIsNone(got["measured_ms"])

    def test_a_model_is_what_inspect_says(self):
        for model in (MODELS / "llama_q8_0.gguf", MODELS / "gemma3", MIXERS / "hybrid", MIXERS / "sparse"):
            with self.subTest(model=model.name):
                seen = e2e.mneme_json("inspect", model, env=self.env)
                got = self.cost(model, "--context", 50)
                self.assertEqual(got["weight_bytes"], seen["bytes_per_token"])
                self.assertEqual(got["resident_bytes"], seen["bytes"]["resident"])
                self.assertEqual(got["disk_bytes"], seen["bytes"]["disk"])
                self.assertEqual(got["recurrent_state_bytes"], seen["recurrent_state_bytes"])

    def test_hugging_face_configs_are_read(self):
        got = self.cost(MODELS / "llama/config.json", "--type", "f32", "--context", 10)
        self.assertEqual(got["macs"], self.cost(MODELS / "llama", "--context", 10)["macs"])
        self.assertTrue(any("a config has no weights" in note for note in got["notes"]))

    def test_weights_of_another_type(self):
        eight = self.cost(MODELS / "llama", "--type", "q8_0", "--context", 10)
        full = self.cost(MODELS / "llama", "--context", 10)
        self.assertLess(eight["resident_bytes"], full["resident_bytes"])
        self.assertEqual(eight["macs"], full["macs"])

    def test_a_text_page(self):
        ran = e2e.mneme("cost", self.config, "--machine", "none", env=self.env)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        for word in ("One token", "A prompt", "State", "Weights", "feed_forward", "R = alpha m/n", "leaves out"):
            self.assertIn(word, ran.stdout)


class Ratio(Case):
    def test_the_published_example(self):
        got = e2e.mneme_json("cost", *PUBLISHED, env=self.env)
        self.assertAlmostEqual(got["R"], 0.8 * 2**15 / 2**22 + 0.2 * 0.31 * 2 / 64, places=12)
        self.assertAlmostEqual(got["speedup"], 122.1, delta=0.1)
        self.assertIn("bytes moved", got["ratio"]["leaves_out"])
        ran = e2e.mneme("cost", *PUBLISHED, env=self.env)
        self.assertIn("1/R = 122.1", ran.stdout)

    def test_terms_are_counted_and_say_so(self):
        got = self.cost(self.config, "--context", 4096)
        self.assertAlmostEqual(got["m_over_n"], (4096 + 512) / 2 / 4096)
        self.assertEqual(got["a"], 1)
        self.assertEqual(got["ratio"]["sources"]["alpha"], "counted")
        self.assertAlmostEqual(got["R"], got["alpha"] * got["m_over_n"] + 1 - got["alpha"])
        self.assertAlmostEqual(got["R"], got["ratio"]["counted_macs"])  # nothing fires and nothing routes
        given = self.cost(self.config, "--context", 4096, "--alpha", 0.5, "--attended", 1024)
        self.assertEqual(given["ratio"]["sources"]["alpha"], "given")
        self.assertAlmostEqual(given["R"], 0.5 * 0.25 + 0.5)

    def test_activity_comes_from_a_report(self):
        model = MODELS / "llama_q8_0.gguf"
        report = e2e.mneme_json("spikes", model, "--ids", "1,2,3,4,5,6,7,8", "--no-ppl", env=self.env)
        file = self.work / "spikes.json"
        file.write_text(json.dumps(report))
        got = self.cost(model, "--context", 50, "--spikes", file)
        weights = [p["inputs"] * p["outputs"] for p in report["projections"]]
        mean = sum(w * (1 - p["silent"]) for w, p in zip(weights, report["projections"])) / sum(weights)
        self.assertAlmostEqual(got["a"], mean, places=9)
        self.assertEqual(got["ratio"]["sources"]["a"], f"measured: {file}")
        self.assertTrue(any("counted as if all did" in note for note in got["notes"]))
        self.assertGreater(got["energy_model"]["macs"]["spike"], 0)
        dense = self.cost(model, "--context", 50)
        self.assertLess(got["macs"], dense["macs"])
        self.fails(MODELS / "qwen3.gguf", "--spikes", file, "--machine", "none", code=1, says="of another model")

    def test_experts_of_a_file_are_counted_in_their_type(self):
        for type_ in ("q8_0", "f16"):
            with self.subTest(type=type_):
                made = self.work / f"mixture-{type_}.gguf"
                e2e.mneme("quantize", MODELS / "qwen3_moe", made, "--type", type_, "--quiet", env=self.env)
                seen = e2e.mneme_json("inspect", made, env=self.env)
                self.assertEqual(self.cost(made, "--context", 9)["weight_bytes"], seen["bytes_per_token"])

    def test_active_experts_come_from_a_report(self):
        model = MIXERS / "moe_adaptive"
        report = e2e.mneme_json("experts", model, "--ids", ",".join(str(i) for i in range(1, 40)), env=self.env)
        file = self.work / "experts.json"
        file.write_text(json.dumps(report))
        counted = self.cost(model, "--context", 50)
        got = self.cost(model, "--context", 50, "--routing", file)
        self.assertEqual(got["ratio"]["sources"]["k_over_M"], f"measured: {file}")
        self.assertEqual(counted["ratio"]["sources"]["k_over_M"], "counted")
        self.assertTrue(any(layer["mean_active"] < layer["top_k"] for layer in report["layers"]))
        # An expert is three matrices of 32 hidden values; what does not wake is not multiplied.
        asleep = sum(layer["top_k"] - layer["mean_active"] for layer in report["layers"])
        width = json.loads((model / "config.json").read_text())["mneme_config"]["d_model"]
        self.assertAlmostEqual(counted["macs"] - got["macs"], asleep * 3 * 32 * width, places=3)
        self.assertLess(got["k_over_M"], counted["k_over_M"])
        self.fails(MODELS / "mixtral", "--routing", file, "--machine", "none", code=1, says="of another model")
        self.fails(MODELS / "qwen3.gguf", "--routing", file, "--machine", "none", code=1, says="no layer of the model has experts")

    def test_activity_that_is_given(self):
        got = self.cost(self.config, "--activity", 0.25, "--context", 10)
        self.assertAlmostEqual(got["a"], 0.25)
        self.assertEqual(got["ratio"]["sources"]["a"], "given")


class Predictions(Case):
    def test_predicted_and_measured(self):
        got = self.cost(MIXERS / "hybrid", "--context", 40, "--prompt", 20, "--measure", "--tokens", 4, "--repeat", 3, "--threads", 1,
                        machine="measure")
        self.assertGreater(got["predicted_ms"], 0)
        self.assertGreater(got["measured_ms"], 0)
        self.assertGreaterEqual(len(got["measured_runs_ms"]), 3)
        self.assertAlmostEqual(got["predicted_over_measured"], got["predicted_ms"] / got["measured_ms"])
        self.assertGreater(got["prompt"]["measured_ms"], 0)
        self.assertEqual(got["figures"], "measured in this run")
        self.assertAlmostEqual(sum(got["roofline"]["parts_ms"].values()), got["predicted_ms"])
        again = self.cost(MIXERS / "hybrid", "--context", 40, "--prompt", 20, "--threads", 1, machine="cached")
        self.assertEqual(again["predicted_ms"], got["predicted_ms"])
        self.assertIn("estimate", again["figures"])

    def test_cached_rates_must_be_there(self):
        self.fails(self.config, "--machine", "cached", code=1, says="--machine measure")

    def test_rates_that_cannot_be_kept_cost_no_result(self):
        ran = e2e.mneme("cost", self.config, "--context", 10, "--threads", 1, "--json", env={"MNEME_HOME": self.config})  # a file, no folder
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertGreater(json.loads(ran.stdout)["predicted_ms"], 0)
        self.assertIn("rates are not kept", ran.stderr)

    def test_against_a_dense_parent(self):
        got = self.cost(MIXERS / "window_exact", "--context", 30, "--measure", "--tokens", 2, "--repeat", 1, "--against", MODELS / "llama")
        self.assertGreater(got["ratio"]["measured_time"], 0)

    def test_price(self):
        got = self.cost(MODELS / "llama", "--context", 20, "--measure", "--tokens", 2, "--repeat", 1, "--per-hour", 3.6, "--per-kwh", 0.5,
                        "--watts", 100)
        price = got["price_per_million"]
        self.assertAlmostEqual(price["by_hour"], got["measured_ms"])  # 0.001 a second
        self.assertAlmostEqual(price["by_energy"], got["measured_ms"] * 100 * 0.5 / 3600)
        model = self.cost(MODELS / "llama", "--context", 20, "--per-kwh", 0.5)
        joules = model["energy_model"]["arithmetic_joules"]
        self.assertAlmostEqual(model["price_per_million"]["by_energy_model"], joules * 1e6 / 3.6e6 * 0.5)
        macs = model["energy_model"]["macs"]
        self.assertAlmostEqual(joules * 1e12, macs["float"] * 1.5 + macs["int8"] * 0.23, places=3)
        self.fails(self.config, "--per-hour", 1, "--machine", "none", code=1, says="needs a time")


class Sweeps(Case):
    def test_context(self):
        got = self.cost(self.config, "--sweep", "context=1Ki,4Ki,16Ki")
        self.assertEqual([p["swept"]["context"] for p in got], [1024, 4096, 16384])
        self.assertEqual([p["context"] for p in got], [1024, 4096, 16384])
        step = (got[1]["macs"] - got[0]["macs"], got[2]["macs"] - got[1]["macs"])
        self.assertEqual(step, (2 * 64 * 3072, 2 * 64 * 12288))  # only the full layer grows

    def test_two_at_once_and_markdown(self):
        got = self.cost(self.config, "--sweep", "context=10,20", "--sweep", "density=0.1,0.5,1")
        self.assertEqual([(p["swept"]["context"], p["swept"]["density"]) for p in got],
                         [(10, 0.1), (10, 0.5), (10, 1), (20, 0.1), (20, 0.5), (20, 1)])
        self.assertLess(got[0]["bytes"], got[1]["bytes"])
        ran = e2e.mneme("cost", self.config, "--sweep", "context=10,20", "-o", "md", "--machine", "none", env=self.env)
        rows = [line for line in ran.stdout.splitlines() if line.startswith("|")]
        self.assertEqual(len(rows), 4)
        self.assertEqual({row.count("|") for row in rows}, {rows[0].count("|")})
        ran = e2e.mneme("cost", self.config, "--sweep", "context=10,20", "-o", "csv", "--machine", "none", env=self.env)
        self.assertEqual(len(ran.stdout.splitlines()), 3)

    def test_prices_stand_beside_every_point(self):
        ran = e2e.mneme("cost", self.config, "--sweep", "density=0.1,1", "-o", "csv", "--per-kwh", 0.5, "--machine", "none", env=self.env)
        name, *prices = [line.split(",")[-1] for line in ran.stdout.splitlines()]
        self.assertEqual(name, "by the energy model")
        self.assertLess(float(prices[0]), float(prices[1]))

    def test_one_context(self):
        self.fails(self.config, "--context", 10, "--sweep", "context=10,20", code=2, says="give one of them")

    def test_table_size(self):
        config = {**CONFIG, "tables": {"facts": {"compressed_vocab": 200, "heads": 4, "head_dim": 8, "base_rows": [1000, 1000], "layer_ids": [0]}}}
        config["layers"] = [{"mixer": {"type": "full"}, "memory": {"table": "facts", "layer_id": 0}}]
        self.config.write_text(json.dumps(config))
        small, large = self.cost(self.config, "--sweep", "rows=1000,1000000")
        self.assertEqual(small["bytes"], large["bytes"])  # a larger table costs no more a token
        self.assertGreater(large["table_bytes"], 900 * small["table_bytes"])
        self.assertGreater(small["share"]["memory"], 0)

    def picture(self, sweep):
        self.cost(self.config, "--sweep", sweep, "--plot", self.work / "one.svg")
        return (self.work / "one.svg").read_text()

    def test_pictures(self):
        for name, begin in (("cost.svg", b"<svg"), ("cost.png", b"\x89PNG")):
            file = self.work / name
            self.cost(self.config, "--sweep", "context=1Ki,2Ki", "--plot", file)
            self.assertTrue(file.read_bytes().startswith(begin))
        self.assertIn("1048576", self.picture("context=1Mi"))
        self.fails(self.config, "--plot", "cost.gif", code=2, says="--plot")
        self.fails("no-such-model", "--plot", self.work / "none" / "c.svg", code=1, says="there is no folder")
        self.fails("no-such-model", "--plot", self.work / "c.svg", "--machine", "none",
                   "--sweep", "context=" + ",".join(map(str, range(1, 80))), code=1, says="64 points")


    def test_ctrl_c_ends_a_sweep(self):
        many = ",".join(map(str, range(1, 4097)))
        self.config.write_text(json.dumps({**CONFIG, "layers": [{"repeat": 200}]}))  # minutes for all of them
        process = subprocess.Popen([e2e.MNEME, "cost", self.config, "--sweep", "context=" + many, "--machine", "none"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        self.assertEqual((process.returncode, out[:80]), (130, ""), err)


class BadInput(Case):
    def test_contexts(self):
        for context in ("0", "-5", "nan", "inf", "1e99", "99999999999", "x", "2147483649"):
            self.fails(self.config, "--context", context, code=2, says="--context")
            self.fails(self.config, "--prompt", context, code=2, says="--prompt")
        got = self.cost(self.config, "--context", 1 << 30)
        self.assertAlmostEqual(got["prompt"]["macs"] / (2 * 64 * (2.0**30) ** 2 / 2), 1, delta=0.01)

    def test_rates(self):
        for option in ("--per-hour", "--per-kwh"):
            for value in ("nan", "-1", "inf"):
                self.fails(self.config, option, value, code=2, says=option)
        self.fails(self.config, "--per-kwh", "1", "--watts", "nan", code=2, says="--watts")
        self.fails(self.config, "--watts", "10", code=2, says="--per-kwh")

    def test_shares(self):
        for option in ("--alpha", "--activity"):
            for value in ("nan", "-0.1", "1.5"):
                self.fails(self.config, option, value, code=2, says=option)
        for value in ("2", "3/2", "a/b", "1/0", "-1/4", "nan/4"):
            self.fails(self.config, "--active-experts", value, "--machine", "none", code=2, says="--active-experts")
        self.fails(self.config, "--attended", "100", "--context", "50", "--machine", "none", code=2, says="--attended")

    def test_sweeps(self):
        self.fails(self.config, "--sweep", "contxt=1,2", code=2, says="did you mean context?")
        self.fails(self.config, "--sweep", "context", code=2, says="values are wanted")
        self.fails(self.config, "--sweep", "context=1,,2", code=2, says="--sweep context")
        self.fails(self.config, "--sweep", "density=0.5,nan", code=2, says="density")
        self.fails(self.config, "--sweep", "rows=100", "--machine", "none", code=1, says="no memory table")
        self.fails(self.config, "--sweep", "experts=4", "--machine", "none", code=1, says="experts")
        self.fails(self.config, "--sweep", "context=1,2", "--sweep", "context=3", code=2, says="given twice")
        many = ",".join(map(str, range(1, 101)))
        self.fails(self.config, "--sweep", "context=" + many, "--sweep", "rows=" + many, code=2, says="4096 points")

    def test_files(self):
        self.fails("no-such-model", code=1, says="no-such-model")
        self.fails(self.work / "none.json", code=1, says="none.json")
        self.config.write_text("{")
        self.fails(self.config, code=1, says="config.json")
        self.config.write_text(json.dumps({**CONFIG, "d_modle": 3}))
        self.fails(self.config, code=1, says="d_model")
        self.config.write_text(json.dumps(CONFIG))
        report = self.work / "report.json"
        report.write_text("[1]")
        self.fails(self.config, "--spikes", report, code=1, says="spikes")
        self.fails(self.config, "--spikes", report, "--activity", "0.5", code=2, says="one of them")
        self.fails(self.config, "--routing", report, code=1, says="experts")
        self.fails(self.config, "--routing", report, "--active-experts", "1/2", code=2, says="one of them")

    def test_what_needs_a_model(self):
        self.fails(code=2, says="--attended")
        self.fails(self.config, "--measure", code=2, says="this is a config")
        self.fails("--measure", *PUBLISHED, code=2, says="need a config or a model")
        self.fails(self.config, "--against", "x", code=2, says="--measure")
        self.fails(MODELS / "llama", "--measure", "--sweep", "density=0.5", code=2, says="sweep context")
        self.fails(MODELS / "llama", "--machine", "fast", code=2, says="--machine")


if __name__ == "__main__":
    e2e.main()
