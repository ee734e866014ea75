#!/usr/bin/env python3
"""Makes the tiny mixtures of experts of tests/data/models and the logits that transformers computes from them.

As make_golden_models.py, whose parts it uses, for families with experts: each with another router, other tensor names and
another place for its shared experts. Written as published: newer libraries stack the experts in memory, files hold one
matrix for each.

    pip install torch transformers safetensors tokenizers numpy
    tools/make_golden_experts.py tests/data/models
"""
import argparse
import pathlib
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

from make_golden_models import base_config, train_tokenizer, write_golden, write_json

FAMILIES = {
    "mixtral": base_config("MixtralForCausalLM", "mixtral", tie_word_embeddings=False, intermediate_size=32,
                           num_local_experts=4, num_experts_per_tok=2, sliding_window=None, output_router_logits=False),
    "qwen2_moe": base_config("Qwen2MoeForCausalLM", "qwen2_moe", rms_norm_eps=1e-6, num_hidden_layers=3,
                             moe_intermediate_size=32, shared_expert_intermediate_size=48, num_experts=5,
                             num_experts_per_tok=2, norm_topk_prob=False, decoder_sparse_step=1, mlp_only_layers=[1],
                             use_sliding_window=False, sliding_window=8, max_window_layers=2),
    "qwen3_moe": base_config("Qwen3MoeForCausalLM", "qwen3_moe", head_dim=32, rms_norm_eps=1e-6, moe_intermediate_size=32,
                             num_experts=6, num_experts_per_tok=3, norm_topk_prob=True, decoder_sparse_step=1,
                             mlp_only_layers=[], attention_bias=False, use_sliding_window=False),
    "olmoe": base_config("OlmoeForCausalLM", "olmoe", intermediate_size=32, num_key_value_heads=2, num_experts=6,
                         num_experts_per_tok=2, norm_topk_prob=False, attention_bias=False),
    "granitemoe": base_config("GraniteMoeForCausalLM", "granitemoe", intermediate_size=32, rms_norm_eps=1e-6,
                              num_local_experts=4, num_experts_per_tok=2, attention_bias=False,
                              embedding_multiplier=12.0, logits_scaling=6.0, residual_multiplier=0.22,
                              attention_multiplier=0.15625),
    "granitemoeshared": base_config("GraniteMoeSharedForCausalLM", "granitemoeshared", intermediate_size=32,
                                    shared_intermediate_size=48, num_local_experts=4, num_experts_per_tok=2,
                                    embedding_multiplier=12.0, logits_scaling=6.0, residual_multiplier=0.22,
                                    attention_multiplier=0.15625),
    "dots1": base_config("Dots1ForCausalLM", "dots1", num_hidden_layers=3, head_dim=16, rms_norm_eps=1e-6,
                         moe_intermediate_size=32, n_shared_experts=2, n_routed_experts=8, n_group=4, topk_group=2,
                         num_experts_per_tok=3, first_k_dense_replace=1, norm_topk_prob=True, routed_scaling_factor=2.5,
                         attention_bias=False, sliding_window=8, max_window_layers=3),
}


def random_weights(model, generator):
    """Overwrites every parameter, in name order, so that the result depends on the seed only."""
    biases = [(name, buffer) for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias")]
    with torch.no_grad():
        for name, weight in sorted([*model.named_parameters(), *biases]):
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float32)
            if name.endswith("e_score_correction_bias"):
                value = 0.2 * noise
            elif name.endswith("bias"):
                value = 0.5 * noise
            elif weight.dim() == 1:  # a norm
                value = 0.3 * noise + 1.0
            elif "embed" in name or "lm_head" in name:
                value = 0.3 * noise
            else:  # a matrix, or experts' matrices in a stack
                value = noise * 1.5 / weight.shape[-1] ** 0.5
            weight.copy_(value)


def published_state(model):
    """The tensors under the names of published files."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        files = sorted(pathlib.Path(folder).glob("*.safetensors"))
        return {name: tensor.clone() for file in files for name, tensor in load_file(file).items()}


def make(folder, name, tokenizer, seed):
    config = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False,
                                                  "bos_token": "<|begin|>", "eos_token": "<|end|>"})
    generator = torch.Generator().manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(folder), attn_implementation="eager")
    random_weights(model, generator)
    state = {key: tensor.to(torch.bfloat16).contiguous() for key, tensor in published_state(model).items()}
    if config["tie_word_embeddings"]:
        state.pop("lm_head.weight", None)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    logits = write_golden(folder, generator, seed=seed)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name:17} {size / 1000:6.0f} kB  logits std {logits.std():.2f} max {logits.abs().max():.2f}  {sorted(state)[3]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--only", nargs="*", choices=FAMILIES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = train_tokenizer()
    for number, name in enumerate(FAMILIES):
        if not args.only or name in args.only:
            make(args.out / name, name, tokenizer, seed=2000 + number)


if __name__ == "__main__":
    main()
