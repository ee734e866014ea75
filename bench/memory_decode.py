#!/usr/bin/env python3
"""What a memory table costs at decode: SmolLM2-135M (or another model) with two Engram modules of DeepSeek-V4.1's shape
(orders 2 to 4, 8 heads each, 256-wide FP8 rows, layers 1 and 14), on real text.

Three cases, each against the same model decoding one token again and again, whose rows stay in the first-level cache
(bench/memory_decode.cpp says why this is the fair pair):
  resident  the table in memory
  warm      the table on disk, behind a cache of at most a quarter of its size, after 100,000 tokens of the text, on the
            next 10,000 unseen ones
  cold      the first tokens of the same process: empty cache, the file dropped from the system's cache
Every pair of blocks gives a ratio; the interval is of the median ratio (sign test, 95 %). The time of the model without
any memory stands beside it: the difference is what projections and gates cost. With fio installed (package fio) its rate
of random 4 KiB reads of the same file is printed too.

    bench/memory_decode.py build/release/bin MODEL.gguf --work build/memory_decode
The text is the language reference that ships with Python unless --text names a file.
"""
import argparse
import json
import pathlib
import pydoc_data.topics
import shutil
import statistics
import subprocess
import sys

from medians import median_interval
import memory_scaling as packs


def build(args, name, rows_per_head, width):
    """A pack of random rows with modules whose projections are Q8_0."""
    pack, modules = args.work / f"{name}.engram", args.work / "modules.gguf"
    if pack.exists():
        return pack
    heads = packs.ORDERS * packs.HEADS * len(packs.LAYERS)
    wanted = heads * rows_per_head * 280
    if shutil.disk_usage(args.work).free < wanted + packs.SPARE_DISK:
        sys.exit(f"{pack} needs {wanted / 1e9:.1f} GB of disk; free some or choose a smaller --rows")
    if not modules.exists():
        packs.write_modules(modules, width, packs.ORDERS * packs.HEADS * 256)
    config = args.work / f"{name}.json"
    config.write_text(json.dumps({
        "table": {"pad_id": 0, "max_ngram": packs.ORDERS + 1, "heads": packs.HEADS, "head_dim": 256, "layer_ids": packs.LAYERS,
                  "base_rows": [rows_per_head] * packs.ORDERS, "format": "fp8_e4m3_e8m0"},
        "modules": [{"table": "memory", "layer_id": layer} for layer in packs.LAYERS]}))
    packs.run(args.bin / "mneme", "memory", "build", pack, "--config", config, "--tokenizer", args.model, "--random", "1",
              "--modules", modules, "--json", "--quiet")
    return pack


def row(name, result, none):
    ratio, low, high = median_interval([t / c for t, c in zip(result["text_ms"], result["constant_ms"])])
    hits = "" if result["hit_rate"] is None else f"{100 * result['hit_rate']:.1f} %"
    return (f"| {name} | {statistics.median(none['text_ms']):.3f} | {statistics.median(result['constant_ms']):.3f} | "
            f"{statistics.median(result['text_ms']):.3f} | "
            f"{100 * (ratio - 1):+.2f} % [{100 * (low - 1):+.2f}, {100 * (high - 1):+.2f}] | {len(result['text_ms'])} | {hits} |")


def fio(pack, depth):
    if not shutil.which("fio"):
        return "fio is not installed (package fio)"
    ran = subprocess.run(["fio", "--name=rows", f"--filename={pack}", "--readonly", "--rw=randread", "--bs=4k", "--direct=1",
                          "--ioengine=io_uring", f"--iodepth={depth}", "--runtime=5", "--time_based", "--norandommap", "--randrepeat=0",
                          "--output-format=json"], capture_output=True, text=True)
    if ran.returncode:
        return f"fio: {ran.stderr.strip()[-200:]}"
    read = json.loads(ran.stdout)["jobs"][0]["read"]
    return (f"fio, random 4 KiB reads of the same file at depth {depth}: {read['iops']:,.0f}/s, "
            f"median {read['clat_ns']['percentile']['50.000000'] / 1e3:.0f} µs")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", type=pathlib.Path, help="folder of mneme and memory_decode")
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for the packs; they are kept")
    parser.add_argument("--rows", type=int, default=1 << 24, help="rows of the table")
    parser.add_argument("--text", type=pathlib.Path)
    parser.add_argument("--warm", type=int, default=100_000)
    parser.add_argument("--decode", type=int, default=10_000)
    parser.add_argument("--cases", default="ram,cache")
    parser.add_argument("--prefix", default="", help="command put before each measured run")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    text = args.text or args.work / "text.txt"
    if not args.text:
        text.write_text("\n\n".join(body for _, body in sorted(pydoc_data.topics.topics.items())))
    width = packs.run(args.bin / "mneme", "inspect", args.model, "--json", "--quiet")["config"]["d_model"]
    heads = packs.ORDERS * packs.HEADS * len(packs.LAYERS)
    real = build(args, f"rows{args.rows}", args.rows // heads, width)
    budget = real.stat().st_size // 4
    results = {}
    print("| rows | no memory, ms a token | constant rows, ms | rows of the text, ms | cost of the rows [95 %] | pairs | hit rate |\n|---|---|---|---|---|---|---|")
    for case in args.cases.split(","):
        command = [*args.prefix.split(), str(args.bin / "memory_decode"), str(args.model), "--real", str(real), "--text", str(text), "--placement", case, "--decode", str(args.decode),
                   "--warm", str(0 if case == "ram" else args.warm), "--budget", str(0 if case == "ram" else budget)]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode:
            sys.exit(f"{' '.join(command)}: {ran.stderr.strip()}")
        results[case] = json.loads(ran.stdout)
        if case == "ram":
            print(row("resident", results[case]["warm"], results[case]["none"]), flush=True)
        else:
            print(row(f"{case}, warm", results[case]["warm"], results[case]["none"]))
            print(row(f"{case}, cold", results[case]["cold"], results[case]["none"]), flush=True)
            for part in ("warm", "cold"):
                got = results[case][part]
                print(f"{case}, {part}: {got['reads_per_token']:.1f} reads a token, from their start until they are collected "
                      f"{got['read_us']['p50']:.0f} µs (p99 {got['read_us']['p99']:.0f}); a token {got['text_token_ms']['p50']:.2f} ms "
                      f"(p99 {got['text_token_ms']['p99']:.2f}), with constant rows {got['constant_token_ms']['p50']:.2f} "
                      f"(p99 {got['constant_token_ms']['p99']:.2f})", file=sys.stderr)
        print(results[case]["memory"], file=sys.stderr)
    print(fio(real, 128))
    print(fio(real, 48))
    (args.work / "memory_decode.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
