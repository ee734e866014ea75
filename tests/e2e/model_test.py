"""Every verb that loads a model, on the tiny random models of tests/data/models, against recorded references."""
import json
import math
import os
import signal
import struct
import subprocess
import tempfile
import unittest

import e2e

MODELS = e2e.TOP / "tests" / "data" / "models"
GGUF = MODELS / "llama.gguf"
FOLDER = MODELS / "llama"
# Numbers equal to the reference's need what the reference did: float activations, float cache.
EXACT = ("--activation", "float", "--kv", "f32")


def golden(name):
    """ids and [positions][vocab] logits that transformers computed for a model."""
    description = json.loads((MODELS / name / "golden.json").read_text())
    rows, columns = description["shape"]
    values = struct.unpack(f"<{rows * columns}f", (MODELS / name / description["logits"]).read_bytes())
    return description["ids"], [values[r * columns:(r + 1) * columns] for r in range(rows)]


def text(ids):
    return ",".join(map(str, ids))


class Logits(unittest.TestCase):
    def check(self, model, name, *options, tolerance=1e-4):
        ids, expected = golden(name)
        got = e2e.mneme_json("logits", model, "--ids", text(ids), "--all", *EXACT, *options)
        self.assertEqual(got["ids"], ids)
        self.assertEqual(len(got["logits"]), len(ids))
        worst = max(abs(a - b) for row, want in zip(got["logits"], expected) for a, b in zip(row, want))
        self.assertLessEqual(worst, tolerance)

    def test_every_family_equals_the_reference(self):
        # With exact activations; W8ASpike is its spikes: tests/engine/w8aspike_test compares those.
        for folder in sorted(MODELS.iterdir()):
            if (folder / "golden.json").is_file() and not folder.name.endswith(("_q8_0", "_w8aspike")):
                with self.subTest(folder.name):
                    self.check(folder, folder.name)

    def test_gguf_equals_the_folder(self):
        self.check(GGUF, "llama")

    def test_chunks_threads_and_load_mode_change_nothing(self):
        for options in (("--chunk", "7"), ("--threads", "1"), ("--threads", "3"), ("--load", "read")):
            with self.subTest(options):
                self.check(GGUF, "llama", *options)

    def test_every_instruction_set_agrees(self):
        for isa in ("portable", "avx2", "avx512", "avx512-vnni"):
            ran = e2e.mneme("logits", GGUF, "--ids", "5,6,7", "--json", *EXACT, env={"MNEME_ISA": isa})
            if "not an instruction set of this CPU" in ran.stderr:
                continue
            ids, want = [5, 6, 7], e2e.mneme_json("logits", GGUF, "--ids", "5,6,7", *EXACT)["logits"][0]
            got = json.loads(ran.stdout)["logits"][0]
            self.assertLessEqual(max(abs(a - b) for a, b in zip(got, want)), 1e-4, isa)

    def test_last_only_by_default(self):
        ids, expected = golden("llama")
        got = e2e.mneme_json("logits", GGUF, "--ids", text(ids), *EXACT)
        self.assertEqual(len(got["logits"]), 1)
        self.assertLessEqual(max(abs(a - b) for a, b in zip(got["logits"][0], expected[-1])), 1e-4)

    def test_quantized_at_load(self):
        ids, expected = golden("llama")
        got = e2e.mneme_json("logits", FOLDER, "--ids", text(ids), "--type", "q8_0")["logits"][0]
        worst = max(abs(a - b) for a, b in zip(got, expected[-1]))
        self.assertGreater(worst, 0)
        self.assertLess(worst, 0.1 * max(map(abs, expected[-1])))

    def test_text_shows_the_best_tokens(self):
        ids, expected = golden("llama")
        best = max(range(len(expected[-1])), key=expected[-1].__getitem__)
        ran = e2e.mneme("logits", GGUF, "--ids", text(ids), "--top", "3", *EXACT)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual(ran.stdout.splitlines()[2].split()[1], str(best))


