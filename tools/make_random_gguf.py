#!/usr/bin/env python3
"""Writes a GGUF file of a chosen shape whose weights are random: of the llama architecture, or a hybrid of it.

Shapes with a number of experts are mixtures as Mixtral's files are: softmax router, weights that sum to 1.

Speed does not depend on what the weights say, only on how many bytes there are and how they are laid out. So a
file of a real model's shape, filled with random quantization blocks, times an engine as the real model would,
and nobody has to download gigabytes. The blocks are drawn directly (random codes, one scale a block), which is
as fast as the disk. Weights have a standard deviation of about 0.02, so activations stay finite and logits are of the
order of one.

The vocabulary is borrowed from a real GGUF file (its first `vocab` tokens, and the merges that only use those), because
engines refuse files without a usable tokenizer.

    make_random_gguf.py --shape 1b  --type q4_0 --vocab-from SmolLM2.gguf build/models/1b-q4_0.gguf
    make_random_gguf.py --shape 1.7b --type q8_0 --vocab-from SmolLM2.gguf build/models/1.7b-q8_0.gguf
    make_random_gguf.py --shape moe --type q4_0 --vocab-from SmolLM2.gguf build/models/moe-q4_0.gguf
    make_random_gguf.py --shape 1b --type q4_0 --hybrid --vocab-from SmolLM2.gguf build/models/1b-hybrid-q4_0.gguf
    make_random_gguf.py --requantize SmolLM2-Q4_1.gguf --type q8_0 build/models/smollm2-135m-q8_0.gguf

With --hybrid, even layers are gated linear attention (gate rank 16) and odd layers see a window of 512 keys; all else,
also the heads, is as in the full-attention file of that shape. Such a file says "mneme" where others name their architecture
and carries a ModelConfig (docs/config.md). --config FILE writes any other config instead, its sizes included.

Needs: pip install numpy gguf.
"""
import argparse
import json
import pathlib
import sys

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, TokenType
from gguf.quants import dequantize, quantize

# layers, d_model, heads, kv_heads, head_dim, ffn hidden, vocabulary, rope base
SHAPES = {
    "tiny": (2, 256, 4, 2, 64, 512, 2048, 10000.0),
    "135m": (30, 576, 9, 3, 64, 1536, 49152, 100000.0),
    "1b": (16, 2048, 32, 8, 64, 8192, 32000, 500000.0),
    "1.7b": (24, 2048, 32, 32, 64, 8192, 49152, 130000.0),
    "3b": (28, 3072, 24, 8, 128, 8192, 49152, 500000.0),
    "moe": (12, 2048, 32, 4, 64, 768, 32000, 1000000.0),  # 3.8 billion weights, of which a token reads 0.6
    "moe-tiny": (2, 256, 4, 2, 64, 128, 2048, 10000.0),
}
EXPERTS = {"moe": (64, 8), "moe-tiny": (16, 2)}  # routed, of a token
TYPES = {"f32": GGMLQuantizationType.F32, "f16": GGMLQuantizationType.F16,
         "q8_0": GGMLQuantizationType.Q8_0, "q4_0": GGMLQuantizationType.Q4_0,
         "q4_1": GGMLQuantizationType.Q4_1}
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7}  # general.file_type of the GGUF documentation
SIGMA = 0.02


