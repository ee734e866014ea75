#!/usr/bin/env python3
"""Start-up time and memory of the whole `mneme` process, as a user meets them.

start    wall time from exec to exit of `mneme generate MODEL -p TEXT -n 1 --temp 0`: one token, file cache warm
memory   peak resident set of a process that holds 2,048 positions (prompt + generated), minus the size of the file

    bench/footprint.py build/release/bin/mneme MODEL.gguf [--repeat 10]
Prints medians and spread as Markdown; needs Linux (peak RSS comes from wait4).
"""
import argparse
import os
import statistics
import subprocess
import time

TEXT = "The quick brown fox jumps over the lazy dog. "


def run(command, text):
    """(seconds, peak resident bytes) of one process that reads its prompt from stdin."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    process.stdin.write(text.encode())
    process.stdin.close()
    errors = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit {process.returncode}: {errors.strip()[-300:]}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def spread(values, unit, digits):
    return f"{statistics.median(values):.{digits}f} {unit} [{min(values):.{digits}f}–{max(values):.{digits}f}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mneme")
    parser.add_argument("model")
    parser.add_argument("--repeat", type=int, default=10)
    args = parser.parse_args()
    base = [args.mneme, "generate", args.model, "-p", "@-", "--temp", "0", "--quiet"]
    run(base + ["-n", "1"], "Hello")  # fills the file cache
    starts = [run(base + ["-n", "1"], "Hello")[0] for _ in range(args.repeat)]
    size = os.path.getsize(args.model)
    prompt = TEXT * 198  # ten tokens a sentence: about 1,980
    extra = [(run(base + ["-n", "48"], prompt)[1] - size) / 1e6 for _ in range(max(2, args.repeat // 4))]
    print("| model | start to first token | peak RSS − file size at 2k context |\n|---|---|---|")
    print(f"| {os.path.basename(args.model)} | {spread(starts, 's', 3)} | {spread(extra, 'MB', 0)} |")


if __name__ == "__main__":
    main()
