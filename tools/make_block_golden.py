#!/usr/bin/env python3
"""Makes tests/data/blocks: the block formats of src/simd/blocks.h as an independent implementation sees them.

Reference: gguf.quants (numpy) of the pip package `gguf`. Needs: pip install numpy gguf

  dequantize_TYPE.bin   random blocks, then the f32 values they stand for
  quantize_input.f32    4096 values: normal, large, tiny, zero blocks, exact halves
  quantize_TYPE.bin     the blocks that they become
  convert_input.f32     1024 arbitrary finite bit patterns and rounding borders
  convert_TYPE.bin      the F16 and BF16 bits that they become
"""
import pathlib
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGML_QUANT_SIZES, quants

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/blocks")
# Byte positions of the f16 scales in a block; random bits there would make infinities.
SCALES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
          T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}


def main():
    rng = np.random.default_rng(20240607)
    OUT.mkdir(parents=True, exist_ok=True)
    for kind, positions in SCALES.items():
        values, size = GGML_QUANT_SIZES[kind]
        count = 2048 // values
        blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
        for at in positions:
            scale = rng.normal(0, 0.02, count).astype(np.float16)
            blocks[:, at:at + 2] = scale.view(np.uint8).reshape(count, 2)
        floats = quants.dequantize(blocks.reshape(1, -1), kind).astype(np.float32)
        (OUT / f"dequantize_{kind.name}.bin").write_bytes(blocks.tobytes() + floats.tobytes())

    x = rng.normal(0, 0.05, 4096).astype(np.float32)
    x[256:512] *= 1000
    x[512:768] *= 1e-6
    x[768:800] = 0
    x[800:832] = np.arange(32) - 16  # many exact halves after scaling
    x[832:864] = 0.25
    x[864:896] = -np.abs(x[864:896])
    x[896:928] = np.linspace(-127.5, 127, 32)
    (OUT / "quantize_input.f32").write_bytes(x.tobytes())
    for kind in (T.Q8_0, T.Q4_0, T.Q4_1):
        (OUT / f"quantize_{kind.name}.bin").write_bytes(quants.quantize(x.reshape(1, -1), kind).tobytes())

    bits = rng.integers(0, 2**32, 768, dtype=np.uint32)
    c = bits.view(np.float32)
    c[~np.isfinite(c)] = 0
    borders = np.array([2.0**-24, 2.0**-25, 1.5 * 2.0**-25, 2.0**-14, 65504, 65519.996, 65520, 1 + 2.0**-11,
                        1 + 1.5 * 2.0**-10, 1 + 2.0**-8, 1 + 1.5 * 2.0**-7, 3.4e38, np.inf], np.float32)
    c = np.concatenate([c, borders, -borders, rng.normal(0, 1e-5, 230).astype(np.float32)])
    (OUT / "convert_input.f32").write_bytes(c.tobytes())
    with np.errstate(over="ignore"):
        (OUT / "convert_F16.bin").write_bytes(c.astype(np.float16).tobytes())
    (OUT / "convert_BF16.bin").write_bytes(quants.quantize(c, T.BF16).tobytes())


main()
