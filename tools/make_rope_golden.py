#!/usr/bin/env python3
"""Writes tests/data/rope_golden.json: for configs with every kind of RoPE scaling, in older and newer spelling, the
inverse frequencies and the factor on cos and sin that the rotary embeddings of `transformers` hold.

    pip install torch transformers
    tools/make_rope_golden.py tests/data/rope_golden.json
"""
import json
import sys

import torch
import transformers
from transformers import AutoConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 4096}


def llama(**changes):
    return {"model_type": "llama", **SIZES, **changes}


def gemma(**changes):
    return {"model_type": "gemma3_text", **SIZES, "head_dim": 32, "sliding_window": 512, **changes}


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
CONFIGS = [
    llama(),
    llama(rope_theta=100000.0, head_dim=128),
    llama(rope_theta=1000000.0, rope_scaling={"type": "linear", "factor": 2.5}),
    llama(rope_theta=500000.0, head_dim=64, rope_scaling=LLAMA3),
    llama(rope_theta=500000.0, head_dim=128, rope_scaling={**LLAMA3, "factor": 32.0}),
    llama(rope_parameters={**LLAMA3, "rope_theta": 500000.0, "low_freq_factor": 2.0, "high_freq_factor": 3.0}),
    llama(head_dim=64, rope_scaling=YARN),
    llama(rope_theta=1000000.0, head_dim=128, rope_scaling={**YARN, "beta_fast": 20.0, "beta_slow": 2.0}),
    llama(rope_theta=1000000.0, head_dim=128, rope_scaling={**YARN, "attention_factor": 0.7}),
    llama(head_dim=64, rope_parameters={**YARN, "rope_theta": 150000.0, "mscale": 1.0, "mscale_all_dim": 0.6}),
    llama(head_dim=64, rope_parameters={**YARN, "rope_theta": 150000.0, "factor": 40.0, "mscale": 0.707}),
    llama(head_dim=16, rope_scaling={**YARN, "original_max_position_embeddings": 16}),
    gemma(rope_theta=1000000.0, rope_local_base_freq=10000.0, rope_scaling=None),
    gemma(rope_theta=1000000.0, rope_local_base_freq=20000.0, rope_scaling={"rope_type": "linear", "factor": 8.0}),
    gemma(rope_parameters={"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 2000000.0},
                           "sliding_attention": {"rope_type": "default", "rope_theta": 30000.0}}),
]


def embedding(config, name=""):
    """[inverse frequencies, factor] of a rotary embedding; `name`: "", or the layer type and "_"."""
    model = (Gemma3RotaryEmbedding if name else LlamaRotaryEmbedding)(config)
    frequencies = getattr(model, f"{name}inv_freq").to(torch.float64).tolist()
    return {"inverse_frequencies": frequencies, "attention_factor": float(getattr(model, f"{name}attention_scaling"))}


def main():
    cases = []
    for fields in CONFIGS:
        fields = json.loads(json.dumps(fields))  # transformers changes what it is given
        config = AutoConfig.for_model(**json.loads(json.dumps(fields)))
        if fields["model_type"] == "llama":
            answer = {"full": embedding(config)}
        else:
            answer = {"full": embedding(config, "full_attention_"), "sliding": embedding(config, "sliding_attention_")}
        cases.append({"config": fields, **answer})
    golden = {"made_with": {"transformers": transformers.__version__, "torch": torch.__version__}, "cases": cases}
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        json.dump(golden, out, indent=None, separators=(",", ":"))
        out.write("\n")


if __name__ == "__main__":
    main()
