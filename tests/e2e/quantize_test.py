"""`mneme quantize` from outside: GGUF and Hugging Face folders into each other, judged by the logits that come out."""
import os
import pathlib
import resource
import signal
import subprocess
import tempfile
import unittest

import e2e

MODELS = e2e.TOP / "tests/data/models"
FAMILIES = ["llama", "llama3", "llama_linear", "llama_yarn", "mistral", "qwen2", "qwen3", "gemma3", "gemma3_pattern"]
IDS = "5,70,8,101,44,3,250,17,9,33,60,12"


def logits(model, ids=IDS):
    """In f32 throughout: an f16 cache would round keys that differ in the last bit to different halves."""
    return [v for row in e2e.mneme_json("logits", model, "--ids", ids, "--all", "--activation", "float", "--kv", "f32")["logits"] for v in row]


def distance(a, b):
    assert len(a) == len(b)
    return max(abs(x - y) for x, y in zip(a, b))


def check_round_trip(test, family, folder):
    """A tiny model becomes a GGUF file and that a folder, with the same logits; the file's path."""
    gguf, back = folder / f"{family}.gguf", folder / f"{family}_back"
    e2e.mneme_json("quantize", MODELS / family, gguf, "--type", "f32")
    e2e.mneme_json("quantize", gguf, f"{back}/", "--type", "f32")
    want = logits(MODELS / family)
    test.assertGreater(max(want) - min(want), 0.01)
    test.assertLess(distance(logits(gguf), want), 1e-4)
    test.assertLess(distance(logits(back), want), 1e-4)
    return gguf


class Quantize(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.out = pathlib.Path(self.folder.name)

    def test_round_trip_keeps_the_logits_of_every_family(self):
        for family in FAMILIES:
            with self.subTest(family):
                check_round_trip(self, family, self.out)

    def test_round_trip_of_a_real_model(self):
        model = e2e.real_model()
        folder = self.out / "folder"
        sizes = e2e.mneme_json("quantize", model, f"{folder}/", "--type", "f32", timeout=600)
        self.assertEqual(sizes["bytes_in"], os.path.getsize(model))
        self.assertEqual(sizes["bytes_out"], sum(f.stat().st_size for f in folder.iterdir()))
        ids = e2e.mneme_json("tokenize", model, "The capital of France is")["ids"]
        self.assertEqual(e2e.mneme_json("tokenize", folder, "The capital of France is")["ids"], ids)
        text = ",".join(map(str, ids))
        self.assertLess(distance(logits(folder, text), logits(model, text)), 2e-3)

    def test_failures_are_one_line_and_leave_nothing(self):
        llama = MODELS / "llama.gguf"
        cases = [(1, [self.out / "absent.gguf", self.out / "x.gguf"]),
                 (1, [llama, self.out / "no-folder" / "x.gguf"]),
                 (1, [llama, f"{self.out}/x/", "--type", "q8_0"]),
                 (2, [llama, self.out / "x.gguf", "--type", "q9"]),
                 (2, [llama, self.out / "x.gguf", "--format", "zip"]),
                 (2, [llama])]
        for code, arguments in cases:
            with self.subTest(arguments):
                ran = e2e.mneme("quantize", *arguments)
                self.assertEqual(ran.returncode, code, ran.stderr)
                self.assertEqual(len(ran.stderr.strip().splitlines()), 1, ran.stderr)
        self.assertEqual(list(self.out.iterdir()), [])

    def test_a_full_disk_ends_in_one_line_without_a_partial_file(self):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

        ran = subprocess.run([e2e.MNEME, "quantize", MODELS / "llama.gguf", self.out / "x.gguf", "--type", "f32"],
                             capture_output=True, text=True, preexec_fn=limit)
        self.assertEqual(ran.returncode, 1)
        self.assertEqual(len(ran.stderr.strip().splitlines()), 1, ran.stderr)
        self.assertEqual(list(self.out.iterdir()), [])


if __name__ == "__main__":
    e2e.main()
