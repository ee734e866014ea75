"""`mneme memory`: its parts are found, and `mneme memory rows` prints what the contract says. Needs no model."""
import json
import pathlib
import shutil
import tempfile
import unittest

import e2e

CONFIG = {"compressed_vocab": 99092, "pad_id": 2, "seed": 0, "layer_ids": [1, 14], "max_ngram": 4, "heads": 8,
          "base_rows": [16_000_000] * 3}


class MemoryRows(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="mneme memory "))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def config(self, **changes):
        path = self.folder / "engram.json"
        path.write_text(json.dumps({**CONFIG, **changes}))
        return path

    def test_the_published_rows(self):
        out = e2e.mneme_json("memory", "rows", "--config", self.config(), "--ids", "5,7,11,13")
        self.assertEqual(sorted(out), ["layers", "multipliers", "primes", "rows"])
        self.assertEqual(out["layers"], [1, 14])
        self.assertEqual(out["multipliers"][0], ["76632096046245", "4839876093313", "35959672319349", "73987337458391"])
        self.assertEqual(sum(map(int, out["primes"][0])), 384_006_168)
        self.assertEqual([len(out["rows"]), len(out["rows"][0]), len(out["rows"][0][0])], [2, 4, 24])
        self.assertEqual(out["rows"][0][3][8:16], "589008 5697715 8611112 15208646 698518 9445327 14567412 774789".split())

    def test_text_says_the_same(self):
        ran = e2e.mneme("memory", "rows", "--config", self.config(layer_ids=[1]), "--ids", "@-", stdin="5,7,11,13")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("  position 3 3-gram 589008 5697715 8611112", ran.stdout)

    def test_refusals_are_one_line(self):
        for changes, ids, says in (({"heads": 0}, "1", "heads"), ({"pad_id": 99092}, "1", "pad_id"), ({"base_rows": [5]}, "1", "base_rows"),
                                   ({"hedas": 1}, "1", 'did you mean "heads"'), ({}, "99092", "token class 99092")):
            with self.subTest(says):
                ran = e2e.mneme("memory", "rows", "--config", self.config(**changes), "--ids", ids)
                self.assertEqual((ran.returncode, ran.stdout, ran.stderr.count("\n")), (1, "", 1), ran.stderr)
                self.assertIn(says, ran.stderr)
        ran = e2e.mneme("memory", "rows", "--config", self.folder / "none.json", "--ids", "1")
        self.assertEqual(ran.returncode, 1)
        self.assertIn("none.json", ran.stderr)

    def test_the_parts_are_found(self):
        for words, code, says in ((["memory"], 2, "rows"), (["memory", "rwos"], 2, "did you mean rows?"), (["memory", "rows"], 2, "--config"),
                                  (["memory", "rows", "--cnofig", "x"], 2, "--config")):
            ran = e2e.mneme(*words)
            self.assertEqual(ran.returncode, code, ran.stderr)
            self.assertIn(says, ran.stderr)
        self.assertIn("rows", e2e.mneme("memory", "-h").stdout)
        full = e2e.mneme("memory", "rows", "--help").stdout
        self.assertIn("Usage: mneme memory rows", full)
        self.assertEqual(e2e.mneme("help", "memory", "rows").stdout, full)


if __name__ == "__main__":
    e2e.main()