class Text(unittest.TestCase):
    LINES = ("Hello world", "", "naïve café", "日本語", "emoji 🎉", " leading and  double", "tab\tnew\nline")

    def test_there_and_back(self):
        for model in (GGUF, FOLDER):
            for line in self.LINES:
                ids = e2e.mneme_json("tokenize", model, line)
                self.assertEqual(len(ids["ids"]), len(ids["tokens"]))
                if not line:
                    continue
                back = e2e.mneme_json("detokenize", model, "--ids", text(ids["ids"]), "--skip-special")
                self.assertEqual(back, {"text": line})
                ran = e2e.mneme("detokenize", model, "--ids", text(ids["ids"]), "--skip-special")
                self.assertEqual(ran.stdout, line)

    def test_gguf_and_folder_agree(self):
        for line in self.LINES:
            self.assertEqual(e2e.mneme_json("tokenize", GGUF, line), e2e.mneme_json("tokenize", FOLDER, line))

    def test_special_tokens_and_raw(self):
        special = e2e.mneme_json("tokenize", GGUF, "<|end|>")["ids"]
        plain = e2e.mneme_json("tokenize", GGUF, "<|end|>", "--raw")["ids"]
        self.assertEqual(special[-1], 1)
        self.assertNotIn(1, plain)
        self.assertEqual(e2e.mneme_json("detokenize", GGUF, "--ids", text(plain))["text"], "<|end|>")

    def test_files_and_stdin(self):
        with tempfile.NamedTemporaryFile("w", suffix=" x.txt") as file:
            file.write("from a file")
            file.flush()
            want = e2e.mneme_json("tokenize", GGUF, "from a file")
            self.assertEqual(e2e.mneme_json("tokenize", GGUF, "@" + file.name), want)
        self.assertEqual(e2e.mneme_json("tokenize", GGUF, "@-", stdin="from a file"), want)
        self.assertEqual(e2e.mneme_json("tokenize", GGUF, "@@home")["ids"], e2e.mneme_json("tokenize", GGUF, "@-", stdin="@home")["ids"])

    def test_bytes_that_are_not_utf8_become_the_replacement_character(self):
        bad = e2e.mneme_json("tokenize", GGUF, os.fsdecode(b"a\xff\xc3b"))
        good = e2e.mneme_json("tokenize", GGUF, "a\ufffd\ufffdb")
        self.assertEqual(bad, good)

    def test_pipes(self):
        ids = e2e.mneme("tokenize", GGUF, "over a pipe").stdout
        self.assertEqual(e2e.mneme("detokenize", GGUF, "--ids", "@-", "--skip-special", stdin=ids).stdout, "over a pipe")


class Generate(unittest.TestCase):
    KEYS = {"text", "prompt_tokens", "generated_tokens", "ttft_ms", "tokens_per_second", "stop"}

    def test_json_and_text_agree(self):
        options = ("-p", "Hello", "-n", "12", "--temp", "0", "--ignore-eos")
        got = e2e.mneme_json("generate", GGUF, *options)
        self.assertEqual(set(got), self.KEYS)
        self.assertEqual((got["generated_tokens"], got["stop"]), (12, "length"))
        self.assertGreater(got["ttft_ms"], 0)
        self.assertGreater(got["tokens_per_second"], 0)
        ran = e2e.mneme("generate", GGUF, *options, "--quiet")
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        self.assertEqual(ran.stdout.removesuffix("\n"), got["text"].removesuffix("\n"))

    def test_greedy_is_the_best_logit(self):
        ids = [5, 6, 7]
        best = []
        for _ in range(4):
            row = e2e.mneme_json("logits", GGUF, "--ids", text(ids + best), *EXACT)["logits"][0]
            best.append(max(range(len(row)), key=row.__getitem__))
        got = e2e.mneme_json("generate", GGUF, "--ids", text(ids), "-n", "4", "--temp", "0", "--ignore-eos", *EXACT)
        self.assertEqual(got["text"], e2e.mneme_json("detokenize", GGUF, "--ids", text(best), "--skip-special")["text"])

    def test_same_seed_same_text_with_any_thread_count(self):
        def sample(seed, threads):
            return e2e.mneme_json("generate", GGUF, "-p", "abc", "-n", "24", "--temp", "1.5", "--top-k", "0", "--ignore-eos",
                                  "--seed", seed, "--threads", threads)["text"]
        self.assertEqual(sample(1, 1), sample(1, 2))
        self.assertNotEqual(sample(1, 1), sample(2, 1))

    def test_stops_at_a_string_and_at_the_context(self):
        long = e2e.mneme_json("generate", GGUF, "-p", "Hello", "-n", "16", "--temp", "0", "--ignore-eos")["text"]
        stop = long[3:5]
        got = e2e.mneme_json("generate", GGUF, "-p", "Hello", "-n", "16", "--temp", "0", "--ignore-eos", "--stop", stop)
        self.assertEqual((got["stop"], got["text"]), ("stop", long[:long.index(stop)]))
        got = e2e.mneme_json("generate", GGUF, "-p", "Hello", "-n", "1000", "--temp", "0", "--ignore-eos", "--ctx", "32")
        self.assertEqual(got["stop"], "context")

    def test_a_prompt_beyond_the_context_is_refused(self):
        ran = e2e.mneme("generate", GGUF, "--ids", text([5] * 40), "-n", "4", "--ctx", "32", "--quiet")
        self.assertEqual(ran.returncode, 1)
        self.assertEqual(ran.stderr.count("\n"), 1)
        self.assertIn("32", ran.stderr)


