#!/usr/bin/env python3
"""Losses and gradients of the tiny checkpoints, by PyTorch in float64: what tests/train/blocks/reference_test.cpp compares the trainer with.

  python3 tools/train_reference.py tests/data

Reads models/* (differentiated through transformers), mixers/* (through the definitions below, position by position: attention is
a mask, a recurrence is a loop) and engram/model_golden.* (the Llama with two modules), and writes train/gradients.json. The loss is
the mean cross-entropy of each next token of the ids in golden.json. Of each gradient the file has what tells it from a wrong one: its
norm and its products with three fixed vectors, v_k[i] = cos(0.37 (k + 1) i + k). Needs torch, transformers, tokenizers, numpy.
"""
import json
import pathlib
import sys

import numpy as np
import torch
import transformers

import engram_reference
import engram_token_map_reference
import make_engram_model_golden as engram_golden
import mixer_reference

PROJECTIONS = 3
MODELS = ["llama", "llama3", "llama_linear", "llama_yarn", "mistral", "qwen2", "qwen3", "gemma3", "gemma3_pattern"]


def summary(gradient):
    flat = gradient.detach().double().flatten()
    i = torch.arange(len(flat), dtype=torch.float64)
    return [flat.norm().item()] + [(flat * torch.cos(0.37 * (k + 1) * i + k)).sum().item() for k in range(PROJECTIONS)]


def entry(loss, leaves):
    loss.backward()
    return {"loss": loss.item(), "gradients": {name: summary(leaf.grad) for name, leaf in leaves.items() if leaf.grad is not None}}


def next_token_loss(logits, ids):
    return torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]))


