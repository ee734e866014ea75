"""The verbs on the default model (SmolLM2-135M-Instruct Q4_1), where it could be fetched."""
import json
import math
import os
import tempfile
import unittest

import e2e


class RealModel(unittest.TestCase):
    def setUp(self):
        self.model = e2e.real_model()

    def test_it_knows_the_capital_of_france(self):
        got = e2e.mneme_json("generate", self.model, "-p", "The capital of France is", "-n", "12", "--temp", "0")
        self.assertIn("Paris", got["text"])

    def test_activations_and_caches_agree_on_the_likely(self):
        base = ("generate", self.model, "-p", "One, two, three, four,", "-n", "4", "--temp", "0")
        for options in ((), ("--activation", "float"), ("--kv", "int8"), ("--kv", "f32"), ("--load", "read"), ("--threads", "1")):
            with self.subTest(options):
                self.assertIn("five", e2e.mneme_json(*base, *options)["text"])

    def test_text_goes_there_and_back(self):
        for text in ("Hello, world!", "Xin chào thế giới", "你好，世界", "🎉 emoji", "  spaces\n\n\tand tabs"):
            ids = e2e.mneme_json("tokenize", self.model, text)["ids"]
            self.assertEqual(e2e.mneme_json("detokenize", self.model, "--ids", ",".join(map(str, ids)))["text"], text)

    def test_real_text_is_likelier_than_noise(self):
        def perplexity(text):
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(text)
                file.flush()
                return e2e.mneme_json("perplexity", self.model, file.name, "--ctx", "64", "--quiet")
        real = perplexity("The sun rises in the east and sets in the west. Water boils at one hundred degrees. "
                          "The children went to school, and after school they played in the garden. " * 4)
        noise = perplexity(" ".join(f"q{i * 7919 % 9973}z" for i in range(120)))
        self.assertLess(real["ppl"], 60)
        self.assertGreater(noise["ppl"], 2 * real["ppl"])
        self.assertAlmostEqual(real["ppl"], math.exp(real["nll"]), delta=1e-6 * real["ppl"])

    def test_inspect(self):
        got = e2e.mneme_json("inspect", self.model)
        self.assertEqual((got["config"]["d_model"], got["config"]["vocab"]), (576, 49152))
        self.assertEqual(got["kv_bytes_per_token"], 30 * 3 * 64 * 2 * 2)
        self.assertEqual(got["bytes"]["disk"], os.path.getsize(self.model))

    def test_bench(self):
        got = e2e.mneme_json("bench", self.model, "--prompt", "32", "--gen", "8", "--repeat", "2", "--quiet")
        self.assertEqual([row["test"] for row in got], ["pp32", "tg8"])
        self.assertGreater(got[1]["bytes_per_token"], 50e6)

    def test_threads_from_the_environment(self):
        got = e2e.mneme("inspect", self.model, "--json", env={"MNEME_THREADS": "1"})
        self.assertEqual(json.loads(got.stdout)["threads"], 1)


if __name__ == "__main__":
    e2e.main()
