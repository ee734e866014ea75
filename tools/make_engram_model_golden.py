"""A tiny Llama with two Engram modules, computed by transformers in float64, for the tests of memories in models.

  python3 tools/make_engram_model_golden.py tests/data

Reads models/llama, writes engram/model_golden.json and engram/model_golden.f32: the module tensors and the rows of the
table (the test makes a pack of them), and the logits after every position. Row ids come from engram_reference.py, token
classes from engram_token_map_reference.py; everything after the look-up is written down here once more, in torch.
Needs torch, transformers, tokenizers, numpy.
"""
import json
import pathlib
import sys

import numpy as np
import torch
import transformers

import engram_reference
import engram_token_map_reference

HEADS, HEAD_DIM = 2, 16
# Two versions of the module, so that each field of its config decides something.
MODULES = [{"layer_id": 0, "signed_sqrt": True, "bias": False, "eps": 1e-6, "norm_offset": 0.0,
            "conv": {"kernel": 4, "dilation": 3, "eps": 1e-5}},
           {"layer_id": 1, "signed_sqrt": False, "bias": True, "eps": 1e-3, "norm_offset": 1.0}]


def table_config(classes):
    return {"compressed_vocab": classes, "pad_id": 2, "max_ngram": 3, "heads": HEADS, "head_dim": HEAD_DIM, "base_rows": [60, 90],
            "layer_ids": [0, 1], "format": "f32"}


def rms(x, weight, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def module_output(config, tensors, embedding, hidden):
    """embedding: [tokens, d_e], hidden: [tokens, d]"""
    d = hidden.shape[-1]
    key, value = embedding @ tensors["engram_k.weight"].T, embedding @ tensors["engram_v.weight"].T
    if config["bias"]:
        key, value = key + tensors["engram_k.bias"], value + tensors["engram_v.bias"]
    offset = config["norm_offset"]
    gate = (rms(key, tensors["engram_k_norm.weight"] + offset, config["eps"])
            * rms(hidden, tensors["engram_q_norm.weight"] + offset, config["eps"])).sum(-1) / d**0.5
    if config["signed_sqrt"]:
        gate = torch.sign(gate) * torch.sqrt(torch.clamp(gate.abs(), min=1e-6))
    u = torch.sigmoid(gate)[:, None] * value
    if "conv" not in config:
        return u
    kernel, dilation = config["conv"]["kernel"], config["conv"]["dilation"]
    normed = rms(u, tensors["engram_conv_norm.weight"] + offset, config["conv"]["eps"])
    padded = torch.cat([torch.zeros((kernel - 1) * dilation, d, dtype=normed.dtype), normed])
    mixed = torch.nn.functional.conv1d(padded.T[None], tensors["engram_conv.weight"][:, None, :], dilation=dilation, groups=d)[0].T
    return u + torch.nn.functional.silu(mixed)


def main(data):
    folder = data / "models" / "llama"
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    d = model.config.hidden_size
    classes, count = engram_token_map_reference.classes(str(folder / "tokenizer.json"))
    table = table_config(count)
    ids = json.loads((folder / "golden.json").read_text())["ids"]
    row_ids, total = engram_reference.rows(table, [classes[i] for i in ids])

    random, stored, entries = np.random.default_rng(3), [], []

    def store(name, shape, scale, shift=0.0):
        values = (shift + scale * random.standard_normal(shape)).astype(np.float32)
        entries.append({"name": name, "shape": list(shape)})
        stored.append(values)
        return torch.tensor(values, dtype=torch.float64)

    rows = store("rows", (total, HEAD_DIM), 1.0)
    d_e, modules = 2 * HEADS * HEAD_DIM, []
    for config in MODULES:
        at = f"blk.{config['layer_id']}."
        norm = 1.0 - config["norm_offset"]
        tensors = {"engram_k.weight": ((d, d_e), d_e**-0.5, 0), "engram_v.weight": ((d, d_e), d_e**-0.5, 0)}
        if config["bias"]:
            tensors.update({"engram_k.bias": ((d,), 0.3, 0), "engram_v.bias": ((d,), 0.3, 0)})
        tensors.update({"engram_k_norm.weight": ((d,), 0.3, norm), "engram_q_norm.weight": ((d,), 0.3, norm)})
        if "conv" in config:
            tensors.update({"engram_conv.weight": ((d, config["conv"]["kernel"]), 0.5, 0), "engram_conv_norm.weight": ((d,), 0.3, norm)})
        modules.append({name: store(at + name, *how) for name, how in tensors.items()})

    for i, config in enumerate(MODULES):
        embedding = rows[torch.tensor(row_ids[i])].reshape(len(ids), d_e)

        def before_layer(_, arguments, config=config, tensors=modules[i], embedding=embedding):
            hidden = arguments[0]
            return (hidden + module_output(config, tensors, embedding, hidden[0])[None],) + arguments[1:]

        model.model.layers[config["layer_id"]].register_forward_pre_hook(before_layer)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].numpy()
    entries.append({"name": "logits", "shape": list(logits.shape)})
    stored.append(logits.astype(np.float32))

    out = data / "engram"
    (out / "model_golden.f32").write_bytes(b"".join(values.astype("<f4").tobytes() for values in stored))
    (out / "model_golden.json").write_text(json.dumps(
        {"made_by": "tools/make_engram_model_golden.py", "torch": torch.__version__, "transformers": transformers.__version__, "ids": ids,
         "table": table, "modules": MODULES, "tensors": entries}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
