"""`mneme eval`: the recall evaluations from outside, on a tiny random model and on a real one."""
import json
import pathlib
import shutil
import struct
import tempfile
import unittest
import xml.etree.ElementTree

import e2e

LLAMA = e2e.TOP / "tests" / "data" / "models" / "llama.gguf"
TASKS = ("needle", "multikey", "multivalue", "multiquery", "variables")
SMALL = ("--lengths", "1200,2000", "--depths", "0,100", "--samples", "1", "--answer-tokens", "6", "--quiet")


class EvalTest(unittest.TestCase):
    def setUp(self):
        self.out = pathlib.Path(tempfile.mkdtemp(prefix="mneme eval "))
        self.addCleanup(shutil.rmtree, self.out, ignore_errors=True)

    def test_every_task_on_random_weights(self):
        for task in TASKS:
            with self.subTest(task):
                got = e2e.mneme_json("eval", task, LLAMA, *SMALL)
                self.assertEqual(got["task"], task)
                self.assertEqual(got["n"], {"needle": 4, "multikey": 8}.get(task, 2))
                self.assertLess(got["score"], 0.5)
                self.assertGreaterEqual(got["stderr"], 0)
                self.assertEqual([(c["length"], c["depth"]) for c in got["cells"]], [(1200, 0), (1200, 1), (2000, 0), (2000, 1)])
                self.assertLessEqual(got["tokens_read"], got["prompt_tokens"])

    def test_threads_change_nothing_and_seeds_do(self):
        def answers(*options):
            file = self.out / "answers.jsonl"
            e2e.mneme_json("eval", "multikey", LLAMA, *SMALL, "--answers", file, *options)
            return [json.loads(line) for line in file.read_text().splitlines()]

        first = answers("--threads", "1", "--seed", "4")
        self.assertEqual(len(first), 8)
        self.assertEqual(first, answers("--threads", "2", "--seed", "4"))
        self.assertNotEqual(first, answers("--threads", "1", "--seed", "5"))

    def test_questions_share_what_was_read(self):
        got = e2e.mneme_json("eval", "multikey", LLAMA, *SMALL, "--items", "6")
        self.assertLess(got["tokens_read"], got["prompt_tokens"] / 2)

    def test_heat_maps(self):
        svg, png = self.out / "map.svg", self.out / "a map.png"
        for file in (svg, png):
            ran = e2e.mneme("eval", "needle", LLAMA, *SMALL, "--plot", file)
            self.assertEqual(ran.returncode, 0, ran.stderr)
        root = xml.etree.ElementTree.parse(svg).getroot()
        texts = ["".join(node.itertext()) for node in root if node.tag.endswith("text")]
        self.assertIn("length in tokens", texts)
        self.assertIn("2000", texts)
        data = png.read_bytes()
        self.assertEqual(data[:8], b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", data[16:24])
        self.assertEqual((str(width), str(height)), (root.get("width"), root.get("height")))

    def test_own_text(self):
        book = self.out / "book.txt"
        book.write_text("A line of a book.\n\n" * 40 + "One more " * 200 + "end.\n")
        got = e2e.mneme_json("eval", "needle", LLAMA, *SMALL, "--text", book)
        self.assertEqual(got["n"], 4)
        book.write_text(" \n\n")
        ran = e2e.mneme("eval", "needle", LLAMA, *SMALL, "--text", book)
        self.assertEqual((ran.returncode, len(ran.stderr.splitlines())), (1, 1), ran.stderr)

    def test_wrong_usage(self):
        for arguments, code in ((("eval",), 2), (("eval", "nedle", LLAMA), 2), (("eval", "needle"), 2),
                                (("eval", "needle", LLAMA, "--depths", "120"), 2), (("eval", "needle", LLAMA, "--lengths", "10"), 2),
                                (("eval", "needle", LLAMA, "--plot", self.out / "map.gif"), 2),
                                (("eval", "needle", LLAMA, "--plot", "/nowhere/map.png"), 1),
                                (("eval", "needle", LLAMA, "--lengths", "64", "--quiet"), 1), (("eval", "needle", "/nowhere/x.gguf"), 1)):
            with self.subTest(arguments):
                ran = e2e.mneme(*arguments)
                self.assertEqual(ran.returncode, code, ran.stderr)
                self.assertEqual(ran.stderr.count("\n"), 1, ran.stderr)
                self.assertEqual(ran.stdout, "")
        self.assertIn("needle", e2e.mneme("eval", "nedle", LLAMA).stderr)

    def test_help_names_the_tasks(self):
        text = e2e.mneme("eval", "-h").stdout
        for task in TASKS:
            self.assertIn(task, text)
            self.assertIn("--lengths", e2e.mneme("eval", task, "-h").stdout)

    def test_a_real_model_finds_the_needle(self):
        got = e2e.mneme_json("eval", "needle", e2e.real_model(), "--lengths", "512,1024", "--depths", "0,50,100", "--samples", "1",
                             "--quiet", timeout=600)
        self.assertEqual(got["n"], 6)
        self.assertGreaterEqual(got["score"], 0.8)


if __name__ == "__main__":
    e2e.main()