def random_blocks(rng, rows, cols, kind):
    """[rows, bytes of a row] of valid random blocks (32 weights each), or a float array for F32/F16."""
    if kind in ("f32", "f16"):
        values = rng.standard_normal((rows, cols), dtype=np.float32) * SIGMA
        return values if kind == "f32" else values.astype(np.float16)
    blocks = rows * cols // 32
    spread = (0.75 + 0.5 * rng.random(blocks, dtype=np.float32))  # no two blocks share a scale
    if kind == "q8_0":  # f16 scale, 32 int8 in -127..127 (standard deviation 73.6)
        out = np.empty((blocks, 34), np.uint8)
        out[:, :2] = (spread * (SIGMA / 73.6)).astype(np.float16).view(np.uint8).reshape(blocks, 2)
        codes = np.frombuffer(rng.bytes(blocks * 32), np.int8).reshape(blocks, 32)
        out[:, 2:] = np.maximum(codes, -127).view(np.uint8)
    elif kind == "q4_0":  # f16 scale, 32 codes 0..15 that mean code - 8 (standard deviation 4.6)
        out = np.empty((blocks, 18), np.uint8)
        out[:, :2] = (spread * (SIGMA / 4.61)).astype(np.float16).view(np.uint8).reshape(blocks, 2)
        out[:, 2:] = np.frombuffer(rng.bytes(blocks * 16), np.uint8).reshape(blocks, 16)
    else:  # q4_1: f16 scale, f16 minimum, 32 codes 0..15
        out = np.empty((blocks, 20), np.uint8)
        scale = spread * (SIGMA / 4.61)
        out[:, :2] = scale.astype(np.float16).view(np.uint8).reshape(blocks, 2)
        out[:, 2:4] = (-7.5 * scale).astype(np.float16).view(np.uint8).reshape(blocks, 2)
        out[:, 4:] = np.frombuffer(rng.bytes(blocks * 16), np.uint8).reshape(blocks, 16)
    return out.reshape(rows, -1)


def copy_vocabulary(writer, source, vocab):
    """The first `vocab` tokens of another file's tokenizer, with the merges and special ids that stay inside."""
    fields = source.fields
    tokens = fields["tokenizer.ggml.tokens"].contents()[:vocab]
    if len(tokens) < vocab:
        tokens += [f"<unused{i}>" for i in range(len(tokens), vocab)]
    types = fields["tokenizer.ggml.token_type"].contents()[:vocab]
    types += [int(TokenType.UNUSED)] * (vocab - len(types))
    known = set(tokens)
    merges = [m for m in fields["tokenizer.ggml.merges"].contents()
              if (pair := m.split(" "))[0] in known and pair[1] in known and "".join(pair) in known]
    writer.add_tokenizer_model(fields["tokenizer.ggml.model"].contents())
    if "tokenizer.ggml.pre" in fields:
        writer.add_tokenizer_pre(fields["tokenizer.ggml.pre"].contents())
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    for key, add in (("bos_token_id", writer.add_bos_token_id), ("eos_token_id", writer.add_eos_token_id)):
        field = fields.get(f"tokenizer.ggml.{key}")
        if field is not None and field.contents() < vocab:
            add(field.contents())
    writer.add_add_bos_token(False)


