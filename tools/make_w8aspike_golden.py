#!/usr/bin/env python3
"""Makes a checkpoint like SpikingBrain-7B's W8ASpike at reduced width: its tensor names, F32, seeded random values.

    pip install numpy
    tools/make_w8aspike_golden.py tests/data/models

Writes OUT/spikingbrain_w8aspike, with golden logits by tools/spikingbrain_reference.py in float64; the tokenizer's files are
those of OUT/spikingbrain. One layer of gated linear attention, one with a window. The weights lie between the steps of their
scales, so that who does not round them is wrong; about one code in a hundred is beyond int8, as in the published file. Rounding
is not continuous: a number beside a tie may go either way in float32, and the logits with it. So seeds are tried until every
rounding of the golden text is far enough from a tie for any order of sums.
"""
import argparse
import json
import pathlib
import shutil
import struct

import numpy as np
from spikingbrain_reference import Reference, read_folder

POSITIONS = 24
SHARDS = 4
LEAST_MARGIN = 8e-6  # float32 with sums of any order is an order of magnitude better
CONFIG = {
    "architectures": ["GLAswaForCausalLM"], "attention_dropout": 0.0, "attn_layers": [0], "attn_mode": "chunk",
    "bos_token_id": 1, "conv_size": 4, "dynamic_sfr": 3.0, "elementwise_affine": True, "eos_token_id": 1,
    "fuse_cross_entropy": True, "hidden_act": "swish", "hidden_size": 128, "initializer_range": 0.02,
    "intermediate_size": 64, "max_position_embeddings": 256, "model_type": "gla_swa", "norm_eps": 1e-6,
    "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "quant_weight_group_size": 128,
    "rope_theta": 10000.0, "sliding_window": 8, "tie_word_embeddings": False, "torch_dtype": "float32",
    "transformers_version": "4.45.0", "use_cache": True, "use_short_conv": False, "vocab_size": 288,
}


def shapes(config):
    """Name -> shape of every tensor but the scales."""
    h, n, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv = config["num_key_value_heads"] * h // config["num_attention_heads"]
    out = {"model.embeddings.weight": (vocab, h)}
    for i in range(config["num_hidden_layers"]):
        block = f"model.layers.{i}."
        out[block + "attn_norm.weight"] = (h,)
        for name, rows in [("q", h), ("k", kv), ("v", kv)] + [("gk", kv)] * (i % 2 == 0):
            out[f"{block}attn.{name}_proj.weight"] = (rows, h)
            out[f"{block}attn.{name}_proj.bias"] = (rows,)
        if i % 2 == 0:
            out[block + "attn.g_norm.weight"] = (h // config["num_attention_heads"],)
        out[block + "attn.o_proj.weight"] = (h, h)
        out[block + "mlp_norm.weight"] = (h,)
        out[block + "mlp.gate_proj.weight"] = out[block + "mlp.up_proj.weight"] = (n, h)
        out[block + "mlp.down_proj.weight"] = (h, n)
    out["model.norm.weight"] = (h,)
    out["lm_head.weight"] = (vocab, h)
    return out


def random_tensors(config, seed):
    random = np.random.default_rng(seed)
    out = {}
    for name, shape in shapes(config).items():
        noise = random.standard_normal(shape)
        if "norm" in name:
            value = 1 + 0.3 * noise
        elif name.endswith("gk_proj.bias"):
            value = 3 * noise - 1
        elif name.endswith("bias"):
            value = 0.5 * noise
        elif "embeddings" in name or "lm_head" in name:
            value = 0.3 * noise
        else:
            value = noise * 1.5 / shape[1] ** 0.5
        out[name] = value.astype("<f4")
        if name.endswith("_proj.weight"):
            groups = -(-shape[1] // 128)
            scales = value.std() * 2.6 / 127 * random.uniform(0.9, 1.1, (shape[0], groups, 1))
            out[name.removesuffix("weight") + "weight_quantizer.scales"] = scales.astype("<f4")
    return out


def beyond_int8(tensors):
    codes = outside = 0
    for name, scales in tensors.items():
        if name.endswith(".scales") and ".down_proj." not in name:
            code = np.rint(tensors[name.replace("weight_quantizer.scales", "weight")].reshape(*scales.shape[:2], -1) / scales)
            codes, outside = codes + code.size, outside + np.sum((code < -128) | (code > 127))
    return outside / codes


def write_safetensors(path, tensors):
    header, body = {}, b""
    for name, value in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(body), len(body) + value.nbytes]}
        body += value.tobytes()
    raw = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    raw += b" " * (-len(raw) % 8)
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + body)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def write_shards(folder, tensors):
    per_shard = sum(value.nbytes for value in tensors.values()) / SHARDS
    parts, size = [{}], 0
    for name, value in tensors.items():
        if size > per_shard * len(parts):
            parts.append({})
        parts[-1][name] = value
        size += value.nbytes
    where = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05}-of-{len(parts):05}.safetensors"
        write_safetensors(folder / file, part)
        where.update({name: file for name in part})
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": where})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    for seed in range(1000):
        tensors = random_tensors(CONFIG, seed)
        ids = np.random.default_rng([seed, 1]).integers(0, CONFIG["vocab_size"], POSITIONS)
        reference = Reference(CONFIG, tensors)
        logits = reference.logits(ids)
        if reference.margin >= LEAST_MARGIN:
            break
    else:
        raise SystemExit("no seed keeps every rounding away from ties")

    folder = args.out / "spikingbrain_w8aspike"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(args.out / "spikingbrain" / name, folder / name)
    write_json(folder / "config.json", CONFIG)
    write_shards(folder, tensors)
    config, weights = read_folder(folder)
    assert np.array_equal(Reference(config, weights).logits(ids), logits)
    logits.astype("<f4").tofile(folder / "golden.f32")
    write_json(folder / "golden.json", {"ids": ids.tolist(), "shape": list(logits.shape), "logits": "golden.f32",
                                        "made_with": {"numpy": np.__version__, "seed": seed}})
    print(f"seed {seed}: margin {reference.margin:.1e}, {beyond_int8(tensors):.2%} of the codes beyond int8, logits std {logits.std():.2f}")


if __name__ == "__main__":
    main()
