#!/usr/bin/env python3
"""Writes tests/data/sampling_golden.json: tokens that the sampler of mneme/sampling.h must choose.

A plain reference in float64 NumPy: full sorts, no shortcuts, written from the definitions in the header. It shares
nothing with the C++ code except NumPy's PCG64 stream, by which both draw, and which also makes the logits:
logit[i] = float32(scale * (u0 + u1 + u2 - 1.5)) with three draws an entry.

    python3 tools/make_sampling_golden.py        # needs numpy
"""
import json
import pathlib

import numpy as np

DEFAULTS = dict(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, typical_p=1.0, repetition_penalty=1.0,
                frequency_penalty=0.0, presence_penalty=0.0, penalty_window=64, seed=0, logit_bias=[])


def make_logits(vocab, seed, scale):
    u = np.random.Generator(np.random.PCG64(seed)).random((vocab, 3))
    return (scale * (((u[:, 0] + u[:, 1]) + u[:, 2]) - 1.5)).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def adjust(logits, history, o):
    x = logits.copy()
    for token, bias in o["logit_bias"]:
        x[token] = np.float32(x[token] + np.float32(bias))
    window = o["penalty_window"]
    recent = history if window < 0 else history[len(history) - min(window, len(history)):]
    for token in set(recent):
        count, v = recent.count(token), float(x[token])
        v = v / o["repetition_penalty"] if v > 0 else v * o["repetition_penalty"]
        x[token] = np.float32(v - (count * o["frequency_penalty"] + o["presence_penalty"]))
    return x


def survivors(x, o):
    """Ids that are left, after each step in the header's order."""
    ids = np.flatnonzero(x > -np.inf)
    ids = ids[np.lexsort((ids, -x[ids].astype(np.float64)))]  # best first, lower id first among equals
    if o["top_k"] > 0:
        ids = ids[:o["top_k"]]
    if o["typical_p"] < 1:
        p = softmax(x[ids].astype(np.float64))
        p = np.maximum(p, 1e-300)
        entropy = -(p * np.log(p)).sum()
        near = np.argsort(np.abs(-np.log(p) - entropy), kind="stable")
        needed = int(np.searchsorted(np.cumsum(p[near]), o["typical_p"])) + 1
        ids = ids[np.sort(near[:needed])]
    if o["top_p"] < 1:
        p = softmax(x[ids].astype(np.float64))
        ids = ids[:max(1, int(np.searchsorted(np.cumsum(p), o["top_p"])) + 1)]
    if o["min_p"] > 0:
        p = softmax(x[ids].astype(np.float64))
        ids = ids[p >= o["min_p"] * p.max()]
    return np.sort(ids)


def sample(x, o, random):
    if o["temperature"] == 0:
        return int(np.argmax(x))
    ids = survivors(x, o)
    p = softmax(x[ids].astype(np.float64) / o["temperature"])
    return int(ids[min(int(np.searchsorted(np.cumsum(p), random.random(), side="right")), len(ids) - 1)])


def run(case):
    o = DEFAULTS | case["options"]
    logits = make_logits(case["vocab"], case["logit_seed"], case["scale"])
    random = np.random.Generator(np.random.PCG64(o["seed"]))
    history = list(case["history"])
    tokens = []
    for _ in range(case["draws"]):
        tokens.append(sample(adjust(logits, history, o), o, random))
        history.append(tokens[-1])
    return tokens


def cases():
    rng = np.random.Generator(np.random.PCG64(20260101))
    single = [{}, {"temperature": 0}, {"top_k": 0}, {"top_k": 1}, {"top_p": 0.3, "top_k": 0, "min_p": 0}, {"top_p": 0},
              {"top_p": 1, "min_p": 0, "top_k": 0}, {"min_p": 0.4}, {"typical_p": 0.2}, {"typical_p": 0.7, "top_k": 0},
              {"temperature": 3.0, "top_k": 0, "top_p": 1}, {"repetition_penalty": 1.4, "temperature": 0},
              {"frequency_penalty": 0.9, "temperature": 0}, {"presence_penalty": 1.5, "temperature": 0},
              {"repetition_penalty": 1.3, "penalty_window": 3}, {"repetition_penalty": 1.3, "penalty_window": -1},
              {"presence_penalty": 2.0, "penalty_window": 0}, {"logit_bias": [[3, 100.0]]},
              {"logit_bias": [[3, 6.0], [5, -2.5], [3, -1.0]], "top_k": 5}]
    for i, options in enumerate(single):
        yield dict(vocab=500, logit_seed=100 + i, scale=8.0, options=options | {"seed": i}, draws=12,
                   history=rng.integers(0, 500, 20).tolist())
    for i in range(60):
        options = {"temperature": float(rng.choice([0.1, 0.7, 1.0, 2.0])), "top_k": int(rng.choice([0, 2, 20, 300])),
                   "top_p": float(rng.choice([0.1, 0.5, 0.9, 0.99, 1.0])), "min_p": float(rng.choice([0, 0.01, 0.1])),
                   "typical_p": float(rng.choice([0.3, 0.9, 1.0])),
                   "repetition_penalty": float(rng.choice([1.0, 1.1, 0.9])),
                   "frequency_penalty": float(rng.choice([0.0, 0.2])),
                   "presence_penalty": float(rng.choice([0.0, 0.5, -0.5])),
                   "penalty_window": int(rng.choice([-1, 0, 2, 64])), "seed": int(rng.integers(0, 2**63))}
        vocab = int(rng.choice([1, 2, 33, 1000, 5000]))
        yield dict(vocab=vocab, logit_seed=1000 + i, scale=float(rng.choice([1.0, 6.0, 20.0])), options=options,
                   draws=8, history=rng.integers(0, vocab, int(rng.integers(0, 90))).tolist())


def main():
    out = [case | {"tokens": run(case)} for case in cases()]
    path = pathlib.Path(__file__).parent.parent / "tests" / "data" / "sampling_golden.json"
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in out) + "\n]\n")
    print(f"{path}: {len(out)} cases, {sum(len(case['tokens']) for case in out)} tokens")


if __name__ == "__main__":
    main()
