#!/usr/bin/env python3
"""Bits per byte of a model as it is shipped, on the tokens that tools/kneser_ney.py predicts.

    tools/bits_per_byte.py MODEL --shards FOLDER [--split validation] [--window 512] [--stride 256]

Reads the split's token stream in windows of --window tokens, --stride apart, through `mneme logits`, and scores in each
window those tokens that no earlier one has scored: each is predicted from at least window - stride tokens before it, end
tokens among them like any other token. The very first token counts as log2(vocabulary) bits.
"""
import argparse
import json
import os
import pathlib
import subprocess

import numpy

import token_shards

BUILT = pathlib.Path(__file__).resolve().parent.parent / "build/release/bin/mneme"


def window_bits(mneme, model, ids, scored, extra):
    """Bits of the last `scored` of `ids`, each given all before it."""
    ran = subprocess.run([mneme, "logits", model, "--ids", "@-", "--all", "--json", "--quiet", *extra],
                         input=",".join(map(str, ids[:-1])), capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(ran.stderr.strip())
    logits = numpy.array(json.loads(ran.stdout)["logits"][-scored:], numpy.float64)
    logits -= logits.max(axis=1, keepdims=True)
    nats = numpy.log(numpy.exp(logits).sum(axis=1)) - logits[numpy.arange(scored), ids[-scored:]]
    return float(nats.sum() / numpy.log(2))


def bits_of(mneme, model, tokens, vocab, window, stride, extra=()):
    """Bits of the whole stream."""
    bits, done, start = float(numpy.log2(vocab)), 1, 0
    while done < len(tokens):
        end = min(start + window, len(tokens))
        bits += window_bits(mneme, model, tokens[start:end], end - done, extra)
        done, start = end, start + stride
    return bits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--shards", required=True, help="folder of token shards, as a run makes them")
    parser.add_argument("--split", choices=["train", "validation"], default="validation")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--stride", type=int, default=256)
    parser.add_argument("--mneme", default=os.environ.get("MNEME_BIN", str(BUILT)))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not 1 < arguments.window or not 0 < arguments.stride < arguments.window:
        parser.error("--stride must be above 0 and below --window")
    tokens, text_bytes, vocab = token_shards.load(arguments.shards, arguments.split)
    extra = ["--threads", str(arguments.threads)] if arguments.threads else []
    bits = bits_of(arguments.mneme, arguments.model, tokens, vocab, arguments.window, arguments.stride, extra)
    result = {"tokens": len(tokens), "bytes": text_bytes, "bits_per_byte": bits / text_bytes, "bits_per_token": bits / len(tokens)}
    print(json.dumps(result) if arguments.json else f"{result['bits_per_byte']:.4f} bits per byte, {result['bits_per_token']:.4f} bits per token "
          f"of {len(tokens)} tokens and {text_bytes} bytes, windows of {arguments.window} by {arguments.stride}")


if __name__ == "__main__":
    main()
