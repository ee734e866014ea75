#!/usr/bin/env python3
"""Models with every kind of mixer and of feed-forward, computed in float64 with nothing but numpy: the oracle of the engine's mixers.

    tools/mixer_reference.py tests/data/mixers            makes the tiny checkpoints and their golden logits
    tools/mixer_reference.py --logits FOLDER --ids 3,1,4  logits of any checkpoint with a "mneme_config" (an array, JSON)

A checkpoint is a Hugging Face folder: config.json with the object "mneme_config" (docs/config.md) and model.safetensors.
Beside it stand golden.json ({"ids", "shape", "logits"; "decode" where decode differs}) and float32 files with the logits
after every position. The code follows the definitions, position by position and without caches: attention is a mask, a
recurrence is a loop. It shares nothing with the engine, not even the reading of the config.
"""
import argparse
import json
import pathlib
import struct
import sys

import numpy as np

VOCAB, D, HIDDEN, HEAD_DIM = 64, 32, 64, 16


# --- checkpoints ------------------------------------------------------------------------------------------------------
def to_bf16(values):
    """float32 -> bits of BF16, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def save_safetensors(path, tensors):
    header, blobs, at = {}, [], 0
    for name, values in tensors.items():
        blob = to_bf16(values).tobytes()
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def load_safetensors(path):
    raw = path.read_bytes()
    size, = struct.unpack_from("<Q", raw)
    out = {}
    for name, info in json.loads(raw[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        blob = raw[8 + size + begin:8 + size + end]
        if info["dtype"] == "BF16":
            values = (np.frombuffer(blob, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(blob, {"F16": np.float16, "F32": np.float32}[info["dtype"]])
        out[name] = values.astype(np.float64).reshape(info["shape"])
    return out


def load(folder):
    config = json.loads((folder / "config.json").read_text())["mneme_config"]
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_safetensors(file))
    return config, tensors


# --- the parts --------------------------------------------------------------------------------------------------------
def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def silu(x):
    return x * sigmoid(x)


FEATURES = {"relu": lambda x: np.maximum(x, 0), "sigmoid": sigmoid, "silu": silu, "identity": lambda x: x}


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rope(x, positions, config):
    """x: [positions, heads, head_dim]; plain RoPE without scaling."""
    if "scaling" in config:
        raise SystemExit("the reference knows RoPE without scaling")
    dims = config.get("dims", 0) or x.shape[-1]
    angle = positions[:, None] * config.get("base", 10000.0) ** (-np.arange(0, dims, 2) / dims)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    out = x.copy()
    half = config.get("style", "half") == "half"
    first = np.arange(dims // 2) if half else np.arange(0, dims, 2)
    second = first + (dims // 2 if half else 1)
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., second] * cos + x[..., first] * sin
    return out


class Weights:
    """Tensors of one mixer or layer, by the end of their name."""

    def __init__(self, tensors, prefix):
        self.tensors, self.prefix = tensors, prefix

    def __getitem__(self, name):
        return self.tensors[self.prefix + name]

    def linear(self, name, x):
        bias = self.tensors.get(f"{self.prefix}{name}.bias")
        y = x @ self[name + ".weight"].T
        return y if bias is None else y + bias


class Model:
    def __init__(self, config, tensors):
        self.config, self.tensors = config, tensors
        self.eps = config.get("norm", {}).get("eps", 1e-5)
        self.offset = config.get("norm", {}).get("weight_offset", 0.0)
        self.layers = []
        for entry in config["layers"]:
            self.layers += [self.merged(entry)] * entry.get("repeat", 1)

    def merged(self, entry):
        defaults, layer = self.config.get("defaults", {}), {}
        for key in ("mixer", "ffn"):
            layer[key] = {**defaults.get(key, {}), **entry.get(key, {})}
        base = {k: v for k, v in defaults.get("mixer", {}).items() if k not in ("type", "of", "weights", "learned")}
        if "of" in entry.get("mixer", {}):
            layer["mixer"]["of"] = [{**base, **branch} for branch in entry["mixer"]["of"]]
        return layer

    def norm(self, x, weight):
        return rms_norm(x, weight + self.offset, self.eps)

    def logits(self, ids, decode=False):
        """Logits after every token [ids, vocab]. `decode`: as if every token were a pass of its own."""
        sinks = self.config.get("sink_tokens", 0)
        x = self.tensors["model.embed_tokens.weight"][ids] * self.config.get("embedding_scale", 1.0)
        if sinks:
            x = np.concatenate([self.tensors["model.sink_embeddings.weight"], x])
        for number, layer in enumerate(self.layers):
            weights = Weights(self.tensors, f"model.layers.{number}.")
            x = x + self.mixer(layer["mixer"], weights, self.norm(x, weights["input_layernorm.weight"]), decode)
            h = self.norm(x, weights["post_attention_layernorm.weight"])
            x = x + (self.experts(layer["ffn"], weights, h) if layer["ffn"].get("type") == "moe" else self.gated(weights, "mlp.", h))
        x = self.norm(x[sinks:], self.tensors["model.norm.weight"])
        head = self.tensors["model.embed_tokens.weight" if self.config.get("tied") else "lm_head.weight"]
        return x @ head.T

    def mixer(self, m, layer, h, decode):
        if m.get("type") != "parallel":
            return self.branch(m, Weights(layer.tensors, layer.prefix + "self_attn."), h, decode)
        scales = layer["mixer_weights"] if m.get("learned") else m.get("weights", [0.5, 0.5])
        out = 0
        for number, branch in enumerate(m["of"]):
            weights = Weights(layer.tensors, f"{layer.prefix}mixers.{number}.")
            out = out + scales[number] * self.norm(self.branch(branch, weights, h, decode), weights["norm.weight"])
        return out

    def branch(self, m, weights, h, decode):
        t = len(h)
        q = weights.linear("q_proj", h).reshape(t, m["heads"], m["head_dim"])
        k = weights.linear("k_proj", h).reshape(t, m["kv_heads"], m["head_dim"])
        v = weights.linear("v_proj", h).reshape(t, m["kv_heads"], m["head_dim"])
        scale = m.get("scale", 0) or m["head_dim"] ** -0.5
        kind = m.get("type", "full")
        if kind in ("gla", "delta"):
            out = (self.gla if kind == "gla" else self.delta)(m, weights, h, q, k, v) * scale
            if m.get("out_norm", True):
                out = self.norm(out, weights["out_norm.weight"])
        else:
            out = self.attention(m, weights, q, k, v, scale, decode)
        return weights.linear("o_proj", out.reshape(t, -1))

    def gated(self, weights, at, h):
        return weights.linear(at + "down_proj", silu(weights.linear(at + "gate_proj", h)) * weights.linear(at + "up_proj", h))

    # mixtures: token by token, expert by expert
    def experts(self, f, weights, h):
        out = np.zeros_like(h)
        logits = h @ weights["mlp.gate.weight"].T
        for t, x in enumerate(h):
            for expert, weight in self.routes(f, weights, logits[t]):
                out[t] += weight * self.gated(weights, f"mlp.experts.{expert}.", x[None])[0]
        if f.get("shared"):
            factor = sigmoid(h @ weights["mlp.shared_expert_gate.weight"])[:, None] if f.get("shared_gate") else 1.0
            out += factor * self.gated(weights, "mlp.shared_expert.", h)
        return out

    def routes(self, f, weights, logits):
        """[(expert, weight)] of one token, null experts left out."""
        count = f["experts"]
        scores = sigmoid(logits) if f.get("router") == "sigmoid" else np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        ranks = scores + (weights["mlp.gate.e_score_correction_bias"] if f.get("selection_bias") else 0.0)
        groups = f.get("groups", 1)
        if groups > 1:
            parts = np.sort(ranks.reshape(groups, -1), axis=1)
            value = parts[:, -1] + (parts[:, -2] if f.get("group_score") == "top_two" else 0.0)
            seen = set(sorted(range(groups), key=lambda g: (-value[g], g))[:f.get("top_groups", 1)])
            ranks = np.array([r if i // (count // groups) in seen else -np.inf for i, r in enumerate(ranks)])
        order = sorted(range(len(ranks)), key=lambda i: (-ranks[i], i))[:f["top_k"] + 1]
        if len(order) > f["top_k"]:
            self.route_margin = min(getattr(self, "route_margin", np.inf), ranks[order[-2]] - ranks[order[-1]])
        chosen, held = [], 0.0
        for i in order[:f["top_k"]]:
            chosen.append(i)
            held += scores[i]
            if f.get("top_p", 0) and held >= f["top_p"] * scores.sum():
                break
        kept = {i: scores[i] for i in chosen if i < count}
        total = sum(kept.values()) if f.get("renormalise", True) else 1.0
        return [(i, f.get("scale", 1.0) * score / total) for i, score in kept.items()]

    # softmax: which positions j a position i sees is a matrix
    def visible(self, m, t, decode):
        sinks, i, j = self.config.get("sink_tokens", 0), np.arange(t)[:, None], np.arange(t)[None, :]
        seen = j <= i
        if m.get("type") == "window":
            edge = m.get("edge", "exact")
            keys = m["window"] + (edge == "plus_one" or (edge == "plus_one_prefill" and not decode))
            seen &= (j > i - keys) | (j < sinks + m.get("sinks", 0))
        return np.where(i < sinks, j < sinks, seen | (j < sinks))

    def attention(self, m, weights, q, k, v, scale, decode):
        t, heads = len(q), m["heads"]
        if m.get("qk_norm"):
            whole = (t, -1) if m.get("qk_norm_over") == "all" else (t, -1, m["head_dim"])
            q = self.norm(q.reshape(whole), weights["q_norm.weight"]).reshape(q.shape)
            k = self.norm(k.reshape(whole), weights["k_norm.weight"]).reshape(k.shape)
        turn = m.get("rope") or self.config.get("rope", {})
        q, k = rope(q, np.arange(t), turn), rope(k, np.arange(t), turn)
        seen, out = self.visible(m, t, decode), np.empty_like(q)
        for head in range(heads):
            kv = head * m["kv_heads"] // heads
            group = heads // m["kv_heads"]
            chooser = q[:, kv * group:(kv + 1) * group].sum(1) if m.get("shared") else q[:, head]
            mask = seen & self.chosen_blocks(m, chooser, k[:, kv]) if m.get("type") == "sparse" else seen
            scores = q[:, head] @ k[:, kv].T * scale
            if m.get("softcap"):
                scores = m["softcap"] * np.tanh(scores / m["softcap"])
            scores = np.where(mask, scores, -np.inf)
            top = scores.max(-1, keepdims=True)
            weight = np.exp(scores - top)
            total = weight.sum(-1, keepdims=True)
            if m.get("sink_logits"):
                total = total + np.exp(weights["sinks"][head] - top)
            out[:, head] = weight / total @ v[:, kv]
        return out

    def chosen_blocks(self, m, q, k):
        """MoBA: each query head sees its own block of keys and the top_k - 1 earlier ones whose mean key (after RoPE) has
        the largest product with the query. Sink tokens are visible anyway. Blocks count all positions, sinks included."""
        t, block, sinks = len(q), m.get("block", 512), self.config.get("sink_tokens", 0)
        mask = np.zeros((t, t), bool)
        means = [k[b:b + block].mean(0) for b in range(0, t, block)]
        for i in range(t):
            own = i // block
            scores = np.array([q[i] @ means[b] for b in range(own)])
            best = np.argsort(-scores)
            count = min(m.get("top_k", 64) - 1, own)
            if 0 < count < own:
                self.margin = min(getattr(self, "margin", np.inf), scores[best[count - 1]] - scores[best[count]])
            for b in [*best[:count], own]:
                mask[i, b * block:(b + 1) * block] = True
        mask[:, :sinks + m.get("sinks", 0)] = True
        return mask

    # recurrences: S [kv_heads, head_dim of k, head_dim of v]
    def gla(self, m, weights, h, q, k, v):
        feature = FEATURES[m.get("feature", "relu")]
        q, k = feature(q), feature(k)
        gate = m.get("gate", "low_rank")
        if gate == "tied":
            decay = 1 - k
        else:
            z = weights.linear("gate_a_proj", h)
            if gate == "low_rank":
                z = weights.linear("gate_b_proj", z)
            decay = np.exp(-softplus(-z) / m.get("gate_normalizer", 16.0)).reshape(k.shape)
        group, out = m["heads"] // m["kv_heads"], np.empty_like(q)
        state = np.zeros((m["kv_heads"], m["head_dim"], m["head_dim"]))
        for i in range(len(h)):
            state = decay[i][:, :, None] * state + k[i][:, :, None] * v[i][:, None, :]
            out[i] = np.einsum("hk,hkv->hv", q[i], np.repeat(state, group, axis=0))
        return out

    def delta(self, m, weights, h, q, k, v):
        feature = FEATURES[m.get("feature", "silu")]
        q, k = (x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6) for x in (feature(q), feature(k)))
        beta = sigmoid(h @ weights["beta_proj.weight"].T)
        decay = np.exp(-np.exp(weights["A_log"]) * softplus(h @ weights["decay_proj.weight"].T + weights["dt_bias"]))
        group, out = m["heads"] // m["kv_heads"], np.empty_like(q)
        state = np.zeros((m["kv_heads"], m["head_dim"], m["head_dim"]))
        for i in range(len(h)):
            state = decay[i][:, None, None] * state
            u = beta[i][:, None] * (v[i] - np.einsum("hkv,hk->hv", state, k[i]))
            state = state + k[i][:, :, None] * u[:, None, :]
            out[i] = np.einsum("hk,hkv->hv", q[i], np.repeat(state, group, axis=0))
        return out


# --- tiny checkpoints -------------------------------------------------------------------------------------------------
def mixer(kind, **fields):
    return {"type": kind, "heads": 2, "kv_heads": 1, "head_dim": HEAD_DIM, **fields}


def parallel(first, second, **fields):
    return {"type": "parallel", "of": [first, second], **fields}


def moe(experts, top_k, **fields):
    return {"type": "moe", "hidden": 32, "experts": experts, "top_k": top_k, **fields}


DENSE = {"hidden": HIDDEN}
WINDOW, GLA = mixer("window", window=8), mixer("gla")
# name: (layers' mixers, positions, fields of the model, feed-forwards if not all are dense)
MODELS = {
    "window_exact": ([mixer("window", window=8, sinks=2), WINDOW], 40, {}),
    "window_plus_one": ([mixer("window", window=8, edge="plus_one"), mixer("window", window=9, edge="plus_one", sinks=1, sink_logits=True)], 40, {}),
    "window_plus_one_prefill": ([mixer("window", window=8, edge="plus_one_prefill")] * 2, 40, {}),
    "gla_low_rank": ([mixer("gla", qkv_bias=True), mixer("gla", gate_rank=5, gate_normalizer=2.0, feature="silu", o_bias=True)], 40, {}),
    "gla_matrix": ([mixer("gla", gate="matrix", feature="identity"), mixer("gla", gate="matrix", kv_heads=2, scale=0.7, out_norm=False)], 40, {}),
    "gla_tied": ([mixer("gla", gate="tied", feature="sigmoid"), mixer("gla", gate="tied", feature="sigmoid", head_dim=24, heads=3)], 40, {}),
    "delta": ([mixer("delta"), mixer("delta", feature="relu", kv_heads=2, heads=4, qkv_bias=True)], 40, {}),
    "sparse": ([mixer("sparse", block=64, top_k=2), mixer("sparse", block=64, top_k=3, qk_norm=True, heads=4, kv_heads=2)], 330, {}),
    "hybrid": ([mixer("gla", qkv_bias=True), WINDOW, mixer("gla"), mixer("full", qk_norm=True)], 40, {"norm": {"eps": 1e-6, "weight_offset": 1.0}}),
    "parallel": ([parallel(WINDOW, GLA), parallel(mixer("delta", o_bias=True), mixer("full", heads=4, kv_heads=2, qkv_bias=True), learned=True),
                  parallel(mixer("window", window=5, edge="plus_one"), mixer("gla", gate="tied", feature="sigmoid"), weights=[0.75, -1.5])], 40, {}),
    "parallel_softmax": ([parallel(WINDOW, mixer("full", heads=4, kv_heads=2, qkv_bias=True)),
                          parallel(mixer("full", head_dim=24), mixer("window", window=5, edge="plus_one", o_bias=True), learned=True), mixer("full")], 40,
                         {"norm": {"eps": 1e-6, "weight_offset": 1.0}}),
    "sinks": ([mixer("full"), mixer("window", window=8, sinks=2), mixer("window", window=4, edge="plus_one"), mixer("full", qk_norm=True, softcap=5.0)], 40,
              {"sink_tokens": 5}),
    "sinks_hybrid": ([GLA, mixer("window", window=8), mixer("delta"), parallel(WINDOW, GLA)], 40, {"sink_tokens": 3}),
    "sparse_shared": ([mixer("sparse", block=64, top_k=2, shared=True, heads=4, kv_heads=2),
                       mixer("sparse", block=64, top_k=2, shared=True, sinks=3, qk_norm=True)], 280, {}),
    "sparse_sinks": ([mixer("sparse", block=64, top_k=2, sinks=70), mixer("sparse", block=64, top_k=2, sinks=3, shared=True)], 280,
                     {"sink_tokens": 5}),
    "moe_softmax": ([mixer("full"), WINDOW, GLA, mixer("full", heads=4, kv_heads=2, qk_norm=True, qk_norm_over="all")], 40, {},
                    [moe(6, 2), DENSE, moe(5, 3, renormalise=False, scale=1.5, shared=1, shared_hidden=48, shared_gate=True), moe(4, 4)]),
    "moe_sigmoid": ([mixer("full")] * 3, 40, {},
                    [moe(8, 3, router="sigmoid", selection_bias=True, groups=4, top_groups=2, group_score="top_two", scale=2.5, shared=2),
                     moe(8, 2, groups=4, top_groups=2, renormalise=False), moe(3, 1, router="sigmoid", renormalise=False)]),
    "moe_adaptive": ([mixer("full"), WINDOW, mixer("delta")], 40, {"sink_tokens": 3},
                     [moe(5, 4, null_experts=4), moe(6, 5, top_p=0.55, renormalise=False), moe(4, 3, null_experts=2, top_p=0.7, router="sigmoid", shared=1)]),
}


def mixer_shapes(m, prefix):
    q, kv = m["heads"] * m["head_dim"], m["kv_heads"] * m["head_dim"]
    yield prefix + "q_proj.weight", (q, D)
    yield prefix + "k_proj.weight", (kv, D)
    yield prefix + "v_proj.weight", (kv, D)
    if m.get("qkv_bias"):
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            yield f"{prefix}{name}_proj.bias", (rows,)
    if m.get("qk_norm"):
        whole = m.get("qk_norm_over") == "all"
        yield prefix + "q_norm.weight", (q if whole else m["head_dim"],)
        yield prefix + "k_norm.weight", (kv if whole else m["head_dim"],)
    if m.get("sink_logits"):
        yield prefix + "sinks", (m["heads"],)
    gate = m.get("gate", "low_rank") if m["type"] == "gla" else None
    if gate == "low_rank":
        rank = m.get("gate_rank", 16)
        yield prefix + "gate_a_proj.weight", (rank, D)
        yield prefix + "gate_b_proj.weight", (kv, rank)
        yield prefix + "gate_b_proj.bias", (kv,)
    if gate == "matrix":
        yield prefix + "gate_a_proj.weight", (kv, D)
        yield prefix + "gate_a_proj.bias", (kv,)
    if m["type"] == "delta":
        yield prefix + "decay_proj.weight", (m["kv_heads"], D)
        yield prefix + "beta_proj.weight", (m["kv_heads"], D)
        yield prefix + "A_log", (m["kv_heads"],)
        yield prefix + "dt_bias", (m["kv_heads"],)
    if m["type"] in ("gla", "delta") and m.get("out_norm", True):
        yield prefix + "out_norm.weight", (m["head_dim"],)
    yield prefix + "o_proj.weight", (D, q)
    if m.get("o_bias"):
        yield prefix + "o_proj.bias", (D,)


def ffn_shapes(f, at):
    def gated(prefix, width):
        yield prefix + "gate_proj.weight", (width, D)
        yield prefix + "up_proj.weight", (width, D)
        yield prefix + "down_proj.weight", (D, width)

    if f.get("type") != "moe":
        yield from gated(at, f["hidden"])
        return
    choices = f["experts"] + f.get("null_experts", 0)
    yield at + "gate.weight", (choices, D)
    if f.get("selection_bias"):
        yield at + "gate.e_score_correction_bias", (choices,)
    for expert in range(f["experts"]):
        yield from gated(f"{at}experts.{expert}.", f["hidden"])
    if f.get("shared"):
        yield from gated(at + "shared_expert.", f["shared"] * f.get("shared_hidden", f["hidden"]))
    if f.get("shared_gate"):
        yield at + "shared_expert_gate.weight", (D,)


def shapes(config):
    yield "model.embed_tokens.weight", (VOCAB, D)
    if config.get("sink_tokens"):
        yield "model.sink_embeddings.weight", (config["sink_tokens"], D)
    for number, layer in enumerate(config["layers"]):
        at, m = f"model.layers.{number}.", layer["mixer"]
        yield at + "input_layernorm.weight", (D,)
        if m["type"] == "parallel":
            for b, branch in enumerate(m["of"]):
                yield from mixer_shapes(branch, f"{at}mixers.{b}.")
                yield f"{at}mixers.{b}.norm.weight", (D,)
            if m.get("learned"):
                yield at + "mixer_weights", (2,)
        else:
            yield from mixer_shapes(m, at + "self_attn.")
        yield at + "post_attention_layernorm.weight", (D,)
        yield from ffn_shapes(layer["ffn"], at + "mlp.")
    yield "model.norm.weight", (D,)
    yield "lm_head.weight", (VOCAB, D)


def random_tensor(rng, name, shape, offset):
    """At a scale at which every part matters: attention is not uniform, gates are neither open nor closed."""
    noise = rng.standard_normal(shape)
    if name.endswith("norm.weight") or name.endswith("layernorm.weight"):
        return 1 - offset + 0.3 * noise
    if name.endswith("gate_b_proj.bias") or name.endswith("gate_a_proj.bias"):
        return 2.0 * noise
    if len(shape) == 1:
        return 0.5 * noise
    if "embed" in name or "lm_head" in name:
        return 0.3 * noise
    return noise * 1.5 / shape[1] ** 0.5


def make(folder, name, seed):
    mixers, positions, fields, *ffns = MODELS[name]
    ffns = ffns[0] if ffns else [DENSE] * len(mixers)
    rng = np.random.default_rng(seed)
    config = {"mneme": 1, "name": name, "d_model": D, "vocab": VOCAB, "context": 4096, "norm": {"eps": 1e-6}, "rope": {"base": 1000.0}, **fields,
              "layers": [{"mixer": m, "ffn": f} for m, f in zip(mixers, ffns, strict=True)]}
    offset = config["norm"].get("weight_offset", 0.0)
    tensors = {key: random_tensor(rng, key, shape, offset).astype(np.float32) for key, shape in shapes(config)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "mneme", "torch_dtype": "bfloat16", "mneme_config": config}, indent=1) + "\n")
    save_safetensors(folder / "model.safetensors", tensors)

    model = Model(*load(folder))  # from here on only the files count
    ids = rng.integers(0, VOCAB, positions)
    logits, alone = model.logits(ids), model.logits(ids, decode=True)
    golden = {"ids": ids.tolist(), "shape": list(logits.shape), "logits": "golden.f32", "seed": seed}
    logits.astype("<f4").tofile(folder / "golden.f32")
    if not np.array_equal(logits, alone):
        golden["decode"] = "golden_decode.f32"
        alone.astype("<f4").tofile(folder / "golden_decode.f32")
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    margin = f"  smallest margin between blocks {model.margin:.1e}" if hasattr(model, "margin") else ""
    if hasattr(model, "route_margin"):
        margin += f"  smallest margin between experts {model.route_margin:.1e}"
    print(f"{name:25} {sum(f.stat().st_size for f in folder.iterdir()) / 1000:5.0f} kB  logits std {logits.std():.2f}{margin}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, nargs="?")
    parser.add_argument("--only", nargs="*", choices=MODELS)
    parser.add_argument("--logits", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--ids", default="")
    parser.add_argument("--decode", action="store_true", help="with --logits: every token a pass of its own")
    args = parser.parse_args()
    if args.logits:
        ids = np.array([int(i) for i in args.ids.split(",")])
        return print(json.dumps(Model(*load(args.logits)).logits(ids, args.decode).tolist()))
    if not args.out:
        parser.error("name a folder to write to, or --logits")
    for number, name in enumerate(MODELS):
        if not args.only or name in args.only:
            make(args.out / name, name, seed=2000 + number)


if __name__ == "__main__":
    sys.exit(main())