# --- transformers -----------------------------------------------------------------------------------------------------
def of_transformers(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    ids = json.loads((folder / "golden.json").read_text())["ids"]
    logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    return entry(next_token_loss(logits, ids), dict(model.named_parameters()))


# --- mixers, from their definitions -----------------------------------------------------------------------------------
FEATURES = {"relu": torch.relu, "sigmoid": torch.sigmoid, "silu": torch.nn.functional.silu, "identity": lambda x: x}


def rope(x, config):
    """x: [positions, heads, head_dim], in halves."""
    half = x.shape[-1] // 2
    angle = torch.arange(len(x), dtype=torch.float64)[:, None] * config.get("base", 10000.0) ** (-torch.arange(half) / half)
    cos, sin = torch.cos(angle)[:, None], torch.sin(angle)[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Mixers:
    def __init__(self, folder):
        config, tensors = mixer_reference.load(folder)
        shape = mixer_reference.Model(config, tensors)  # its merged config alone
        self.config, self.layers, self.eps, self.offset = config, shape.layers, shape.eps, shape.offset
        self.t = {name: torch.tensor(values, requires_grad=True) for name, values in tensors.items()}

    def norm(self, x, name):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.eps) * (self.t[name] + self.offset)

    def linear(self, name, x):
        return torch.nn.functional.linear(x, self.t[name + ".weight"], self.t.get(name + ".bias"))

    def logits(self, ids):
        sinks = self.config.get("sink_tokens", 0)
        x = self.t["model.embed_tokens.weight"][torch.tensor(ids)] * self.config.get("embedding_scale", 1.0)
        if sinks:
            x = torch.cat([self.t["model.sink_embeddings.weight"], x])
        for i, layer in enumerate(self.layers):
            at, m = f"model.layers.{i}.", layer["mixer"]
            h = self.norm(x, at + "input_layernorm.weight")
            if m["type"] == "parallel":
                scales = self.t[at + "mixer_weights"] if m.get("learned") else m.get("weights", [0.5, 0.5])
                for b, branch in enumerate(m["of"]):
                    x = x + scales[b] * self.norm(self.mixer(branch, f"{at}mixers.{b}.", h), f"{at}mixers.{b}.norm.weight")
            else:
                x = x + self.mixer(m, at + "self_attn.", h)
            h = self.norm(x, at + "post_attention_layernorm.weight")
            x = x + self.linear(at + "mlp.down_proj", torch.nn.functional.silu(self.linear(at + "mlp.gate_proj", h)) * self.linear(at + "mlp.up_proj", h))
        return self.norm(x[sinks:], "model.norm.weight") @ self.t["lm_head.weight"].T

    def mixer(self, m, at, h):
        heads = lambda name, count: self.linear(at + name, h).unflatten(-1, (count, m["head_dim"]))
        q, k, v = heads("q_proj", m["heads"]), heads("k_proj", m["kv_heads"]), heads("v_proj", m["kv_heads"])
        scale = m.get("scale", 0) or m["head_dim"] ** -0.5
        if m["type"] in ("gla", "delta"):
            out = (self.gla if m["type"] == "gla" else self.delta)(m, at, h, q, k, v) * scale
            if m.get("out_norm", True):
                out = self.norm(out, at + "out_norm.weight")
        else:
            out = self.attention(m, at, q, k, v, scale)
        return self.linear(at + "o_proj", out.flatten(1))

    def attention(self, m, at, q, k, v, scale):
        if m.get("qk_norm"):
            q, k = self.norm(q, at + "q_norm.weight"), self.norm(k, at + "k_norm.weight")
        turn = m.get("rope") or self.config.get("rope", {})
        q, k = rope(q, turn), rope(k, turn)
        n, sinks = len(q), self.config.get("sink_tokens", 0)
        i, j = torch.arange(n)[:, None], torch.arange(n)[None]
        seen = (j <= i).expand(m["heads"], n, n)
        if m["type"] == "window":
            seen = seen & ((j > i - m["window"] - int(m.get("edge", "exact") != "exact")) | (j < sinks + m.get("sinks", 0)))
        if m["type"] == "sparse":
            seen = seen & self.chosen(m, q, k)
        seen = torch.where(i < sinks, j < sinks, seen | (j < sinks))
        group = m["heads"] // m["kv_heads"]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        scores = torch.einsum("ihd,jhd->hij", q, k) * scale
        if m.get("softcap"):
            scores = m["softcap"] * torch.tanh(scores / m["softcap"])
        scores = scores.masked_fill(~seen, -torch.inf)
        if m.get("sink_logits"):
            scores = torch.cat([scores, self.t[at + "sinks"][:, None, None].expand(-1, n, 1)], -1)
        return torch.einsum("hij,jhd->ihd", scores.softmax(-1)[..., :n], v)

    def chosen(self, m, q, k):
        """MoBA, without shared choices and sinks: [heads, positions, positions]."""
        n, block, group = len(q), m["block"], m["heads"] // m["kv_heads"]
        mask = torch.zeros(m["heads"], n, n, dtype=torch.bool)
        with torch.no_grad():
            for head in range(m["heads"]):
                means = torch.stack([k[b:b + block, head // group].mean(0) for b in range(0, n, block)])
                for i in range(n):
                    own = i // block
                    best = torch.argsort(means[:own] @ q[i, head], descending=True)[:m["top_k"] - 1].tolist()
                    for b in best + [own]:
                        mask[head, i, b * block:(b + 1) * block] = True
        return mask

    def gla(self, m, at, h, q, k, v):
        feature = FEATURES[m.get("feature", "relu")]
        q, k = feature(q), feature(k)
        if m.get("gate", "low_rank") == "tied":
            decay = 1 - k
        else:
            z = self.linear(at + "gate_a_proj", h)
            if m.get("gate", "low_rank") == "low_rank":
                z = self.linear(at + "gate_b_proj", z)
            decay = torch.exp(torch.nn.functional.logsigmoid(z) / m.get("gate_normalizer", 16.0)).view_as(k)
        group, state, out = m["heads"] // m["kv_heads"], 0, []
        for i in range(len(h)):
            state = decay[i][:, :, None] * state + k[i][:, :, None] * v[i][:, None, :]
            out.append(torch.einsum("hk,hkv->hv", q[i], state.repeat_interleave(group, 0)))
        return torch.stack(out)

    def delta(self, m, at, h, q, k, v):
        feature = FEATURES[m.get("feature", "silu")]
        q, k = (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6) for x in (feature(q), feature(k)))
        beta = torch.sigmoid(self.linear(at + "beta_proj", h))
        decay = torch.exp(-torch.exp(self.t[at + "A_log"]) * torch.nn.functional.softplus(self.linear(at + "decay_proj", h) + self.t[at + "dt_bias"]))
        group, out = m["heads"] // m["kv_heads"], []
        state = torch.zeros(m["kv_heads"], m["head_dim"], m["head_dim"], dtype=torch.float64)
        for i in range(len(h)):
            state = decay[i][:, None, None] * state
            u = beta[i][:, None] * (v[i] - torch.einsum("hkv,hk->hv", state, k[i]))
            state = state + k[i][:, :, None] * u[:, None, :]
            out.append(torch.einsum("hk,hkv->hv", q[i], state.repeat_interleave(group, 0)))
        return torch.stack(out)


def of_mixers(folder):
    model = Mixers(folder)
    golden = json.loads((folder / "golden.json").read_text())
    logits = model.logits(golden["ids"])
    stored = np.fromfile(folder / golden["logits"], "<f4").reshape(golden["shape"])
    assert np.abs(logits.detach().numpy() - stored).max() < 1e-4, folder  # two references, one model
    return entry(next_token_loss(logits, golden["ids"]), model.t)


# --- Engram -----------------------------------------------------------------------------------------------------------
def of_engram(data):
    golden = json.loads((data / "engram" / "model_golden.json").read_text())
    values, at, leaves = np.fromfile(data / "engram" / "model_golden.f32", "<f4"), 0, {}
    for tensor in golden["tensors"]:
        size = int(np.prod(tensor["shape"]))
        leaves[tensor["name"]] = torch.tensor(values[at:at + size].reshape(tensor["shape"]), dtype=torch.float64, requires_grad=True)
        at += size
    want = leaves.pop("logits").detach()
    folder = data / "models" / "llama"
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    classes, _ = engram_token_map_reference.classes(str(folder / "tokenizer.json"))
    row_ids, _ = engram_reference.rows(golden["table"], [classes[i] for i in golden["ids"]])
    for place, config in enumerate(golden["modules"]):
        prefix = f"blk.{config['layer_id']}."
        tensors = {name[len(prefix):]: value for name, value in leaves.items() if name.startswith(prefix)}
        embedding = leaves["rows"][torch.tensor(row_ids[place])].reshape(len(golden["ids"]), -1)

        def before_layer(_, arguments, config=config, tensors=tensors, embedding=embedding):
            return (arguments[0] + engram_golden.module_output(config, tensors, embedding, arguments[0][0])[None],) + arguments[1:]

        model.model.layers[config["layer_id"]].register_forward_pre_hook(before_layer)
    logits = model(torch.tensor([golden["ids"]]), use_cache=False).logits[0]
    assert (logits - want).abs().max() < 1e-4
    return entry(next_token_loss(logits, golden["ids"]), {**dict(model.named_parameters()), **leaves})


def main(data):
    out = {"made_by": "tools/train_reference.py", "torch": torch.__version__, "transformers": transformers.__version__, "checkpoints": {}}
    for name in MODELS:
        out["checkpoints"][f"models/{name}"] = of_transformers(data / "models" / name)
    for name in mixer_reference.MODELS:
        out["checkpoints"][f"mixers/{name}"] = of_mixers(data / "mixers" / name)
    out["checkpoints"]["engram"] = of_engram(data)
    lines = json.dumps(out).replace('"mixers/', '\n"mixers/').replace('"models/', '\n"models/').replace('"engram": {"loss', '\n"engram": {"loss')
    (data / "train").mkdir(exist_ok=True)
    (data / "train" / "gradients.json").write_text(lines + "\n")
    print(f"{len(out['checkpoints'])} checkpoints, {len(lines) / 1000:.0f} kB")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
