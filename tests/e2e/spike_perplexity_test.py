"""bench/spike_perplexity.py on a tiny model: the table is complete, what is measured is not measured again, and a run that is
interrupted says what is missing."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import e2e

MODEL = e2e.TOP / "tests" / "data" / "models" / "llama.gguf"


class SpikePerplexity(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.text = self.folder / "text.txt"
        self.text.write_text((e2e.TOP / "README.md").read_text())

    def table(self, *options):
        ran = subprocess.run([sys.executable, e2e.TOP / "bench" / "spike_perplexity.py", e2e.MNEME, MODEL, "--text", self.text, "--name", "tiny",
                              "--cells", self.folder / "cells", "--tokens", "256", "--ctx", "64", *options],
                             capture_output=True, text=True, timeout=300, env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"})
        self.assertEqual(ran.returncode, 0, ran.stderr)
        return ran

    def test_an_empty_table_says_what_is_missing_and_a_full_one_nothing(self):
        ran = self.table("--minutes", "0")
        self.assertEqual(list((self.folder / "cells").iterdir()), [])
        self.assertIn("not known yet", ran.stderr)
        self.assertIn("not measured", ran.stdout)

        ran = self.table("--markdown", self.folder / "table.md")
        self.assertNotIn("not measured", ran.stdout)
        self.assertEqual((self.folder / "table.md").read_text() + "\n", ran.stdout)
        cells = {path.name: path.stat().st_mtime_ns for path in (self.folder / "cells").glob("*.json")}
        self.assertGreaterEqual(len(cells), 28)
        again = self.table()
        self.assertEqual(again.stdout, ran.stdout)
        self.assertEqual({path.name: path.stat().st_mtime_ns for path in (self.folder / "cells").glob("*.json")}, cells)

    def test_a_cell_is_what_the_command_prints(self):
        self.table()
        for cell in (self.folder / "cells").glob("tiny.own.k3.no-down.*.json"):
            said = json.loads(cell.read_text())
            got = e2e.mneme_json("perplexity", MODEL, self.text, "--ctx", "64", "--tokens", "256", "--activation", "spike:k=3,down=float")
            self.assertEqual({name: said[name] for name in got}, got)
            break
        else:
            self.fail("no such cell")


if __name__ == "__main__":
    e2e.main()
