#!/usr/bin/env python3
"""Does a model repeat its training text? The share of windows of N tokens of sampled text that stand in the training text.

    mneme generate MODEL -p TEXT -n 200 --json ... ; mneme tokenize MODEL @sample.txt --json >> samples.jsonl
    tools/window_overlap.py --shards FOLDER --samples samples.jsonl [--window 10]

--samples: JSON lines, each a list of token ids or an object with "ids". --split validation samples the held-out text
instead, which tells what share any new text of this kind has. All windows of the training text are kept as 64-bit
hashes, sorted: 8 bytes a token, and a false hit once in 10^12 look-ups at 10 M tokens.
"""
import argparse
import json

import numpy

import token_shards


def window_hashes(tokens, window):
    """One 64-bit hash for each run of `window` tokens (Horner's rule modulo 2^64, then mixed)."""
    tokens = numpy.asarray(tokens, numpy.uint64)
    if len(tokens) < window:
        return numpy.zeros(0, numpy.uint64)
    size = len(tokens) - window + 1
    out = numpy.zeros(size, numpy.uint64)
    for i in range(window):
        out = out * numpy.uint64(0x9E3779B97F4A7C15) + tokens[i:i + size] + numpy.uint64(1)
        out ^= out >> numpy.uint64(29)
    return out


def overlap(train, samples, window):
    """(windows found, windows in all) of sequences that are looked at one by one."""
    known = numpy.unique(window_hashes(train, window))
    found = total = 0
    for sample in samples:
        hashes = window_hashes(sample, window)
        if len(hashes):
            at = numpy.minimum(numpy.searchsorted(known, hashes), len(known) - 1)
            found += int(numpy.count_nonzero(known[at] == hashes))
            total += len(hashes)
    return found, total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", required=True, help="folder of the training text's token shards")
    parser.add_argument("--samples", help="JSON lines of token ids")
    parser.add_argument("--split", choices=["train", "validation"], help="measure this split's own text instead")
    parser.add_argument("--window", type=int, default=10)
    arguments = parser.parse_args()
    train, _, _ = token_shards.load(arguments.shards, "train")
    if arguments.split:
        samples = [token_shards.load(arguments.shards, arguments.split)[0]]
    elif arguments.samples:
        lines = [json.loads(line) for line in open(arguments.samples, encoding="utf-8") if line.strip()]
        samples = [line["ids"] if isinstance(line, dict) else line for line in lines]
    else:
        parser.error("name --samples or --split")
    found, total = overlap(train, samples, arguments.window)
    if total == 0:
        parser.error(f"no sample has {arguments.window} tokens")
    print(json.dumps({"window": arguments.window, "windows": total, "found": found, "share": found / total}))


if __name__ == "__main__":
    main()
