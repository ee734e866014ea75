"""SpikingBrain-7B's checkpoints from outside: every form in which they are published, at reduced width, beside the
float64 reference of tools/spikingbrain_reference.py; and files that must be refused."""
import json
import pathlib
import shutil
import struct
import tempfile
import unittest

import e2e

MODELS = e2e.TOP / "tests" / "data" / "models"
W8ASPIKE = "spikingbrain_w8aspike"
# folder -> folder of its golden logits
FORMS = {"spikingbrain": "spikingbrain", "spikingbrain_bin": "spikingbrain", W8ASPIKE: W8ASPIKE}


def golden(name):
    description = json.loads((MODELS / name / "golden.json").read_text())
    rows, columns = description["shape"]
    values = struct.unpack(f"<{rows * columns}f", (MODELS / name / description["logits"]).read_bytes())
    return ",".join(map(str, description["ids"])), values


def logits(model, ids, *options):
    exact = () if W8ASPIKE in str(model) else ("--activation", "float")  # W8ASpike says itself what spikes
    rows = e2e.mneme_json("logits", model, "--ids", ids, "--all", "--kv", "f32", *exact, *options)["logits"]
    return [value for row in rows for value in row]


def distance(a, b):
    assert len(a) == len(b)
    return max(abs(x - y) for x, y in zip(a, b))


