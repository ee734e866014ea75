"""Texts of a million tokens through generate, perplexity and logits: with a model whose state is bounded, memory grows by
the ids alone, whatever way they come in. bench/long_context.py does the same with real models and four million tokens."""
import json
import pathlib
import shutil
import sys
import tempfile
import unittest

import e2e

sys.path.insert(0, str(e2e.TOP / "bench"))
import long_context

SHORT, LONG = 1 << 18, 1 << 20  # the short one fills every buffer of constant size
SOURCE = e2e.TOP / "tests/data/models/mistral"
VOCAB = 288
BYTES_A_TOKEN = 20  # ids twice (4 bytes each), and twice that while a list of them grows


def hybrid_model(folder):
    """Gated linear attention and a window, of the tensors of a tiny model with a tokenizer."""
    folder.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SOURCE / name, folder)
    heads = {"heads": 4, "kv_heads": 1, "head_dim": 16}
    layers = [{"mixer": {"type": "gla", "gate": "tied", "feature": "sigmoid", "out_norm": False, **heads}, "ffn": {"hidden": 64}},
              {"mixer": {"type": "window", "window": 64, **heads}, "ffn": {"hidden": 64}}]
    config = {"mneme": 1, "name": "tiny hybrid", "d_model": 32, "vocab": VOCAB, "context": 4096, "norm": {"eps": 1e-5}, "rope": {"base": 10000.0},
              "layers": layers}
    (folder / "config.json").write_text(json.dumps({"model_type": "mneme", "torch_dtype": "bfloat16", "mneme_config": config}))
    return folder


class LongContext(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = pathlib.Path(tempfile.mkdtemp(prefix="mneme_long_"))
        cls.addClassCleanup(shutil.rmtree, cls.work, ignore_errors=True)
        cls.model = hybrid_model(cls.work / "model")
        cls.per_token = long_context.bytes_per_token(e2e.MNEME, cls.model, cls.work)

    def peaks(self, verb, *more, tokens=(SHORT, LONG), room=BYTES_A_TOKEN):
        """What a verb prints at the two lengths, after a check that its memory grew by no more than it may."""
        outs, peaks = [], []
        for count in tokens:
            out, _, seconds, peak = long_context.measured(
                [*long_context.command_of(verb, e2e.MNEME, self.model, count, self.work, self.per_token, VOCAB), *more])
            print(f"{verb} {count} tokens: {seconds:.1f} s, peak {peak / 1e6:.1f} MB")
            outs.append(out)
            peaks.append(peak)
        self.assertLess((peaks[1] - peaks[0]) / (tokens[1] - tokens[0]), room, peaks)
        return outs

    def test_generate(self):
        for out, tokens in zip(self.peaks("generate"), (SHORT, LONG)):
            told = json.loads(out)
            self.assertEqual(told["generated_tokens"], 1)
            self.assertAlmostEqual(told["prompt_tokens"] / tokens, 1, delta=0.02)

    def test_generate_that_keeps_its_states(self):
        """Every 16,384th token's state goes to a store: neither its files nor its lists stay in memory."""
        for tokens, out in zip((SHORT, LONG), self.peaks("generate", "--session-store", self.work / "states", "--session-budget", "1G", room=48)):
            self.assertEqual(json.loads(out)["generated_tokens"], 1, tokens)
        self.assertGreater(len(list((self.work / "states").glob("*.session"))), LONG // 16384 // 2)

    def test_perplexity(self):
        for out, tokens in zip(self.peaks("perplexity"), (SHORT, LONG)):
            self.assertEqual(json.loads(out)["tokens"], tokens // 2)

    def test_logits(self):
        for out, tokens in zip(self.peaks("logits"), (SHORT, LONG)):
            self.assertRegex(out, rf"at position {tokens - 1}:")

    def test_logits_of_every_position(self):
        """The rows go out as they come: text and JSON."""
        short, long = 1 << 12, 1 << 15
        ends = [out[:80] for out in self.peaks("logits", "--all", tokens=(short, long))]
        self.assertEqual(ends[0].split(":")[0].split(" at ")[1], "position 0")
        self.assertTrue(self.peaks("logits", "--all", "--json", tokens=(short, long))[0].startswith('{"ids":['))


if __name__ == "__main__":
    e2e.main()