def llama_config(shape, context):
    """The llama-architecture model of a shape, as a ModelConfig."""
    layers, d, heads, kv_heads, head_dim, hidden, vocab, base = SHAPES[shape]
    mixer = {"type": "full", "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}
    ffn = {"type": "dense", "hidden": hidden}
    if shape in EXPERTS:
        ffn |= {"type": "moe", "experts": EXPERTS[shape][0], "top_k": EXPERTS[shape][1]}
    return {"mneme": 1, "name": f"random {shape}", "d_model": d, "vocab": vocab, "context": context, "tied": True,
            "norm": {"eps": 1e-5}, "rope": {"base": base},
            "layers": [{"mixer": mixer, "ffn": ffn} for _ in range(layers)]}


def hybrid_config(shape, context):
    config = llama_config(shape, context)
    config["name"] += " hybrid"
    for number, layer in enumerate(config["layers"]):
        own = {"type": "window", "window": 512} if number % 2 else {"type": "gla", "gate_rank": 16}
        layer["mixer"] = {**layer["mixer"], **own}
    return config


def expanded_layers(config):
    """Every layer with what it takes from "defaults"."""
    defaults = config.get("defaults", {})
    shared = defaults.get("mixer", {})
    base = {key: value for key, value in shared.items() if key not in ("type", "of", "weights", "learned")}
    for entry in config["layers"]:
        mixer, ffn = {**shared, **entry.get("mixer", {})}, {**defaults.get("ffn", {}), **entry.get("ffn", {})}
        if "of" in mixer:
            mixer["of"] = [{**base, **branch} for branch in mixer["of"]]
        for _ in range(entry.get("repeat", 1)):
            yield mixer, ffn


def put_llama_keys(writer, shape, context):
    layers, d, heads, kv_heads, head_dim, hidden, vocab, base = SHAPES[shape]
    writer.add_context_length(context)
    writer.add_embedding_length(d)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(base)
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(vocab)
    if shape in EXPERTS:
        writer.add_expert_count(EXPERTS[shape][0])
        writer.add_expert_used_count(EXPERTS[shape][1])


class RandomTensors:
    def __init__(self, writer, kind, seed, d):
        self.writer, self.kind, self.rng, self.d = writer, kind, np.random.default_rng(seed), d

    def matrix(self, name, rows, cols):
        raw = None if self.kind in ("f32", "f16") else TYPES[self.kind]
        self.writer.add_tensor(name, random_blocks(self.rng, rows, cols, self.kind), raw_dtype=raw)

    def stack(self, name, experts, rows, cols):
        raw = None if self.kind in ("f32", "f16") else TYPES[self.kind]
        blocks = random_blocks(self.rng, experts * rows, cols, self.kind)
        self.writer.add_tensor(name, blocks.reshape(experts, rows, -1), raw_dtype=raw)

    def experts(self, at, ffn):
        count, hidden = ffn["experts"], ffn["hidden"]
        self.small(at + "ffn_gate_inp.weight", count + ffn.get("null_experts", 0), self.d, sigma=0.05)
        self.stack(at + "ffn_gate_exps.weight", count, hidden, self.d)
        self.stack(at + "ffn_up_exps.weight", count, hidden, self.d)
        self.stack(at + "ffn_down_exps.weight", count, self.d, hidden)
        if ffn.get("selection_bias"):
            self.small(at + "exp_probs_b.bias", count + ffn.get("null_experts", 0), sigma=0.01)
        if ffn.get("shared"):
            self.dense(at, "_shexp", ffn["shared"] * (ffn.get("shared_hidden") or hidden))
        if ffn.get("shared_gate"):
            self.small(at + "ffn_gate_inp_shexp.weight", self.d, sigma=0.05)

    def dense(self, at, suffix, hidden):
        self.matrix(f"{at}ffn_gate{suffix}.weight", hidden, self.d)
        self.matrix(f"{at}ffn_up{suffix}.weight", hidden, self.d)
        self.matrix(f"{at}ffn_down{suffix}.weight", self.d, hidden)

    def ones(self, name, size):
        self.writer.add_tensor(name, np.ones(size, np.float32))

    def small(self, name, *shape, sigma=1.0):
        """What stays float32 in quantized files too."""
        self.writer.add_tensor(name, self.rng.standard_normal(shape, dtype=np.float32) * np.float32(sigma))

    def mixer(self, at, m):
        q, kv, d, kind = m["heads"] * m["head_dim"], m["kv_heads"] * m["head_dim"], self.d, m.get("type", "full")
        self.matrix(at + "attn_q.weight", q, d)
        self.matrix(at + "attn_k.weight", kv, d)
        self.matrix(at + "attn_v.weight", kv, d)
        if m.get("qkv_bias"):
            for name, rows in (("q", q), ("k", kv), ("v", kv)):
                self.small(f"{at}attn_{name}.bias", rows, sigma=0.1)
        if m.get("qk_norm"):
            self.ones(at + "attn_q_norm.weight", m["head_dim"])
            self.ones(at + "attn_k_norm.weight", m["head_dim"])
        if kind == "gla" and m.get("gate", "low_rank") == "low_rank":
            rank = m.get("gate_rank", 16)
            self.matrix(at + "attn_gate_a.weight", rank, d)
            self.small(at + "attn_gate_b.weight", kv, rank, sigma=0.25)
            self.small(at + "attn_gate_b.bias", kv)
        elif kind == "gla" and m["gate"] == "matrix":
            self.matrix(at + "attn_gate_a.weight", kv, d)
            self.small(at + "attn_gate_a.bias", kv)
        elif kind == "delta":
            self.matrix(at + "attn_decay.weight", m["kv_heads"], d)
            self.matrix(at + "attn_beta.weight", m["kv_heads"], d)
            self.small(at + "attn_a_log.weight", m["kv_heads"])
            self.small(at + "attn_dt_bias.weight", m["kv_heads"])
        if kind in ("gla", "delta") and m.get("out_norm", True):
            self.ones(at + "attn_out_norm.weight", m["head_dim"])
        self.matrix(at + "attn_output.weight", d, q)
        if m.get("o_bias"):
            self.small(at + "attn_output.bias", d, sigma=0.1)

    def layer(self, number, mixer, ffn):
        at = f"blk.{number}."
        self.ones(at + "attn_norm.weight", self.d)
        if mixer["type"] == "parallel":
            for branch, m in enumerate(mixer["of"]):
                self.mixer(f"{at}mix{branch}.", m)
                self.ones(f"{at}mix{branch}_norm.weight", self.d)
            if mixer.get("learned"):
                self.small(at + "mix_weights.weight", 2)
        else:
            self.mixer(at, mixer)
        self.ones(at + "ffn_norm.weight", self.d)
        if ffn.get("type") == "moe":
            self.experts(at, ffn)
        else:
            self.dense(at, "", ffn["hidden"])


def make_random(path, args):
    own = args.hybrid or args.config
    if args.config:
        config = json.loads(args.config.read_text())
    else:
        config = (hybrid_config if args.hybrid else llama_config)(args.shape, args.context)
    if not config.get("tied"):
        raise SystemExit("the config must be tied: this tool writes no output.weight")
    writer = GGUFWriter(path, "mneme" if own else "llama")
    writer.add_name(config.get("name", "random"))
    writer.add_file_type(FILE_TYPES[args.type])
    writer.add_quantization_version(2)
    if own:
        writer.add_string("mneme.config", json.dumps(config))
    else:
        put_llama_keys(writer, args.shape, args.context)
    copy_vocabulary(writer, GGUFReader(args.vocab_from), config["vocab"])

    tensors = RandomTensors(writer, args.type, args.seed, config["d_model"])
    tensors.matrix("token_embd.weight", config["vocab"], config["d_model"])
    if config.get("sink_tokens"):
        tensors.small("sink_embd.weight", config["sink_tokens"], config["d_model"], sigma=SIGMA)
    for number, (mixer, ffn) in enumerate(expanded_layers(config)):
        tensors.layer(number, mixer, ffn)
    tensors.ones("output_norm.weight", config["d_model"])
    close(writer)


def requantize(path, source_path, kind):
    """Copies a GGUF file with every quantized or float matrix written as `kind`; vectors stay F32."""
    source = GGUFReader(source_path)
    arch = source.fields["general.architecture"].contents()
    writer = GGUFWriter(path, arch)
    for key, field in source.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        kinds = field.types
        writer.add_key_value(key, field.contents(), kinds[0], kinds[1] if len(kinds) > 1 else None)
    writer.add_file_type(FILE_TYPES[kind])
    for tensor in source.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if values.ndim < 2:
            writer.add_tensor(tensor.name, values.astype(np.float32))
        elif kind in ("f32", "f16"):
            writer.add_tensor(tensor.name, values.astype(np.float32 if kind == "f32" else np.float16))
        else:
            writer.add_tensor(tensor.name, quantize(values, TYPES[kind]), raw_dtype=TYPES[kind])
    close(writer)


def close(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--type", choices=TYPES, default="q8_0")
    parser.add_argument("--vocab-from", help="GGUF file whose tokenizer is borrowed")
    parser.add_argument("--requantize", metavar="GGUF", help="convert this file instead of drawing weights")
    parser.add_argument("--hybrid", action="store_true", help="even layers gated linear attention, odd layers a window of 512")
    parser.add_argument("--config", type=pathlib.Path, metavar="JSON", help="this ModelConfig instead of a shape")
    parser.add_argument("--context", type=int, help="positions that the file claims (default 32768, of a hybrid 4194304)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not args.requantize and not args.vocab_from:
        parser.error("--vocab-from is needed unless --requantize is given")
    args.context = args.context or (4194304 if args.hybrid else 32768)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    partial = args.out.with_name(args.out.name + ".partial")
    if args.requantize:
        requantize(partial, args.requantize, args.type)
    else:
        make_random(partial, args)
    partial.rename(args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.0f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
