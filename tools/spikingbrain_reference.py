#!/usr/bin/env python3
"""An independent forward pass of SpikingBrain-7B's architecture (`model_type: gla_swa`) in numpy and float64.

Written from the published description, for any width; nothing is shared with the engine under test, and every formula
is the slow, literal one: loops over tokens, dense masks. Even layers are gated linear attention, odd layers softmax
attention in a sliding window.

    block   x += attn(rms(x));  x += down(silu(gate u) * up u) with u = rms(x)
    gated   q = relu(W_q x + b_q), k = relu(W_k x + b_k), v = W_v x + b_v; head j uses key-value head j // (heads / kv)
    linear  z = W_1 (W_0 x) + b_1 (or one matrix W_gk x + b_gk), a = log sigmoid(z) / 16 for every key channel
            S_t = diag(e^a_t) S_t-1 + k_t v_t^T;  o_t = S_t^T q_t / sqrt(d);  o = rms over each head, one weight [d]
    window  rotary embedding on whole heads (halves, base rope_theta), causal softmax over the last
            sliding_window + 1 keys, the query's own included

A checkpoint whose projections have `weight_quantizer.scales` is W8ASpike:

    weights  w = round(w / s) s with one s for 128 inputs, in float32, ties to even, not clamped
    spikes   the input x of a projection becomes V round(x / V), V = mean|x| / k of the token, in [1e-5, 1e4]
    down     down_proj does neither
    window   after rotation each query head is spiked likewise; keys and values become c round(x / c) with
             c = max|x| / 127 of the head, at least 1e-5

    tools/spikingbrain_reference.py FOLDER --ids 1,2,3 [--out logits.f32]

FOLDER holds config.json and the weights as model*.safetensors or, if torch is installed, pytorch_model*.bin.
"""
import argparse
import json
import pathlib
import struct

import numpy as np

GATE_NORMALIZER = 16.0


def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def log_sigmoid(x):
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


