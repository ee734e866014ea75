#!/usr/bin/env python3
"""Block-sparse attention against m = block * top_k, the keys that a query sees: what it keeps and what it costs.

recall      share of full attention's softmax mass that the chosen blocks hold, beside the best possible choice and a blind
            one (bench/sparse_recall.cpp), at 4,096 tokens of real text
perplexity  of the same checkpoint run with sparse layers, beside windows of as many keys, on the second half of windows of
            4,096 tokens
decode      time of a token against m and depth, in a context that was not read (`mneme bench --synthetic`)

    bench/sparse.py build/release/bin SmolLM2-135M.gguf --work build/sparse --json docs/images/sparse.json \\
        --svg docs/images/sparse.svg
A figure that --json holds is not measured again; an interrupted run goes on where it stopped. The text is the language
reference that ships with Python unless --text names a file. The deepest test needs 13 GB of memory.
"""
import argparse
import json
import pathlib
import pydoc_data.topics
import subprocess
import sys

sys.dont_write_bytecode = True
import gguf_config
from plotting import with_matplotlib

CONTEXT = 4096
SPARSE = [(64, k) for k in (8, 16, 32)] + [(256, 4)]
DEPTHS = (1 << 15, 1 << 17, 1 << 20)


def run(args, *command):
    ran = subprocess.run([*args.prefix.split(), *map(str, command)], capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {ran.stderr.strip()[-500:]}")
    return ran.stdout


class Numbers:
    """Results by name, written after each one."""

    def __init__(self, path):
        self.path, self.values = path, json.loads(path.read_text()) if path.exists() else {}

    def get(self, key, measure):
        if key not in self.values:
            self.values[key] = measure()
            self.path.write_text(json.dumps(self.values, indent=0, sort_keys=True) + "\n")
            print(key, json.dumps(self.values[key])[:200], flush=True)
        return self.values[key]


def model_with(args, **fields):
    """The model with these fields in every mixer; none: as it is."""
    if not fields:
        return args.model
    path = args.work / "changed.gguf"
    config = gguf_config.config_of(args.bin / "mneme", args.model)
    gguf_config.write_with_config(args.model, path, gguf_config.with_mixers(config, lambda _, mixer: mixer.update(fields)))
    return path


def perplexity(args, **fields):
    got = json.loads(run(args, args.bin / "mneme", "perplexity", model_with(args, **fields), args.text, "--ctx", CONTEXT,
                         "--tokens", args.tokens, "--json", "--quiet"))
    return got["ppl"]


def decode(args, depth, **fields):
    got = json.loads(run(args, args.bin / "mneme", "bench", model_with(args, **fields), "--synthetic", "--depth", depth,
                         "--prompt", 0, "--gen", args.gen, "--repeat", args.repeat, "--kv", "int8", "--json", "--quiet"))
    return {key: got[0][key] for key in ("tokens_per_second", "sd", "rss_bytes")}


def measure(args, numbers):
    numbers.get("recall", lambda: json.loads(run(args, args.bin / "sparse_recall", args.model, args.text, "--tokens", CONTEXT,
                                                 "--queries", 24)))
    if "perplexity" in args.parts:
        numbers.get("perplexity full", lambda: perplexity(args))
        for block, top_k in SPARSE:
            numbers.get(f"perplexity sparse {block}x{top_k}", lambda: perplexity(args, type="sparse", block=block, top_k=top_k))
            numbers.get(f"perplexity sparse {block}x{top_k} sinks 4",
                        lambda: perplexity(args, type="sparse", block=block, top_k=top_k, sinks=4))
        for block, top_k in SPARSE[:3]:
            numbers.get(f"perplexity sparse {block}x{top_k} sinks 4 shared",
                        lambda: perplexity(args, type="sparse", block=block, top_k=top_k, sinks=4, shared=True))
            numbers.get(f"perplexity window {block * top_k} sinks 4",
                        lambda: perplexity(args, type="window", window=block * top_k, sinks=4))
    if "decode" in args.parts:
        for depth in DEPTHS:
            if depth > args.depth:
                continue
            numbers.get(f"decode {depth} full", lambda: decode(args, depth))
            for top_k in (16, 64):
                for shared in (False, True):
                    numbers.get(f"decode {depth} sparse 512x{top_k}{' shared' if shared else ''}",
                                lambda: decode(args, depth, type="sparse", block=512, top_k=top_k, shared=shared))


def plot(numbers, path):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    plt.rcParams["svg.hashsalt"] = "mneme"
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), constrained_layout=True)
    recall = [r for r in numbers["recall"] if r["block"] == 64]
    for key, label, style in (("best", "best possible blocks", "k--"), ("with_sinks", "mean keys, first 64 keys too", "C0o-"),
                              ("chosen", "mean keys", "C1o-"), ("group_sum", "mean keys, shared choice", "C2.-"), ("random", "blind", "k:")):
        if key not in recall[0]:
            continue
        axes[0].plot([r["m"] for r in recall], [100 * r[key] for r in recall], style, label=label)
    axes[0].set(xscale="log", xlabel=f"m = keys seen of {CONTEXT:,}, blocks of 64", ylabel="% of attention mass")
    axes[0].legend(fontsize=7)
    for name, label, style in (("sparse 64x{k} sinks 4", "sparse, 4 sinks", "C0o-"), ("sparse 64x{k}", "sparse", "C1o-"),
                               ("sparse 64x{k} sinks 4 shared", "sparse, 4 sinks, shared", "C2.-"), ("window {m} sinks 4", "window, 4 sinks", "C3s-")):
        points = [(64 * k, numbers.get(f"perplexity {name.format(k=k, m=64 * k)}")) for k in (8, 16, 32)]
        points = [(m, p) for m, p in points if p]
        if points:
            axes[1].plot(*zip(*points), style, label=label)
    axes[1].axhline(numbers["perplexity full"], color="k", linestyle="--", label="full")
    axes[1].set(xscale="log", yscale="log", xlabel="m", ylabel="perplexity")
    axes[1].legend(fontsize=7)
    for name, style in (("full", "ko--"), ("sparse 512x64", "C1o-"), ("sparse 512x64 shared", "C2o-"), ("sparse 512x16 shared", "C0o-")):
        points = [(d, numbers.get(f"decode {d} {name}")) for d in DEPTHS]
        points = [(d, 1000 / p["tokens_per_second"]) for d, p in points if p]
        if points:
            axes[2].plot(*zip(*points), style, label=name)
    axes[2].set(xscale="log", yscale="log", xlabel="context, tokens (synthetic)", ylabel="ms a token")
    axes[2].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", type=pathlib.Path, help="folder of mneme and sparse_recall")
    parser.add_argument("model", type=pathlib.Path, help="a GGUF file of full attention")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--svg", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=16384, help="of the text, for perplexity")
    parser.add_argument("--depth", type=int, default=max(DEPTHS), help="deepest decode")
    parser.add_argument("--gen", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--parts", default="perplexity,decode")
    parser.add_argument("--prefix", default="", help="command put before each measured run")
    parser.add_argument("--only-plot", action="store_true", help="draw what --json already holds")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.text:
        args.text = args.work / "text.txt"
        args.text.write_text("\n\n".join(body for _, body in sorted(pydoc_data.topics.topics.items())))
    numbers = Numbers(args.json)
    if not args.only_plot:
        measure(args, numbers)
    with_matplotlib(args.work, args.only_plot)
    plot(numbers.values, args.svg)


if __name__ == "__main__":
    main()
