"""Reads the token shards that training uses (src/files/token_shard.h) as one numpy array."""
import json
import pathlib

import numpy

HEADER = 128


def load(folder, split):
    """(token ids as int64, bytes of text, vocabulary size) of a split, "train" or "validation"."""
    folder = pathlib.Path(folder)
    manifest = json.loads((folder / "shards.json").read_text())
    parts, text_bytes = [], 0
    for shard in manifest["shards"]:
        if shard["split"] != split:
            continue
        data = numpy.memmap(folder / shard["file"], numpy.uint8, "r")
        if bytes(data[:8]) != b"MNEMETOK":
            raise ValueError(f"{shard['file']}: not a token shard")
        width = int(data[12:16].view("<u4")[0])
        tokens = data[HEADER:HEADER + shard["tokens"] * width].view("<u2" if width == 2 else "<u4")
        parts.append(tokens.astype(numpy.int64))
        text_bytes += shard["text_bytes"]
    if not parts:
        raise ValueError(f"{folder}: the split {split} is empty")
    return numpy.concatenate(parts), text_bytes, manifest["vocab"]


def bytes_of(path, field="text"):
    """The same of JSON lines, a byte a token; 256 ends each document."""
    parts, text_bytes = [], 0
    for line in open(path, encoding="utf-8"):
        raw = json.loads(line)[field].encode()
        text_bytes += len(raw)
        parts.append(numpy.frombuffer(raw, numpy.uint8).astype(numpy.int64))
        parts.append(numpy.array([256]))
    return numpy.concatenate(parts), text_bytes, 257