class Measure(unittest.TestCase):
    def test_bench_json(self):
        got = e2e.mneme_json("bench", GGUF, "--prompt", "8,16", "--gen", "4", "--depth", "0,20", "--repeat", "2", "--quiet")
        self.assertEqual([(r["test"], r["depth"]) for r in got],
                         [("pp8", 0), ("pp16", 0), ("tg4", 0), ("pp8", 20), ("pp16", 20), ("tg4", 20)])
        for row in got:
            self.assertTrue({"test", "depth", "tokens_per_second", "sd", "bytes_per_token", "bandwidth_fraction", "rss_bytes"} <= set(row))
            self.assertGreater(row["tokens_per_second"], 0)
            self.assertGreater(row["bytes_per_token"], 1000)
            self.assertGreater(row["rss_bytes"], 1 << 20)
        self.assertGreater(got[5]["bytes_per_token"], got[2]["bytes_per_token"])  # deeper: more cache to read

    def test_bench_measures_bandwidth_between_the_runs(self):
        got, = e2e.mneme_json("bench", GGUF, "--prompt", "0", "--gen", "4", "--repeat", "2", "--bandwidth", "--quiet")
        self.assertEqual(got["bandwidth_source"], "measured in this run")
        self.assertGreater(got["read_gbps"], 0.1)
        self.assertLess(got["read_gbps"], 5000)
        self.assertAlmostEqual(got["bandwidth_fraction"], got["bytes_per_token"] * got["tokens_per_second"] / (got["read_gbps"] * 1e9), 6)
        self.assertLess(got["rss_bytes"], 60 << 20)  # of the model; the buffer that is read is not counted

    def test_bench_says_that_a_synthetic_context_was_not_read(self):
        base = ("bench", GGUF, "--prompt", "0", "--gen", "2", "--depth", "3000", "--repeat", "1", "--synthetic")
        got, = e2e.mneme_json(*base, "--quiet")
        self.assertEqual((got["depth"], got["depth_filled"]), (3000, "synthetic"))
        self.assertIn("no text was read", e2e.mneme(*base).stdout)

    def test_bench_forms(self):
        base = ("bench", GGUF, "--prompt", "4", "--gen", "0", "--repeat", "1", "--quiet")
        self.assertEqual(e2e.mneme(*base).stdout.splitlines()[1].split()[0], "pp4")
        self.assertTrue(e2e.mneme(*base, "-o", "md").stdout.startswith("| test |"))
        self.assertEqual(e2e.mneme(*base, "-o", "csv").stdout.splitlines()[1].split(",")[0], "pp4")

    def test_perplexity_equals_the_logits(self):
        """The file's ids, cut into windows of 16, the second half of each scored from `mneme logits`."""
        words = " ".join(f"word{i}" for i in range(30))
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(words)
            file.flush()
            got = e2e.mneme_json("perplexity", GGUF, file.name, "--ctx", "16", *EXACT, "--quiet")
        ids = e2e.mneme_json("tokenize", GGUF, words)["ids"]
        total, count = 0.0, 0
        for at in range(0, len(ids) - 15, 16):
            window = ids[at:at + 16]
            rows = e2e.mneme_json("logits", GGUF, "--ids", text(window), "--all", *EXACT)["logits"]
            for i in range(8, 16):
                row = rows[i - 1]
                most = max(row)
                total -= row[window[i]] - most - math.log(sum(math.exp(x - most) for x in row))
                count += 1
        self.assertEqual(got["tokens"], count)
        self.assertAlmostEqual(got["nll"], total / count, delta=1e-4)
        self.assertAlmostEqual(got["ppl"], math.exp(total / count), delta=1e-2)
        self.assertGreater(got["stderr"], 0)

    def test_inspect_json(self):
        for model in (GGUF, FOLDER):
            got = e2e.mneme_json("inspect", model)
            self.assertTrue({"config", "tensors", "bytes", "state_bytes", "kv_bytes_per_token", "plan"} <= set(got))
            self.assertEqual(set(got["bytes"]), {"resident", "mapped", "disk"})
            self.assertEqual((got["config"]["d_model"], got["config"]["vocab"]), (32, 288))
            self.assertEqual(got["kv_bytes_per_token"], 2 * 1 * 2 * 16 * 2)  # layers, KV heads, K and V, head_dim, f16
            self.assertTrue(got["plan"]["decode"] and got["plan"]["prefill"])
            self.assertEqual({"name", "type", "layout", "shape", "bytes"}, set(got["tensors"][0]))

    def test_inspect_text(self):
        summary = e2e.mneme("inspect", GGUF)
        self.assertEqual(summary.returncode, 0, summary.stderr)
        self.assertIn("2 x full attention, 2 heads, 1 KV heads of 16", summary.stdout)
        for option in ("--tensors", "--plan", "--config"):
            self.assertGreater(len(e2e.mneme("inspect", GGUF, option).stdout.splitlines()), 5, option)


class Interrupt(unittest.TestCase):
    def start(self):
        process = subprocess.Popen([e2e.MNEME, "bench", str(GGUF), "--prompt", "64", "--repeat", "1000", "--gen", "60"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        process.stderr.readline()  # the model's line: it has been loaded
        return process

    def test_ctrl_c_ends_with_130(self):
        process = self.start()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        self.assertEqual((process.returncode, out), (130, ""))
        self.assertIn("interrupted", err)

    def test_terminate_ends_with_143(self):
        process = self.start()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        self.assertEqual(process.returncode, 143)


if __name__ == "__main__":
    e2e.main()
