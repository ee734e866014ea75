#!/usr/bin/env python3
"""Writes GGUF versions of some tiny checkpoints of tests/data/models (see make_golden_models.py).

    pip install gguf torch transformers safetensors numpy
    tools/make_golden_gguf.py tests/data/models

makes llama.gguf (F32), qwen3.gguf and gemma3_pattern.gguf (BF16): the same weights as the folders, so the folders'
golden logits hold for them; and llama_q8_0.gguf with llama_q8_0/golden.*, computed from the dequantized weights.

This is a second, independent statement of the naming and layout conventions that the engine's importer follows: the rows
of llama's q and k projections are reordered from two halves to interleaved pairs, Gemma's norms hold the weight plus one.
"""
import argparse
import json
import pathlib
import shutil
import tempfile

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file, save_file

from make_golden_models import reference_logits, write_json

LAYER_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
# Gemma 3 has four norms a layer; elsewhere post_attention_layernorm is the one before the feed-forward part.
PLAIN_NORMS = {"post_attention_layernorm": "ffn_norm"}
GEMMA_NORMS = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
               "post_feedforward_layernorm": "post_ffw_norm"}


def gguf_name(name, gemma):
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    if name == "lm_head.weight":
        return "output.weight"
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    names = LAYER_NAMES | (GEMMA_NORMS if gemma else PLAIN_NORMS)
    return f"blk.{layer}.{names[module]}.{kind}"


def interleave(weight, heads):
    """Rows of each head: (i, i + half) become neighbours (2i, 2i + 1)."""
    rows, cols = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def add_tokenizer(writer, folder):
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    pieces = sorted(vocabulary["model"]["vocab"].items(), key=lambda item: item[1])
    special = {token["id"] for token in vocabulary["added_tokens"] if token["special"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([text for text, _ in pieces])
    writer.add_token_types([int(TokenType.CONTROL if i in special else TokenType.NORMAL) for _, i in pieces])
    merges = vocabulary["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)


def add_metadata(writer, config, gemma):
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim", config["hidden_size"] // heads)
    writer.add_name("tiny " + config["model_type"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    if "head_dim" in config:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if not gemma:
        writer.add_rope_dimension_count(head_dim)
    else:
        writer.add_sliding_window(config["sliding_window"])


def convert(folder, out, kind):
    config = json.loads((folder / "config.json").read_text())
    gemma = config["model_type"] == "gemma3_text"
    architecture = {"llama": "llama", "qwen3": "qwen3", "gemma3_text": "gemma3"}[config["model_type"]]
    state = {name: tensor.float().numpy() for name, tensor in load_file(folder / "model.safetensors").items()}
    writer = GGUFWriter(out, architecture)
    add_metadata(writer, config, gemma)
    add_tokenizer(writer, folder)
    stored = {}  # what the file says, in the folder's names and order of rows
    for name, weight in sorted(state.items()):
        values = weight
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            which = "num_attention_heads" if "q_proj" in name else "num_key_value_heads"
            values = interleave(weight, config[which])
        if gemma and weight.ndim == 1:
            values = weight + 1
        target = gguf_name(name, gemma)
        if weight.ndim == 1 or kind == GGMLQuantizationType.F32:
            writer.add_tensor(target, np.ascontiguousarray(values, np.float32))
        else:
            writer.add_tensor(target, quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)
        stored[name] = weight if weight.ndim == 1 else dequantize(quantize(weight, kind), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")
    return stored


def golden_of_quantized(folder, stored, out):
    """Logits of `folder` with its weights replaced by `stored`, for the same ids."""
    golden = json.loads((folder / "golden.json").read_text())
    with tempfile.TemporaryDirectory() as temporary:
        copy = pathlib.Path(temporary)
        shutil.copy(folder / "config.json", copy)
        save_file({name: torch.from_numpy(np.ascontiguousarray(value, np.float32)) for name, value in stored.items()},
                  copy / "model.safetensors", metadata={"format": "pt"})
        logits = reference_logits(copy, torch.tensor(golden["ids"]))
    out.mkdir(exist_ok=True)
    logits.numpy().astype("<f4").tofile(out / "golden.f32")
    write_json(out / "golden.json", golden)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path)
    models = parser.parse_args().models
    torch.set_num_threads(1)
    convert(models / "llama", models / "llama.gguf", GGMLQuantizationType.F32)
    for name in ("qwen3", "gemma3_pattern"):
        convert(models / name, models / f"{name}.gguf", GGMLQuantizationType.BF16)
    stored = convert(models / "llama", models / "llama_q8_0.gguf", GGMLQuantizationType.Q8_0)
    golden_of_quantized(models / "llama", stored, models / "llama_q8_0")


if __name__ == "__main__":
    main()