def silu(x):
    return x * sigmoid(x)


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rotate(x, base):
    """x: [tokens, heads, d]; position t turns the pair (i, i + d/2) by t * base^(-2i/d)."""
    tokens, _, d = x.shape
    angle = np.arange(tokens)[:, None] * base ** (-np.arange(0, d, 2) / d)[None, :]
    cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
    low, high = x[..., : d // 2], x[..., d // 2:]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def gated_linear_attention(q, k, v, a):
    """q: [tokens, heads, d]; k, v, a: [tokens, kv_heads, d]. Returns [tokens, heads, d]."""
    tokens, heads, d = q.shape
    group = heads // k.shape[1]
    out = np.zeros_like(q)
    for j in range(heads):
        g = j // group
        state = np.zeros((d, d))
        for t in range(tokens):
            state = np.exp(a[t, g])[:, None] * state + np.outer(k[t, g], v[t, g])
            out[t, j] = state.T @ q[t, j] / np.sqrt(d)
    return out


def window_attention(q, k, v, keys):
    """Each query sees the last `keys` positions, its own included."""
    tokens, heads, d = q.shape
    group = heads // k.shape[1]
    at = np.arange(tokens)
    visible = (at[None, :] <= at[:, None]) & (at[None, :] > at[:, None] - keys)
    out = np.zeros_like(q)
    for j in range(heads):
        scores = np.where(visible, q[:, j] @ k[:, j // group].T / np.sqrt(d), -np.inf)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, j] = weights / weights.sum(axis=1, keepdims=True) @ v[:, j // group]
    return out


def rounded_weight(weight, scales):
    """weight: [out, in], scales: [out, in / 128, 1]; both float32, and so is the division, as in the published code."""
    groups = np.asarray(weight, np.float32).reshape(*scales.shape[:2], 128)
    return (np.rint(groups / scales) * np.asarray(scales, np.float64)).reshape(weight.shape)


class Reference:
    def __init__(self, config, weights):
        self.config = config
        self.margin = np.inf  # of all roundings: how near one was to a tie, in parts of the rounded number (at least 1)
        self.weights = {}
        for name, w in weights.items():
            scales = weights.get(name.removesuffix("weight") + "weight_quantizer.scales")
            spiking = name.endswith(".weight") and scales is not None and ".down_proj." not in name
            self.weights[name] = rounded_weight(w, scales) if spiking else np.asarray(w, dtype=np.float64)
        self.spiking = any(name.endswith(".scales") for name in weights)

    def rounded(self, x, step):
        count = np.rint(x / step)
        self.margin = min(self.margin, np.min((0.5 - np.abs(x / step - count)) / np.maximum(np.abs(count), 1)))
        return count * step

    def spikes(self, x):
        k = self.config.get("dynamic_sfr", 3.0)
        return self.rounded(x, np.clip(np.mean(np.abs(x), axis=-1, keepdims=True) / k, 1e-5, 1e4))

    def int8(self, x):
        return self.rounded(x, np.maximum(np.max(np.abs(x), axis=-1, keepdims=True) / 127, 1e-5))

    def linear(self, name, x):
        if self.spiking and not name.endswith("down_proj"):
            x = self.spikes(x)
        out = x @ self.weights[name + ".weight"].T
        return out + self.weights[name + ".bias"] if name + ".bias" in self.weights else out

    def norm(self, name, x):
        return rms_norm(x, self.weights[name + ".weight"], self.config["norm_eps"])

    def gate(self, attn, x):
        if attn + ".gk_proj.weight" in self.weights:
            return self.linear(attn + ".gk_proj", x)
        return self.linear(attn + ".gk_proj.1", self.linear(attn + ".gk_proj.0", x))

    def attention(self, layer, x):
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        d = self.config["hidden_size"] // heads
        attn = f"model.layers.{layer}.attn"
        q = self.linear(attn + ".q_proj", x).reshape(-1, heads, d)
        k, v = (self.linear(f"{attn}.{name}_proj", x).reshape(-1, kv_heads, d) for name in "kv")
        if layer % 2 == 1:
            base = self.config["rope_theta"]
            q, k = rotate(q, base), rotate(k, base)
            if self.spiking:
                q, k, v = self.spikes(q), self.int8(k), self.int8(v)
            out = window_attention(q, k, v, self.config["sliding_window"] + 1)
        else:
            a = log_sigmoid(self.gate(attn, x)).reshape(-1, kv_heads, d) / GATE_NORMALIZER
            out = gated_linear_attention(np.maximum(q, 0), np.maximum(k, 0), v, a)
            out = self.norm(attn + ".g_norm", out)
        return self.linear(attn + ".o_proj", out.reshape(-1, heads * d))

    def logits(self, ids):
        """Returns [tokens, vocabulary]: the logits after every token."""
        x = self.weights["model.embeddings.weight"][np.asarray(ids)]
        for layer in range(self.config["num_hidden_layers"]):
            block = f"model.layers.{layer}"
            x = x + self.attention(layer, self.norm(block + ".attn_norm", x))
            u = self.norm(block + ".mlp_norm", x)
            hidden = silu(self.linear(block + ".mlp.gate_proj", u)) * self.linear(block + ".mlp.up_proj", u)
            x = x + self.linear(block + ".mlp.down_proj", hidden)
        return self.norm("model.norm", x) @ self.weights["lm_head.weight"].T


def read_safetensors(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    out = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = data[8 + size + begin:8 + size + end]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
        out[name] = values.reshape(entry["shape"])
    return out


def read_torch(path):
    import torch
    return {name: tensor.double().numpy() for name, tensor in torch.load(path, weights_only=True).items()}


def read_folder(folder):
    """Returns (config, weights)."""
    folder = pathlib.Path(folder)
    weights = {}
    for path in sorted(folder.glob("*.safetensors")):
        weights.update(read_safetensors(path))
    for path in [] if weights else sorted(folder.glob("pytorch_model*.bin")):
        weights.update(read_torch(path))
    if not weights:
        raise SystemExit(f"{folder} holds no model*.safetensors and no pytorch_model*.bin")
    return json.loads((folder / "config.json").read_text()), weights


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--ids", required=True, help="token ids, separated by commas")
    parser.add_argument("--out", type=pathlib.Path, help="write the logits as float32 [tokens, vocabulary]")
    args = parser.parse_args()
    config, weights = read_folder(args.folder)
    logits = Reference(config, weights).logits([int(i) for i in args.ids.split(",")])
    if args.out:
        logits.astype("<f4").tofile(args.out)
    for t, row in enumerate(logits):
        best = np.argsort(-row)[:5]
        print(t, " ".join(f"{i}:{row[i]:.5f}" for i in best))


if __name__ == "__main__":
    main()
