#!/usr/bin/env python3
"""Decoding with experts on disk beside the bound that memory and disk set: bench/expert_disk.cpp and fio in turns.

    bench/expert_disk.py build/release/bin/expert_disk MODEL.gguf --share 0.5 --json out.json

MODEL is a mixture of random weights (tools/make_random_gguf.py --shape moe), whose routers are made to choose by Zipf's law; --zipf
own --text FILE is for a trained one. The budget is a share of its experts. Each placement runs with reading ahead and without. The
bound of a token is the larger of two times: that of the same model with all experts in memory, and the bytes that were
missed divided by what `fio` reads from the same file at random, as many bytes at a time as an expert has, past the file
cache. fio runs before and after each placement; the mean counts. Needs fio; cut the noise of other programs.
"""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys


def run(*command):
    ran = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {ran.stderr.strip()}")
    return ran.stdout


def fio(path, block, depth=8):
    out = run("fio", "--name=experts", f"--filename={path}", "--readonly", "--rw=randread", f"--bs={block}", "--direct=1", "--ioengine=io_uring",
              f"--iodepth={depth}", "--runtime=2", "--time_based", "--randrepeat=0", "--norandommap", "--output-format=json")
    return json.loads(out)["jobs"][0]["read"]["bw_bytes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the experts that the budget holds")
    parser.add_argument("--zipf", default="0,0.5,1")
    parser.add_argument("--placements", default="direct,mmap")
    parser.add_argument("--text", default="", help="what `--zipf own` reads")
    parser.add_argument("--warm", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    if "own" in options.zipf.split(",") and not options.text:
        parser.error("--zipf own needs --text FILE: the routers of a trained model choose by what they read")
    if shutil.which("fio") is None:
        parser.error("fio is not there, which says what the disk can do: apt-get install fio")
    common = ("--warm", options.warm, "--tokens", options.tokens, "--rounds", options.rounds, "--text", options.text)
    probe = json.loads(run(options.program, options.model, "--zipf", "0", "--experts", "direct", "--warm", 0, "--tokens", 1, "--rounds", 1))
    budget = int(probe["experts"] * options.share) * probe["expert_bytes"]
    lines = []
    for exponent in options.zipf.split(","):
        ram = json.loads(run(options.program, options.model, "--zipf", exponent, "--experts", "ram", *common))
        for placement, *flag in [(p, *f) for p in options.placements.split(",") for f in ((), ("--no-read-ahead",))]:
            rates = [fio(probe["path"], probe["expert_bytes"])]
            got = json.loads(run(options.program, options.model, "--zipf", exponent, "--experts", placement, "--budget", budget, *common, *flag,
                                 *(("--policies",) if placement == "direct" and not flag else ())))
            rates.append(fio(probe["path"], probe["expert_bytes"]))
            rate = statistics.mean(rates)
            missed = got["misses"] * got["expert_bytes"]
            bound = max(ram["ms"], missed / rate * 1e3)
            got |= {"read_ahead_on": not flag, "ram_ms": ram["ms"], "fio_bytes_per_s": rate, "missed_bytes": missed, "bound_ms": bound, "share_of_bound": bound / got["ms"],
                    "hit_rate": got["hits"] / (got["hits"] + got["misses"])}
            lines.append(got)
            print(f"zipf {exponent:>4} {placement:>6} {'alone' if flag else 'ahead'}: {got['ms']:7.2f} ms a token (ram {ram['ms']:.2f}; missed {missed / 1e6:.1f} MB at fio's "
                  f"{rate / 1e9:.2f} GB/s {missed / rate * 1e3:.2f}), {got['share_of_bound']:.1%} of the bound; hits {got['hit_rate']:.1%}; "
                  f"ahead {got['ahead_used']:.1f} of {got['ahead']:.1f}; {got.get('hit_rates', '')}", flush=True)
    if options.json:
        paths = ("model", "path")  # of this machine
        options.json.write_text(json.dumps([{k: v for k, v in line.items() if k not in paths} for line in lines], indent=1) + "\n")


if __name__ == "__main__":
    main()
