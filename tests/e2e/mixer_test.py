"""Models with every kind of mixer from outside: the program's logits beside the float64 reference (tools/mixer_reference.py),
also after a round trip through GGUF and back, and what `inspect` says about them."""
import array
import json
import pathlib
import shutil
import tempfile
import unittest

import e2e

MODELS = e2e.TOP / "tests/data/mixers"
RUNNABLE = ["window_exact", "window_plus_one", "window_plus_one_prefill", "gla_low_rank", "gla_matrix", "gla_tied", "delta", "hybrid", "parallel",
            "parallel_softmax", "sinks", "sinks_hybrid", "sparse", "sparse_shared", "sparse_sinks"]


def golden(name):
    described = json.loads((MODELS / name / "golden.json").read_text())
    values = array.array("f")
    values.frombytes((MODELS / name / described["logits"]).read_bytes())
    return described["ids"], values


def logits(model, ids):
    rows = e2e.mneme_json("logits", model, "--ids", ",".join(map(str, ids)), "--all", "--activation", "float", "--kv", "f32")["logits"]
    return [v for row in rows for v in row]


def distance(a, b):
    assert len(a) == len(b), (len(a), len(b))
    return max(abs(x - y) for x, y in zip(a, b))


class Mixers(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.out = pathlib.Path(self.folder.name)

    def test_logits_equal_the_reference(self):
        for name in RUNNABLE:
            with self.subTest(name):
                ids, want = golden(name)
                self.assertLess(distance(logits(MODELS / name, ids), want), 1e-4)

    def test_a_round_trip_through_gguf_keeps_every_tensor_and_the_config(self):
        for name in RUNNABLE:
            with self.subTest(name):
                ids, want = golden(name)
                gguf, back = self.out / f"{name}.gguf", self.out / f"{name}_back"
                e2e.mneme_json("quantize", MODELS / name, gguf, "--type", "f32")
                e2e.mneme_json("quantize", gguf, f"{back}/", "--type", "f32")
                self.assertLess(distance(logits(gguf, ids), want), 1e-4)
                self.assertLess(distance(logits(back, ids), want), 1e-4)
                told = [e2e.mneme_json("inspect", model)["config"] for model in (MODELS / name, gguf, back)]
                for config in told:  # GGUF files hold the norms' weight itself, and may pair rotated values differently
                    config["norm"].pop("weight_offset", None)
                    config["rope"].pop("style", None)
                self.assertEqual(told[0], told[1])
                self.assertEqual(told[0], told[2])

    def test_branches_with_interleaved_rotation_are_reordered(self):
        """A GGUF file of these models pairs rotated values by halves: rows of queries and keys move, logits do not."""
        for name in ("parallel_softmax", "sinks_hybrid"):
            with self.subTest(name):
                ids, plain = golden(name)
                other = self.out / f"{name}_interleaved"
                shutil.copytree(MODELS / name, other)
                described = json.loads((other / "config.json").read_text())
                described["mneme_config"]["rope"]["style"] = "interleaved"
                (other / "config.json").write_text(json.dumps(described))
                want = logits(other, ids)
                self.assertGreater(distance(want, plain), 0.1)
                e2e.mneme_json("quantize", other, self.out / f"{name}.gguf", "--type", "f32")
                self.assertNotIn("style", e2e.mneme_json("inspect", self.out / f"{name}.gguf")["config"]["rope"])
                self.assertLess(distance(logits(self.out / f"{name}.gguf", ids), want), 1e-4)

    def test_eight_bits_stay_near(self):
        for name in RUNNABLE:
            if name.startswith("sparse"):  # blocks of random keys score alike: rounding chooses others, and the answer is another one
                continue
            with self.subTest(name):
                ids, want = golden(name)
                e2e.mneme_json("quantize", MODELS / name, self.out / "q8.gguf", "--type", "q8_0")
                near = distance(logits(self.out / "q8.gguf", ids), want)
                self.assertLess(near, 1.2)  # logits reach 6
                self.assertGreater(near, 0)

    def test_small_matrices_of_gates_stay_float(self):
        e2e.mneme_json("quantize", MODELS / "parallel", self.out / "q4.gguf", "--type", "q4_0")
        types = {t["name"]: t["type"] for t in e2e.mneme_json("inspect", self.out / "q4.gguf")["tensors"]}
        for name, kind in {"blk.0.mix1.attn_gate_a.weight": "Q4_0", "blk.0.mix1.attn_gate_b.weight": "F32", "blk.0.mix1.attn_gate_b.bias": "F32",
                           "blk.0.mix1.attn_out_norm.weight": "F32", "blk.1.mix0.attn_decay.weight": "Q4_0", "blk.1.mix0.attn_a_log.weight": "F32",
                           "blk.1.mix_weights.weight": "F32", "blk.2.mix0.attn_q.weight": "Q4_0", "blk.2.mix1_norm.weight": "F32"}.items():
            self.assertEqual(types.get(name), kind, name)
        e2e.mneme_json("quantize", MODELS / "sinks", self.out / "sinks.gguf", "--type", "q8_0")
        types = {t["name"]: t["type"] for t in e2e.mneme_json("inspect", self.out / "sinks.gguf")["tensors"]}
        self.assertNotIn("Q8_0", [types.get("sink_embd.weight")])

    def test_inspect_tells_what_a_session_costs(self):
        told = e2e.mneme_json("inspect", MODELS / "gla_tied", "--kv", "f16")
        self.assertEqual(told["kv_bytes_per_token"], 0)
        self.assertEqual(told["recurrent_state_bytes"], (16 * 16 + 24 * 24) * 4)
        self.assertGreaterEqual(told["state_bytes"], 0)
        text = e2e.mneme("inspect", MODELS / "gla_tied").stdout
        self.assertNotIn("KV cache", text)
        self.assertRegex(text, "State +3.33 kB of recurrences, whatever the context")
        self.assertRegex(e2e.mneme("inspect", MODELS / "sinks").stdout, "Sink tokens +5, learned")

    def test_the_plan_names_branches_and_windows(self):
        told = e2e.mneme_json("inspect", MODELS / "parallel_softmax")
        for stages in told["plan"].values():
            self.assertEqual(sum(line.startswith("norms+residual") for line in stages), 2, stages)
        self.assertEqual(told["kv_bytes_per_token"], (2 * 16 + 2 * 2 * 16 + 2 * 32 + 2 * 16 + 2 * 16) * 2)
        self.assertIn("0.5 rms_norm(branch)", " ".join(told["plan"]["decode"]))
        plan = e2e.mneme_json("inspect", MODELS / "window_plus_one")["plan"]["decode"]
        self.assertTrue(any("window 8 + 1" in line for line in plan), plan)

    def test_a_checkpoint_without_its_tensors_is_refused_by_name(self):
        for name, missing in (("sinks", "model.sink_embeddings.weight"), ("parallel", "model.layers.1.mixer_weights"),
                              ("gla_low_rank", "model.layers.1.self_attn.gate_b_proj.weight"), ("delta", "model.layers.0.self_attn.A_log"),
                              ("gla_matrix", "model.layers.0.self_attn.gate_a_proj.bias"), ("parallel", "model.layers.0.mixers.1.norm.weight")):
            with self.subTest(missing):
                broken = self.out / f"{name}-{missing}"
                shutil.copytree(MODELS / name, broken)
                file = broken / "model.safetensors"
                raw = file.read_bytes()
                renamed = raw.replace(f'"{missing}"'.encode(), f'"{missing[:-1]}_"'.encode())
                self.assertNotEqual(raw, renamed)
                file.write_bytes(renamed)
                ran = e2e.mneme("inspect", broken)
                self.assertEqual(ran.returncode, 1)
                self.assertEqual(len(ran.stderr.strip().splitlines()), 1, ran.stderr)
                self.assertIn(f"tensor {missing} is missing", ran.stderr)


if __name__ == "__main__":
    e2e.main()
