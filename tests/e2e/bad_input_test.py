"""Bad input from outside: each ends with exit 1 and one clear line, never with a crash, a hang or a half-written file."""
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest

import e2e

MODELS = e2e.TOP / "tests" / "data" / "models"
GGUF = MODELS / "llama.gguf"
FOLDER = MODELS / "llama"


def verbs_on(model, text_file):
    """A working command line of every verb that loads a model."""
    return [("generate", model, "-p", "x", "-n", "1"), ("tokenize", model, "x"), ("detokenize", model, "--ids", "5"),
            ("logits", model, "--ids", "5"), ("perplexity", model, text_file, "--ctx", "8"),
            ("bench", model, "--prompt", "1", "--gen", "1", "--repeat", "1"), ("inspect", model), ("spikes", model, "-p", "x")]


class BadInput(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="mneme bad "))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.text = self.folder / "text.txt"
        self.text.write_text("some words to score, again and again. " * 20)

    def refused(self, *arguments, says="", **options):
        ran = e2e.mneme(*arguments, "--quiet", **{"timeout": 60, **options})
        self.assertEqual(ran.returncode, 1, f"{arguments}: exit {ran.returncode}\n{ran.stdout}{ran.stderr}")
        self.assertEqual(ran.stdout, "", arguments)
        self.assertEqual(ran.stderr.count("\n"), 1, ran.stderr)
        self.assertTrue(ran.stderr.startswith("mneme: error: "), ran.stderr)
        self.assertNotIn("bug in Mneme", ran.stderr)
        self.assertIn(says, ran.stderr)
        return ran.stderr

    def refused_by_all(self, model, says=""):
        for arguments in verbs_on(model, self.text):
            with self.subTest(arguments[0]):
                self.refused(*arguments, says=says)

    def test_the_command_lines_are_right(self):
        for arguments in verbs_on(GGUF, self.text):
            ran = e2e.mneme(*arguments)
            self.assertEqual(ran.returncode, 0, f"{arguments}: {ran.stderr}")

    def test_missing_model(self):
        self.refused_by_all(self.folder / "none.gguf", says="no file or folder")
        self.refused_by_all("no-such-name", says="no-such-name")

    def test_folder_that_is_no_model(self):
        self.refused_by_all(self.folder, says="config.json")

    def test_device_and_empty_file(self):
        self.refused_by_all("/dev/null")
        empty = self.folder / "empty.gguf"
        empty.touch()
        self.refused_by_all(empty, says="empty.gguf")

    def test_garbage(self):
        garbage = self.folder / "garbage.gguf"
        garbage.write_bytes(random.Random(1).randbytes(100_000))
        self.refused_by_all(garbage, says="garbage.gguf")
        garbage.write_bytes(b"GGUF" + random.Random(2).randbytes(100_000))
        self.refused_by_all(garbage, says="garbage.gguf")

    def test_text_file_as_model(self):
        self.refused_by_all(self.text, says="text.txt")

    def test_every_truncation(self):
        data = GGUF.read_bytes()
        cut = self.folder / "cut.gguf"
        for size in (3, 4, 8, 23, 24, 100, 1000, len(data) // 4, len(data) // 2, len(data) - 1):
            cut.write_bytes(data[:size])
            self.refused("logits", cut, "--ids", "5", says="cut.gguf")

    def test_damaged_headers_never_crash(self):
        data = bytearray(GGUF.read_bytes())
        damaged = self.folder / "damaged.gguf"
        dice = random.Random(3)
        for _ in range(60):
            copy = bytearray(data)
            for _ in range(dice.randint(1, 4)):
                at = dice.randrange(min(len(copy) - 8, 12_000))
                copy[at:at + 8] = dice.choice((b"\xff" * 8, b"\0" * 8, dice.randbytes(8), struct.pack("<Q", 1 << 62)))
            damaged.write_bytes(copy)
            ran = e2e.mneme("logits", damaged, "--ids", "5", "--quiet", timeout=60)
            self.assertIn(ran.returncode, (0, 1), f"exit {ran.returncode}: {ran.stderr[:300]}")
            if ran.returncode:
                self.assertEqual(ran.stderr.count("\n"), 1, ran.stderr)
                self.assertNotIn("bug in Mneme", ran.stderr)

    def test_folder_with_a_part_missing_or_damaged(self):
        for name in ("config.json", "model.safetensors"):
            copy = self.folder / f"without-{name}"
            shutil.copytree(FOLDER, copy)
            (copy / name).unlink()
            self.refused("logits", copy, "--ids", "5", says=copy.name)
        for name, content in (("config.json", "{"), ("config.json", "[" * 5000), ("config.json", '{"model_type": "llama"}'),
                              ("config.json", '{"model_type": "nonsense"}'), ("model.safetensors", "short"),
                              ("tokenizer.json", '{"version": "1.0"')):
            copy = self.folder / f"bad-{name}-{len(content)}"
            shutil.copytree(FOLDER, copy)
            (copy / name).write_text(content)
            self.refused("tokenize", copy, "x")

    def test_ids_outside_the_vocabulary(self):
        self.refused("logits", GGUF, "--ids", "5,288", says="288")
        self.refused("logits", GGUF, "--ids", "2147483647", says="2147483647")
        self.refused("detokenize", GGUF, "--ids", "5,288", says="288")
        self.refused("generate", GGUF, "--ids", "288", says="288")

    def test_more_ids_than_context(self):
        self.refused("logits", GGUF, "--ids", "@-", stdin=",".join(["5"] * 200_000), says="128")

    def test_empty_prompt_is_wrong_usage(self):
        ran = e2e.mneme("generate", GGUF, "-p", "@-", stdin="", timeout=60)
        self.assertEqual(ran.returncode, 2, ran.stderr)

    def test_prompt_that_is_not_utf8(self):
        ran = e2e.mneme("generate", GGUF, "-p", os.fsdecode(b"\xff\xfe\x80abc"), "-n", "2", "--json", timeout=60)
        self.assertEqual(ran.returncode, 0, ran.stderr)

    def test_perplexity_files(self):
        self.refused("perplexity", GGUF, self.folder / "none.txt", says="none.txt")
        self.refused("perplexity", GGUF, self.folder)
        empty = self.folder / "empty.txt"
        empty.touch()
        self.refused("perplexity", GGUF, empty)

    def test_unreadable_path(self):
        secret = self.folder / "secret.gguf"
        shutil.copy(GGUF, secret)
        secret.chmod(0)
        if os.access(secret, os.R_OK):
            self.skipTest("this user may read every file (root)")
        self.refused("inspect", secret, says="Permission denied")

    def test_too_little_memory_is_one_line(self):
        ran = subprocess.run(["bash", "-c", f"ulimit -v 60000; exec '{e2e.MNEME}' generate '{GGUF}' -p x -n 1 --threads 1 --quiet"],
                             capture_output=True, text=True, timeout=60)
        self.assertIn(ran.returncode, (0, 1, 127), ran.stderr)  # 127: not even the program fits
        if ran.returncode == 1:
            self.assertEqual(ran.stderr.count("\n"), 1, ran.stderr)

    def test_a_file_that_shrinks_while_mapped(self):
        model = self.folder / "shrinks.gguf"
        shutil.copy(os.environ.get("MNEME_TEST_MODEL") or GGUF, model)
        runs = ",".join(map(str, range(80, 120)))  # seconds of work, also for a tiny model
        process = subprocess.Popen([e2e.MNEME, "bench", str(model), "--prompt", "0", "--gen", runs, "--repeat", "1000"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        process.stderr.readline()
        os.truncate(model, 4096)
        time.sleep(1.5)
        if process.poll() is None:  # the weights were copied into memory: nothing is lost
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        self.assertIn(process.returncode, (1, 130), err)
        if process.returncode == 1:
            self.assertIn("shrinks.gguf", err)
            self.assertEqual(err.count("\n"), 1, err)


if __name__ == "__main__":
    e2e.main()
