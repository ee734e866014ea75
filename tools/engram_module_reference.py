#!/usr/bin/env python3
"""Reference of one Engram module in float64 (arXiv 2601.07372, section 2), written from the formulas and not from the
C++. Writes tests/data/engram_module/golden.safetensors: inputs, weights, and the residual streams after the module
for every combination of the config's switches, with one and with four branches.

    pip install numpy
    tools/engram_module_reference.py tests/data/engram_module/golden.safetensors
"""
import itertools
import json
import sys

import numpy as np

TOKENS, DIM, ROW_DIM = 12, 10, 24
CONVS = {"none": None, "4x3": (4, 3), "3x2": (3, 2)}  # kernel x dilation
GATE_EPS, CONV_EPS = 1e-6, 1e-5


def rms(x, eps):
    """x / sqrt(mean(x^2) + eps) over the last axis."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def signed_sqrt(g, sign_of_zero):
    sign = np.sign(g) if sign_of_zero == "zero" else np.copysign(1.0, g)
    return sign * np.sqrt(np.maximum(np.abs(g), 1e-6))


def causal_conv(x, kernel, dilation):
    """x: [tokens, channels], kernel: [channels, w]. out[t] = sum_j kernel[:, j] x[t - (w - 1 - j) dilation]."""
    tokens, width = len(x), kernel.shape[1]
    out = np.zeros_like(x)
    for t in range(tokens):
        for j in range(width):
            source = t - (width - 1 - j) * dilation
            if source >= 0:
                out[t] += kernel[:, j] * x[source]
    return out


def module(e, h, weights, root, sign_of_zero, bias, conv, offset):
    """e: [tokens, d_e]; h: [tokens, M, d]. Returns h + y."""
    tokens, branches, dim = h.shape
    kv = e @ weights["kv_proj"].T + (weights["kv_bias"] if bias else 0)
    k, v = kv[:, :branches * dim].reshape(tokens, branches, dim), kv[:, branches * dim:]
    key_norm = weights["key_norm"].reshape(branches, dim) + offset
    query_norm = weights["query_norm"].reshape(branches, dim) + offset
    g = np.sum(rms(k, GATE_EPS) * key_norm * (rms(h, GATE_EPS) * query_norm), axis=-1) / np.sqrt(dim)
    u = sigmoid(signed_sqrt(g, sign_of_zero) if root else g)[:, :, None] * v[:, None, :]
    if conv is None:
        return h + u
    width, dilation = conv
    normed = rms(u, CONV_EPS) * (weights["conv_norm"].reshape(branches, dim) + offset)
    z = causal_conv(normed.reshape(tokens, branches * dim), weights["conv"][:, -width:], dilation)
    return h + u + (z * sigmoid(z)).reshape(tokens, branches, dim)


def make(branches, rng):
    """Inputs and weights that are exact in float32."""
    def normal(*shape, scale=1.0):
        return np.asarray(rng.normal(0, scale, shape), np.float32).astype(np.float64)
    channels = branches * DIM
    weights = {"kv_proj": normal(channels + DIM, ROW_DIM, scale=ROW_DIM ** -0.5), "kv_bias": normal(channels + DIM, scale=0.3),
               "key_norm": normal(channels, scale=0.7), "query_norm": normal(channels, scale=0.7),
               "conv_norm": normal(channels, scale=0.7), "conv": normal(channels, 4, scale=0.5)}
    e, h = normal(TOKENS, ROW_DIM), normal(TOKENS, branches, DIM, scale=2.0)
    h[3] = 0  # g is exactly 0: the two rules for sign(0) differ
    e[5] = 0  # a key of zeros
    h[7] *= 1e-9  # g far below the clamp of the square root
    return e, h, weights


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, array in tensors.items():
        header[name] = {"dtype": {"float32": "F32", "float64": "F64"}[str(array.dtype)], "shape": list(array.shape),
                        "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            out.write(np.ascontiguousarray(array).tobytes())


def main():
    rng = np.random.default_rng(20260112)
    tensors, results = {}, {}
    for branches in (1, 4):
        e, h, weights = make(branches, rng)
        for name, array in {"e": e, "h": h, **weights}.items():
            tensors[f"m{branches}.{name}"] = array.astype(np.float32)
        for root, sign, bias, (conv_name, conv), offset in itertools.product((0, 1), ("zero", "copysign"), (0, 1), CONVS.items(),
                                                                             (0, 1)):
            name = f"m{branches}.root{root}.{sign}.bias{bias}.conv{conv_name}.offset{offset}"
            results[name] = module(e, h, weights, root, sign, bias, conv, offset)
    write_safetensors(sys.argv[1], {**results, **tensors})  # F64 first, so that every span is aligned


if __name__ == "__main__":
    main()
