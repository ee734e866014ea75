"""`mneme tokenizer train` from outside: files that the program itself tokenizes with, the same for any number of threads; bad input."""
import json
import math
import pathlib
import struct
import tempfile
import unittest

import e2e

WORDS = "attention memory table row state window token layer gate decay".split()
TEXT = "".join(f"The {WORDS[i % 10]} of the {WORDS[i * 7 % 10]} reads {i % 17} rows, naïve café.\n" for i in range(400))
CONFIG = {"mneme_config": {"mneme": 1, "d_model": 32, "vocab": 320, "context": 64, "tied": True, "layers": [{}],
                           "defaults": {"mixer": {"heads": 4, "kv_heads": 2, "head_dim": 8}, "ffn": {"type": "dense", "hidden": 48}}}}


SHAPES = {"embed_tokens.weight": (320, 32), "norm.weight": (32,), "layers.0.input_layernorm.weight": (32,), "layers.0.post_attention_layernorm.weight": (32,),
          "layers.0.self_attn.q_proj.weight": (32, 32), "layers.0.self_attn.k_proj.weight": (16, 32), "layers.0.self_attn.v_proj.weight": (16, 32),
          "layers.0.self_attn.o_proj.weight": (32, 32), "layers.0.mlp.gate_proj.weight": (48, 32), "layers.0.mlp.up_proj.weight": (48, 32),
          "layers.0.mlp.down_proj.weight": (32, 48)}


def write_model(folder):
    """Weights of zeros: the tokenizer is what is asked."""
    header, at = {}, 0
    for name, shape in SHAPES.items():
        size = 4 * math.prod(shape)
        header["model." + name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    (folder / "config.json").write_text(json.dumps(CONFIG))


class TokenizerTrain(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.text = self.folder / "text.txt"
        self.text.write_text(TEXT)

    def train(self, out, *arguments, inputs=None):
        return e2e.mneme("tokenizer", "train", *(inputs or [self.text]), "-o", self.folder / out, *arguments)

    def refused(self, ran, *words):
        self.assertEqual(ran.returncode, 1, ran.stderr)
        self.assertEqual(len(ran.stderr.strip().splitlines()), 1, ran.stderr)
        for word in words:
            self.assertIn(word, ran.stderr)

    def test_learned_pieces_come_back_as_text(self):
        ran = self.train("model", "--vocab", "320", "--json")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        summary = json.loads(ran.stdout)
        self.assertEqual(summary["vocab"], 320)
        self.assertGreater(summary["seconds"], 0)
        learned = json.loads((self.folder / "model/tokenizer.json").read_text())
        self.assertEqual(len(learned["model"]["vocab"]), 320)
        self.assertEqual(len(learned["model"]["merges"]), 320 - 257)
        write_model(self.folder / "model")
        for text in ("The attention of the memory", "naïve café 🙂\n\n  x"):
            ids = e2e.mneme_json("tokenize", self.folder / "model", text)["ids"]
            back = e2e.mneme_json("detokenize", self.folder / "model", "--ids", ",".join(map(str, ids)))
            self.assertEqual(back["text"], text)
        ids = e2e.mneme_json("tokenize", self.folder / "model", " attention memory")["ids"]
        self.assertLessEqual(len(ids), 4)  # 17 bytes of words that are in many lines

    def test_any_number_of_threads_gives_the_same_file(self):
        for threads in ("1", "3"):
            self.assertEqual(self.train(threads, "--vocab", "310", "--threads", threads, "--quiet").returncode, 0)
        self.assertEqual((self.folder / "1/tokenizer.json").read_bytes(), (self.folder / "3/tokenizer.json").read_bytes())

    def test_json_lines_and_folders(self):
        (self.folder / "lines").mkdir()
        (self.folder / "lines/a.jsonl").write_text("".join(json.dumps({"body": line}) + "\n" for line in TEXT.splitlines(keepends=True)))
        self.assertEqual(self.train("a", "--vocab", "300", "--field", "body", inputs=[self.folder / "lines"]).returncode, 0)
        self.assertEqual(self.train("b", "--vocab", "300").returncode, 0)
        self.assertEqual((self.folder / "a/tokenizer.json").read_bytes(), (self.folder / "b/tokenizer.json").read_bytes())

    def test_bad_input_is_one_line(self):
        binary, empty, lines = self.folder / "x.bin", self.folder / "empty.txt", self.folder / "x.jsonl"
        binary.write_bytes(b"a\0b")
        empty.write_text("")
        lines.write_text('{"text": "a"}\n{"text": 1}\n')
        self.refused(self.train("o", inputs=[binary]), "x.bin", "not text")
        self.refused(self.train("o", inputs=[empty]), "empty.txt", "empty")
        self.refused(self.train("o", inputs=[lines]), "x.jsonl", "2")
        self.refused(self.train("o", inputs=[self.folder / "none"]), "none", "No such file")
        self.refused(self.train("o", "--vocab", "10"), "10", "257")
        self.assertFalse((self.folder / "o").exists() and any((self.folder / "o").iterdir()))
        self.assertEqual(self.train("o", "--vocab", "300").returncode, 0)
        self.refused(self.train("o", "--vocab", "300"), "there already")


if __name__ == "__main__":
    e2e.main()