class SpikingBrain(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def copy(self, form):
        out = self.folder / form
        shutil.copytree(MODELS / form, out)
        return out

    def refused(self, model, *says):
        ran = e2e.mneme("logits", model, "--ids", "5", timeout=60)
        self.assertEqual(ran.returncode, 1, ran.stderr)
        self.assertEqual(ran.stderr.count("\n"), 1, ran.stderr)
        for text in says:
            self.assertIn(text, ran.stderr)

    def test_every_form_equals_the_reference_token_by_token_and_in_chunks(self):
        for form, reference in FORMS.items():
            ids, want = golden(reference)
            for chunk in ("1", "7", "64"):
                with self.subTest(form=form, chunk=chunk):
                    self.assertLessEqual(distance(logits(MODELS / form, ids, "--chunk", chunk), want), 1e-4)

    def test_gguf_made_from_each_form_gives_the_same_logits(self):
        for form, reference in FORMS.items():
            with self.subTest(form):
                ids, want = golden(reference)
                gguf = self.folder / f"{form}.gguf"
                e2e.mneme_json("quantize", MODELS / form, gguf, "--type", "f32")
                self.assertLessEqual(distance(logits(gguf, ids), want), 1e-4)
                text = "SpikingBrain reads text."
                self.assertEqual(e2e.mneme_json("tokenize", gguf, text)["ids"],
                                 e2e.mneme_json("tokenize", MODELS / form, text)["ids"])

    def test_text_goes_in_and_comes_out(self):
        for item in json.loads((MODELS / "spikingbrain" / "golden_tokens.json").read_text()):
            self.assertEqual(e2e.mneme_json("tokenize", MODELS / "spikingbrain_bin", item["text"])["ids"], item["ids"])
        ran = e2e.mneme("generate", MODELS / "spikingbrain_bin", "-p", "Spiking", "-n", "8", "--json")
        self.assertEqual(ran.returncode, 0, ran.stderr)

    def test_inspect_shows_both_mixers(self):
        for form in FORMS:
            layers = e2e.mneme_json("inspect", MODELS / form)["config"]["layers"]
            kinds = {layer["mixer"]["type"] for layer in layers}
            self.assertEqual(kinds, {"gla", "window"}, form)
            ran = e2e.mneme("inspect", MODELS / form)
            self.assertEqual(ran.returncode, 0, ran.stderr)
            self.assertEqual("scales of down_proj" in ran.stdout, form == W8ASPIKE, ran.stdout)

    def test_w8aspike_spikes_by_itself_and_is_held_in_8_bits(self):
        model = MODELS / W8ASPIKE
        config = e2e.mneme_json("inspect", model)["config"]
        window = next(layer for layer in config["layers"] if layer["mixer"]["type"] == "window")
        self.assertEqual((window["mixer"]["query"], window["mixer"]["kv_int8"]), ("spike", True))
        self.assertEqual(config["defaults"]["activation"], {"default": "spike", "down": "float"})
        tensors = {t["name"]: t["layout"] for t in e2e.mneme_json("inspect", model)["tensors"]}
        self.assertRegex(tensors["blk.0.attn_q.weight"], r"W8, groups of 128.*, [1-9]\d* codes beyond int8")
        self.assertEqual(tensors["blk.0.ffn_down.weight"], "f32 x16 rows")
        got = e2e.mneme_json("generate", model, "-p", "Spiking", "-n", "8")
        self.assertEqual(got["generated_tokens"], 8)
        again = e2e.mneme_json("generate", model, "-p", "Spiking", "-n", "8", "--threads", "1", "--kv", "f32")
        self.assertEqual(got["text"], again["text"])
        spikes = e2e.mneme_json("spikes", model, "-p", "SpikingBrain reads text. " * 4, "--no-ppl")
        self.assertEqual({p["path"] for p in spikes["projections"] if p["name"] == "q"}, {"events"})

    def test_w8aspike_through_other_files_keeps_its_logits(self):
        ids, want = golden(W8ASPIKE)
        folder = self.folder / f"{W8ASPIKE}-again"
        e2e.mneme_json("quantize", MODELS / W8ASPIKE, f"{folder}/", "--type", "f32")
        self.assertLessEqual(distance(logits(folder, ids), want), 1e-4)
        eight_bits = self.folder / f"{W8ASPIKE}.gguf"
        e2e.mneme_json("quantize", MODELS / W8ASPIKE, eight_bits, "--type", "q8_0")
        self.assertGreater(distance(logits(eight_bits, ids), want), 1e-4)  # other groups, other scales

    def test_w8aspike_with_bad_scales_is_refused(self):
        model = self.copy(W8ASPIKE)
        index = json.loads((model / "model.safetensors.index.json").read_text())["weight_map"]
        name = "model.layers.1.mlp.up_proj.weight_quantizer.scales"
        path = model / index[name]
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8:8 + size])
        begin = 8 + size + header[name]["data_offsets"][0]
        for scale, says in ((0.0, "scales are numbers above 0"), (float("nan"), "scales are numbers above 0"),
                            (1e-9, "of its scales")):
            path.write_bytes(data[:begin] + struct.pack("<f", scale) + data[begin + 4:])
            self.refused(model, "model.layers.1.mlp.up_proj.weight", says)
        header[name]["shape"] = [32, 2, 1]
        raw = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(raw)) + raw + data[8 + size:])
        self.refused(model, name, "[32, 2, 1]", "[64, 1, 1]")

    def test_a_pickle_that_would_run_something_is_refused_and_does_not(self):
        model = self.copy("spikingbrain_bin")
        shard = model / "pytorch_model-00002-of-00002.bin"
        shutil.copy(e2e.TOP / "tests/data/torch/run.bin", shard)
        ran = e2e.mneme("logits", model, "--ids", "5", cwd=self.folder)
        self.assertEqual(ran.returncode, 1, ran.stderr)
        self.assertIn("posix.system", ran.stderr)
        self.assertFalse((self.folder / "torch_pickle_was_executed").exists())

    def test_cut_and_missing_shards_are_named(self):
        model = self.copy("spikingbrain_bin")
        shard = model / "pytorch_model-00002-of-00002.bin"
        whole = shard.read_bytes()
        for size in (0, 10, len(whole) // 2, len(whole) - 1):
            shard.write_bytes(whole[:size])
            self.refused(model, shard.name)
        shard.unlink()
        self.refused(model, shard.name, "missing")

    def test_missing_extra_and_misshapen_tensors_are_named(self):
        model = self.copy("spikingbrain")
        path = model / "model.safetensors"
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header, body = json.loads(data[8:8 + size]), data[8 + size:]

        def write(change):
            entries = json.loads(json.dumps(header))
            change(entries)
            raw = json.dumps(entries).encode()
            path.write_bytes(struct.pack("<Q", len(raw)) + raw + body)

        norm, extra = "model.layers.2.attn.g_norm.weight", "model.layers.1.attn.g_norm.weight"
        write(lambda entries: entries.update({"renamed": entries.pop(norm)}))
        self.refused(model, norm, "missing")
        write(lambda entries: entries[norm].update(shape=[4, 4]))
        self.refused(model, norm, "[4, 4]", "[16]")
        entry = {"dtype": "BF16", "shape": [1], "data_offsets": [len(body), len(body) + 2]}
        body += b"\0\0"
        write(lambda entries: entries.update({extra: entry}))
        self.refused(model, extra, "does not belong")


if __name__ == "__main__":
    e2e.main()
