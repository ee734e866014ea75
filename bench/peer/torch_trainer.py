"""The peer of bench/train_speed.py: the same model in eager PyTorch, as one would write it there without kernels of one's own.

Reads commands from standard input, one a line, as bench/train_speed.cpp does: "load DIR" takes parameters and batch saved by that
program, "steps N" trains. Gated linear attention is either chunked (matrix products over chunks of 64, keys divided by the decays
since the chunk's start: the fastest form, though not one that survives gates that shut) or the loop over tokens. Windows are
torch's scaled_dot_product_attention with a mask; AdamW is its fused one; autocast rounds to bf16 where --bf16 asks for it.
"""
import argparse
import json
import pathlib
import sys
import time

import torch
import torch.nn.functional as F


def norm(x, weight):
    return F.rms_norm(x, weight.shape, weight, 1e-5)


class Model:
    def __init__(self, config, args):
        self.config, self.args = config, args
        length, half = args.length, config["head_dim"] // 2
        angle = torch.outer(torch.arange(length).float(), 10000.0 ** (-torch.arange(half).float() / half))
        self.cos, self.sin = angle.cos(), angle.sin()
        i = torch.arange(length)
        self.tri = torch.tril(torch.ones(64, 64))
        self.seen = (i[None, :] <= i[:, None]) & (i[None, :] > i[:, None] - config["window"]) if config["window"] else None

    def load(self, folder):
        folder = pathlib.Path(folder)
        self.weights = {}
        for number, entry in enumerate(json.loads((folder / "names.json").read_text())):
            data = bytearray((folder / f"{number}.f32").read_bytes())
            value = torch.frombuffer(data, dtype=torch.float32).view(entry["shape"]).clone()
            self.weights[entry["name"]] = value.requires_grad_(True)
        self.tokens = torch.frombuffer(bytearray((folder / "tokens.i64").read_bytes()), dtype=torch.int64).view(self.args.batch, self.args.length)
        self.targets = self.tokens.roll(-1, 1)
        matrices = [w for n, w in self.weights.items() if w.dim() == 2]
        others = [w for n, w in self.weights.items() if w.dim() != 2]
        self.optimiser = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                                           lr=1e-3, betas=(0.9, 0.95), fused=True)

    def rotate(self, x):
        a, b = x.chunk(2, -1)
        return torch.cat([a * self.cos - b * self.sin, a * self.sin + b * self.cos], -1)

    def heads(self, x, count):
        return x.view(x.shape[0], x.shape[1], count, -1).transpose(1, 2)

    def softmax_mixer(self, w, x):
        c = self.config
        q = self.rotate(self.heads(F.linear(x, w("attn_q.weight")), c["heads"]))
        k = self.rotate(self.heads(F.linear(x, w("attn_k.weight")), c["kv_heads"]))
        v = self.heads(F.linear(x, w("attn_v.weight")), c["kv_heads"])
        group = c["heads"] // c["kv_heads"]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, attn_mask=self.seen, is_causal=self.seen is None)
        return F.linear(out.transpose(1, 2).flatten(2), w("attn_output.weight"))

    def gla_mixer(self, w, x):
        c = self.config
        kv, group = c["kv_heads"], c["heads"] // c["kv_heads"]
        q = F.relu(F.linear(x, w("attn_q.weight")))
        k = F.relu(F.linear(x, w("attn_k.weight")))
        v = F.linear(x, w("attn_v.weight"))
        gate = F.linear(F.linear(x, w("attn_gate_a.weight")), w("attn_gate_b.weight"), w("attn_gate_b.bias"))
        decay = F.logsigmoid(gate.float()) / 16
        q = q.view(*q.shape[:2], kv, group, -1).permute(0, 2, 3, 1, 4) * c["head_dim"] ** -0.5
        k, v, decay = self.heads(k, kv), self.heads(v, kv), self.heads(decay, kv)
        out = self.loop(q.float(), k.float(), v.float(), decay) if self.args.form == "loop" else self.chunks(q, k, v, decay)
        out = norm(out, w("attn_out_norm.weight"))
        return F.linear(out.permute(0, 3, 1, 2, 4).flatten(2), w("attn_output.weight"))

    def loop(self, q, k, v, decay):
        state = k.new_zeros(*k.shape[:2], k.shape[3], v.shape[3])
        factor, out = decay.exp(), []
        for t in range(k.shape[2]):
            state = factor[:, :, t, :, None] * state + k[:, :, t, :, None] * v[:, :, t, None, :]
            out.append(q[:, :, :, t] @ state)
        return torch.stack(out, 3)

    def chunks(self, q, k, v, decay, size=64):
        batch, kv, group, length, dim = q.shape
        n = length // size
        b = decay.view(batch, kv, n, size, dim).cumsum(3)
        total = b[:, :, :, -1:]
        k, v = k.reshape(batch, kv, n, size, dim), v.reshape(batch, kv, n, size, dim)
        q = q.reshape(batch, kv, group, n, size, dim) * b.exp()[:, :, None]
        near, far = k * (-b).exp(), k * (total - b).exp()
        updates, factor = far.transpose(3, 4) @ v, total.exp().transpose(3, 4)
        state, states = torch.zeros_like(updates[:, :, 0]), []
        for i in range(n):
            states.append(state)
            state = factor[:, :, i] * state + updates[:, :, i]
        q = q.permute(0, 1, 3, 2, 4, 5).reshape(batch, kv, n, group * size, dim)
        scores = (q @ near.transpose(3, 4)).view(batch, kv, n, group, size, size) * self.tri
        out = scores.view(batch, kv, n, group * size, size).to(v.dtype) @ v + q @ torch.stack(states, 2).to(q.dtype)
        return out.view(batch, kv, n, group, size, dim).permute(0, 1, 3, 2, 4, 5).reshape(batch, kv, group, length, dim)

    def loss(self):
        x = F.embedding(self.tokens, self.weights["token_embd.weight"])
        for i, kind in enumerate(self.config["layers"]):
            w = lambda name, i=i: self.weights[f"blk.{i}.{name}"]
            mixer = self.gla_mixer if kind == "gla" else self.softmax_mixer
            x = x + mixer(w, norm(x, w("attn_norm.weight")))
            h = norm(x, w("ffn_norm.weight"))
            x = x + F.linear(F.silu(F.linear(h, w("ffn_gate.weight"))) * F.linear(h, w("ffn_up.weight")), w("ffn_down.weight"))
        x = norm(x, self.weights["output_norm.weight"])
        logits = F.linear(x, self.weights["token_embd.weight"])
        return F.cross_entropy(logits.float().flatten(0, 1), self.targets.flatten())

    def step(self):
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
            loss = self.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0, foreach=True)
        self.optimiser.step()
        return loss.item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True, help="JSON: heads, kv_heads, head_dim, window, layers (kinds)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--form", choices=["chunks", "loop"], default="chunks")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = Model(json.loads(args.config), args)
    for line in sys.stdin:
        command, value = line.split()
        if command == "load":
            model.load(value)
            answer = {"torch": torch.__version__}
        else:
            start = time.perf_counter()
            losses = [model.step() for _ in range(int(value))]
            answer = {"losses": losses, "seconds": time.perf_counter() - start}
        print(json.dumps(answer), flush=True)


main()
