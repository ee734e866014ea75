#!/usr/bin/env python3
"""Makes the seeds of tests/fuzz/corpus/{gguf,safetensors}: small valid files that reach every branch of the readers."""
import json
import pathlib
import struct
import sys

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fuzz/corpus")


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def pair(key, kind, fmt, *values):
    return text(key) + struct.pack("<I", kind) + struct.pack("<" + fmt, *values)


def array(key, kind, fmt, values):
    body = b"".join(text(v) for v in values) if kind == 8 else struct.pack(f"<{len(values)}{fmt}", *values)
    return text(key) + struct.pack("<IIQ", 9, kind, len(values)) + body


def gguf(pairs, tensors, version=3, alignment=32):
    """tensors: (name, dims innermost first, type id, bytes)"""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs)
    data = b""
    for name, dims, kind, size in tensors:
        head += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, len(data))
        data += bytes(i % 61 for i in range(size)) + bytes(-size % alignment)
    return head + bytes(-len(head) % alignment) + data


def safetensors(header, size):
    raw = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(i % 61 for i in range(size))


SCALARS = [pair("u8", 0, "B", 1), pair("i8", 1, "b", -1), pair("u16", 2, "H", 1), pair("i16", 3, "h", -1),
           pair("u32", 4, "I", 1), pair("i32", 5, "i", -1), pair("f32", 6, "f", .5), pair("b", 7, "B", 1),
           text("s") + struct.pack("<I", 8) + text("word"), pair("u64", 10, "Q", 1), pair("i64", 11, "q", -1),
           pair("f64", 12, "d", .5)]
ARRAYS = [array("a8", 0, "B", [1, 2]), array("a32", 5, "i", [1, -2]), array("af", 6, "f", [.5]), array("ab", 7, "?", [1]),
          array("as", 8, "", ["x", "", "yz"]), array("a64", 10, "Q", [1]), array("none", 12, "d", [])]
BLOCKS = [(0, 1, 4), (1, 1, 2), (30, 1, 2), (24, 1, 1), (28, 1, 8), (2, 32, 18), (3, 32, 20), (6, 32, 22), (7, 32, 24),
          (8, 32, 34), (10, 256, 84), (11, 256, 110), (12, 256, 144), (13, 256, 176), (14, 256, 210)]

SEEDS = {
    "gguf/empty": gguf([], []),
    "gguf/scalars": gguf(SCALARS, [("a", (2, 2), 0, 16)]),
    "gguf/arrays": gguf(ARRAYS, []),
    "gguf/types": gguf([], [(f"t{k}", (n,), k, size) for k, n, size in BLOCKS]),
    "gguf/shapes": gguf([], [("r0", (), 0, 4), ("r1", (3,), 0, 12), ("r4", (2, 1, 2, 1), 1, 8)], version=2),
    "gguf/aligned": gguf([pair("general.alignment", 4, "I", 64)], [("a", (5,), 1, 10), ("b", (1,), 0, 4)], alignment=64),
    "gguf/split": gguf([pair("split.no", 2, "H", 0), pair("split.count", 2, "H", 2)], [("a", (1,), 0, 4)]),
    "safetensors/empty": safetensors({}, 0),
    "safetensors/types": safetensors({
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
        "c": {"dtype": "I64", "shape": [], "data_offsets": [22, 30]}}, 30),
    "safetensors/unicode": safetensors({"\u00e9\n": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]}}, 1),
}

for name, data in SEEDS.items():
    path = OUT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
