#!/usr/bin/env python3
"""Makes SpikingBrain-7B checkpoints of reduced width: every tensor name of the published ones, seeded random values.

    pip install torch safetensors transformers tokenizers numpy
    tools/make_spikingbrain_golden.py tests/data/models

    spikingbrain         BF16, one safetensors file; golden logits by tools/spikingbrain_reference.py in float64
    spikingbrain_bin     the same weights as two torch .bin shards, as the base model is published
W8ASpike has a script of its own: tools/make_w8aspike_golden.py.

The weights are such that every part matters: the sequence is longer than the window, one head's queries are never
positive (its output is zero and must stay zero after the norm), some gates are closed, biases are not small.
"""
import argparse
import json
import pathlib

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from spikingbrain_reference import Reference, read_folder

POSITIONS = 48
ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXTS = ["SpikingBrain reads text.", "don't <|im_start|>user\n12 345<|im_end|>", "  spaces,\ttabs\n\n\nlines", "e\u0301 \u4f60\u597d"]
CONFIG = {
    "architectures": ["GLAswaForCausalLM"], "attention_dropout": 0.0, "attn_layers": [1, 3], "attn_mode": "chunk",
    "bos_token_id": 1, "conv_size": 4, "elementwise_affine": True, "eos_token_id": 1, "fuse_cross_entropy": True,
    "hidden_act": "swish", "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 48,
    "max_position_embeddings": 256, "model_type": "gla_swa", "norm_eps": 1e-6, "num_attention_heads": 4,
    "num_hidden_layers": 4, "num_key_value_heads": 2, "rope_theta": 10000.0, "sliding_window": 8,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.45.0", "use_cache": True,
    "use_short_conv": False, "vocab_size": 288,
}
GATE_RANK = 16


def shapes(config):
    """Name -> shape of every weight of the architecture, at any width, in the order of the forward pass."""
    h, n, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head = h // config["num_attention_heads"]
    kv = config["num_key_value_heads"] * head
    out = {"model.embeddings.weight": (vocab, h)}
    for i in range(config["num_hidden_layers"]):
        block = f"model.layers.{i}."
        out[block + "attn_norm.weight"] = (h,)
        for name, rows in (("q", h), ("k", kv), ("v", kv)):
            out[f"{block}attn.{name}_proj.weight"] = (rows, h)
            out[f"{block}attn.{name}_proj.bias"] = (rows,)
        if i % 2 == 0:
            out[block + "attn.gk_proj.0.weight"] = (GATE_RANK, h)
            out[block + "attn.gk_proj.1.weight"] = (kv, GATE_RANK)
            out[block + "attn.gk_proj.1.bias"] = (kv,)
            out[block + "attn.g_norm.weight"] = (head,)
        out[block + "attn.o_proj.weight"] = (h, h)
        out[block + "mlp_norm.weight"] = (h,)
        out[block + "mlp.gate_proj.weight"] = (n, h)
        out[block + "mlp.up_proj.weight"] = (n, h)
        out[block + "mlp.down_proj.weight"] = (h, n)
    out["model.norm.weight"] = (h,)
    out["lm_head.weight"] = (vocab, h)
    return out


def random_weights(config, generator):
    head = config["hidden_size"] // config["num_attention_heads"]
    out = {}
    for name, shape in shapes(config).items():
        noise = torch.randn(shape, generator=generator, dtype=torch.float32)
        if "norm" in name:
            value = 1 + 0.3 * noise
        elif "gk_proj" in name and name.endswith("bias"):
            value = 3 * noise - 1
            value[::5] = -40  # closed: log-decay -2.5 a token
        elif name.endswith("bias"):
            value = 0.5 * noise
            if "layers.0.attn.q_proj" in name:
                value[head:2 * head] = -100  # head 1 is dead
        elif "embeddings" in name or "lm_head" in name:
            value = 0.3 * noise
        else:
            value = noise * 1.5 / shape[1] ** 0.5
        out[name] = value
    return out


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def save_shards(folder, weights, stem, suffix, write):
    names = list(weights)
    where = {}
    parts = [names[: len(names) // 2], names[len(names) // 2:]]
    for number, part in enumerate(parts, 1):
        file = f"{stem}-{number:05}-of-{len(parts):05}.{suffix}"
        write({name: weights[name] for name in part}, folder / file)
        where.update({name: file for name in part})
    size = sum(t.numel() * t.element_size() for t in weights.values())
    write_json(folder / f"{stem}.{suffix}.index.json", {"metadata": {"total_size": size}, "weight_map": where})


def save_golden(folder, seed):
    config, weights = read_folder(folder)
    ids = np.random.default_rng(seed).integers(0, config["vocab_size"], POSITIONS)
    logits = Reference(config, weights).logits(ids)
    logits.astype("<f4").tofile(folder / "golden.f32")
    write_json(folder / "golden.json", {
        "ids": ids.tolist(), "shape": list(logits.shape), "logits": "golden.f32",
        "made_with": {"torch": torch.__version__, "numpy": np.__version__, "seed": seed}})
    print(f"{folder.name}: logits std {logits.std():.2f} max {np.abs(logits).max():.2f}")


def save_tokenizer(folder):
    """vocab.json, merges.txt and tokenizer_config.json: the form in which the checkpoints come, without tokenizer.json."""
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"] - len(ADDED), show_progress=False,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.train_from_iterator(pathlib.Path(__file__).read_text().splitlines(), trainer)
    bpe.model.save(str(folder))
    size = bpe.get_vocab_size()
    added = {str(size + i): {"content": name, "lstrip": False, "normalized": False, "rstrip": False,
                             "single_word": False, "special": True} for i, name in enumerate(ADDED)}
    write_json(folder / "tokenizer_config.json", {
        "add_prefix_space": False, "added_tokens_decoder": added, "bos_token": None, "eos_token": "<|endoftext|>",
        "errors": "replace", "model_max_length": 256, "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None})


def save_golden_tokens(folder):
    """What transformers makes of those files."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    write_json(folder / "golden_tokens.json", [{"text": t, "ids": tokenizer(t)["input_ids"]} for t in TEXTS])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    folders = [args.out / name for name in ("spikingbrain", "spikingbrain_bin")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    plain, torch_shards = folders
    for folder in folders:
        save_tokenizer(folder)
    save_golden_tokens(plain)

    weights = {name: w.bfloat16() for name, w in random_weights(CONFIG, torch.Generator().manual_seed(41)).items()}
    write_json(plain / "config.json", CONFIG)
    save_file(weights, plain / "model.safetensors", metadata={"format": "pt"})
    save_golden(plain, 42)

    write_json(torch_shards / "config.json", CONFIG)
    save_shards(torch_shards, weights, "pytorch_model", "bin", torch.save)


if __name__ == "__main__":
    main()
