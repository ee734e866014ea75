#!/usr/bin/env python3
"""Makes the tiny checkpoints of tests/data/models and the logits that transformers computes from them.

One folder a family, as published on model hubs: config.json, model.safetensors (one of them in shards), tokenizer.json,
tokenizer_config.json, generation_config.json. Beside them the golden answer of an independent implementation:

    golden.json   {"ids": [...], "shape": [positions, vocab], "logits": "golden.f32", "made_with": {...}}
    golden.f32    float32, little endian, [positions, vocab]: logits after every position

computed by transformers with eager attention in float32 from the weights as stored (BF16 and F16 widen exactly). The
weights are seeded random numbers, at a scale at which every part matters: attention is not uniform, norms are not one,
biases are not small, the sequence is longer than the windows and than the contexts that RoPE scaling starts from.

    pip install torch transformers safetensors tokenizers numpy
    tools/make_golden_models.py tests/data/models

The tokenizer is a byte-level BPE of 288 tokens, trained on this very file.
"""
import argparse
import json
import pathlib

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB = 288
POSITIONS = 40
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def base_config(architecture, model_type, dtype="bfloat16", **changes):
    config = {
        "architectures": [architecture], "model_type": model_type, "torch_dtype": dtype, "vocab_size": VOCAB,
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "rope_theta": 10000.0, "tie_word_embeddings": True, "attention_dropout": 0.0, "initializer_range": 0.02,
        "use_cache": True, "bos_token_id": 0, "eos_token_id": 1,
    }
    config.update(changes)
    return {key: value for key, value in config.items() if value is not None}


def gemma_config(**changes):
    return base_config(
        "Gemma3ForCausalLM", "gemma3_text", head_dim=32, rms_norm_eps=1e-6, hidden_act=None,
        hidden_activation="gelu_pytorch_tanh", rope_theta=1000000.0, rope_local_base_freq=10000.0, sliding_window=8,
        attention_bias=False, attn_logit_softcapping=None, final_logit_softcapping=None, pad_token_id=2, **changes)


# Published files spell the same thing in several ways (rope_scaling with "type" or "rope_type", rope_parameters;
# layer_types or a window pattern; unused windows); each spelling appears once.
FAMILIES = {
    "llama": base_config("LlamaForCausalLM", "llama", dtype="float32", tie_word_embeddings=False, rope_scaling=None,
                         pretraining_tp=1, attention_bias=False, mlp_bias=False),
    "llama3": base_config("LlamaForCausalLM", "llama", num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                          rope_theta=500000.0, eos_token_id=[1, 2],
                          rope_scaling={"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                        "original_max_position_embeddings": 16, "rope_type": "llama3"}),
    "llama_linear": base_config("LlamaForCausalLM", "llama", dtype="float16",
                                rope_scaling={"type": "linear", "factor": 4.0}),
    "llama_yarn": base_config("LlamaForCausalLM", "llama", rope_theta=None, max_position_embeddings=256,
                              rope_parameters={"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0,
                                               "beta_fast": 8.0, "beta_slow": 1.0,
                                               "original_max_position_embeddings": 64}),
    "qwen2": base_config("Qwen2ForCausalLM", "qwen2", hidden_size=64, num_attention_heads=4, num_key_value_heads=2,
                         rope_theta=1000000.0, rms_norm_eps=1e-6, sliding_window=8, use_sliding_window=False,
                         max_window_layers=1),
    "qwen3": base_config("Qwen3ForCausalLM", "qwen3", head_dim=32, rope_theta=1000000.0, rms_norm_eps=1e-6,
                         attention_bias=False, use_sliding_window=False, max_window_layers=2),
    "mistral": base_config("MistralForCausalLM", "mistral", num_attention_heads=4, head_dim=16,
                           tie_word_embeddings=False, sliding_window=8),
    # windows in three of four layers, linear scaling in the full one only, scores scaled by another width
    "gemma3": gemma_config(
        num_hidden_layers=4, query_pre_attn_scalar=24, rope_scaling={"rope_type": "linear", "factor": 8.0},
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]),
    # the five-to-one pattern that GGUF files imply
    "gemma3_pattern": gemma_config(num_hidden_layers=6, query_pre_attn_scalar=32, sliding_window_pattern=6),
}
SHARDED = "qwen2"


def train_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, show_progress=False,
                                  special_tokens=["<|begin|>", "<|end|>", "<|pad|>"],
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(pathlib.Path(__file__).read_text().splitlines(), trainer)
    if tokenizer.get_vocab_size() != VOCAB:
        raise SystemExit(f"tokenizer has {tokenizer.get_vocab_size()} tokens, expected {VOCAB}")
    return tokenizer


def random_weights(model, generator):
    """Overwrites every parameter, in name order, so that the result depends on the seed only."""
    gemma = model.config.model_type.startswith("gemma")
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float32)
            if name.endswith("bias"):
                value = 0.5 * noise
            elif weight.dim() == 1:  # a norm; Gemma stores the weight minus one
                value = 0.3 * noise + (0.0 if gemma else 1.0)
            elif "embed" in name or "lm_head" in name:
                value = 0.3 * noise
            else:
                value = noise * 1.5 / weight.shape[1] ** 0.5
            weight.copy_(value)


def save_weights(folder, model, dtype, sharded):
    state = {name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    for stale in folder.glob("model*.safetensors*"):
        stale.unlink()
    if not sharded:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(state)
    shards = [names[: len(names) // 2], names[len(names) // 2:]]
    where = {}
    for number, part in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({name: state[name] for name in part}, folder / file, metadata={"format": "pt"})
        where.update({name: file for name in part})
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": where})


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def make(folder, name, tokenizer, seed):
    config = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_json(folder / "tokenizer_config.json",
               {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "bos_token": "<|begin|>",
                "eos_token": "<|end|>", "pad_token": "<|pad|>", "model_max_length": 128})
    write_json(folder / "generation_config.json",
               {"bos_token_id": 0, "eos_token_id": config["eos_token_id"], "pad_token_id": 2})

    generator = torch.Generator().manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(folder), attn_implementation="eager")
    random_weights(model, generator)
    save_weights(folder, model, DTYPES[config["torch_dtype"]], name == SHARDED)

    logits = write_golden(folder, generator, tokenizers=tokenizers.__version__, seed=seed)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name:15} {size / 1000:6.0f} kB  logits std {logits.std():.2f} max {logits.abs().max():.2f}")


def write_golden(folder, generator, **made_with):
    """Some ids and the logits of what lies in the folder: only the files count, as for the engine under test."""
    ids = torch.randint(3, VOCAB, (POSITIONS,), generator=generator)
    ids[0] = 0
    logits = reference_logits(folder, ids)
    logits.numpy().astype("<f4").tofile(folder / "golden.f32")
    write_json(folder / "golden.json", {
        "ids": ids.tolist(), "shape": list(logits.shape), "logits": "golden.f32",
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__} | made_with})
    return logits


def reference_logits(folder, ids):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    if any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise SystemExit(f"{folder}: {info}")
    model.eval()
    with torch.no_grad():
        return model(ids[None], use_cache=False).logits[0].float()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--only", nargs="*", choices=FAMILIES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = train_tokenizer()
    for number, name in enumerate(FAMILIES):
        if not args.only or name in args.only:
            make(args.out / name, name, tokenizer, seed=1000 + number)


if __name__ == "__main__":
    main()
