#!/usr/bin/env python3
"""Long texts through `generate`, `perplexity` and `logits`: what they take in time and memory.

    bench/long_context.py build/release/bin/mneme MODEL --tokens 65536 1048576 4194304 --work build/long_context

Each verb reads a generated text (or ids) of each length in a process of its own. Printed are its time (of its last part, if it
was broken off), its speed, its peak memory, and by how many bytes a token the peak grew from the shortest length to this one: of
a model whose state is bounded only the ids themselves stay, a few bytes each. What is done is kept in WORK/results.json and not
repeated.

At 4,194,304 tokens a reading takes hours on a real model. `generate` keeps its state on the way (--session-store in WORK),
so that the same command goes on where the last one was broken off, whatever ended it; so does a reader who runs

    mneme generate MODEL -p @text.txt -n 1 --session-store DIR        (goes on after any end)
    mneme generate MODEL -p @text.txt -n 1 --session FILE             (goes on after Ctrl-C)
"""
import argparse
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

VERBS = ("generate", "perplexity", "logits")
SAMPLE = 1 << 18  # bytes whose tokens are counted to know how long a text must be


def words(seed):
    """Lines of made-up words, without end."""
    rng = random.Random(seed)
    syllables = [c + v for c in "bcdfghklmnprstvw" for v in "aeiou"]
    vocabulary = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(4000)]
    while True:
        yield " ".join(rng.choices(vocabulary, k=12)).capitalize() + ".\n"


def write_text(path, size, seed=1):
    """A text of at least `size` bytes; the same for the same seed, whatever the machine."""
    with path.open("w") as out:
        for line in words(seed):
            out.write(line)
            size -= len(line)
            if size <= 0:
                return path


def write_ids(path, count, vocab, seed=1):
    rng = random.Random(seed)
    with path.open("w") as out:
        for begin in range(0, count, 65536):
            part = (str(rng.randrange(3, vocab)) for _ in range(min(65536, count - begin)))
            out.write(("" if begin == 0 else ",") + ",".join(part))
    return path


def measured(command, env=None):
    """Runs a command; returns what it printed on stdout and stderr, seconds, and peak resident bytes (of this one child). Raises
    if it fails."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.monotonic()
        child = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        err.seek(0)
        if child.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}: exit {child.returncode}: {err.read()[-500:]}")
        out.seek(0)
        err.seek(0)
        return out.read(1 << 20), err.read()[-4000:], seconds, usage.ru_maxrss * 1024


def bytes_per_token(mneme, model, work):
    sample = write_text(work / "sample.txt", SAMPLE)
    listed = subprocess.run([mneme, "tokenize", model, f"@{sample}"], capture_output=True, text=True, check=True).stdout
    return sample.stat().st_size / (listed.count(",") + 1)


def command_of(verb, mneme, model, tokens, work, per_token, vocab):
    """The command with which a verb reads about `tokens` tokens, in one context."""
    path = work / f"{verb}_{tokens}.txt"
    if verb == "logits":
        if not path.exists():
            write_ids(path, tokens, vocab)
        return [mneme, "logits", model, "--ids", f"@{path}", "--top", "1", "--quiet"]
    if not path.exists():  # more than needed for perplexity, which takes whole windows only
        # A seed for each length: none begins like another, of which a stored state would be taken up.
        write_text(path, int(tokens * per_token * (1.02 if verb == "perplexity" else 1.0)) + 64, seed=tokens)
    if verb == "perplexity":
        return [mneme, "perplexity", model, path, "--ctx", tokens, "--tokens", tokens, "--json", "--quiet"]
    return [mneme, "generate", model, "-p", f"@{path}", "-n", "1", "--temp", "0", "--ignore-eos", "--json"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mneme", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1 << 16, 1 << 20, 1 << 22])
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=list(VERBS))
    parser.add_argument("--work", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    results = args.work / "results.json"
    known = json.loads(results.read_text()) if results.exists() else {}
    per_token = bytes_per_token(args.mneme, args.model, args.work)
    told = json.loads(subprocess.run([args.mneme, "inspect", args.model, "--json"], capture_output=True, text=True, check=True).stdout)
    for verb in args.verbs:
        for tokens in sorted(args.tokens):
            key = f"{args.model.name} {verb} {tokens}"
            if key not in known:
                command = command_of(verb, args.mneme, args.model, tokens, args.work, per_token, told["config"]["vocab"])
                if verb == "generate":
                    command += ["--session-store", args.work / "states", "--session-budget", "1G"]
                _, said, seconds, peak = measured(command)
                kept = re.search(r"(\d+) of them kept", said)  # of an earlier run that was broken off
                known[key] = {"seconds": seconds, "peak": peak, "read": tokens - (int(kept[1]) if kept else 0)}
                results.write_text(json.dumps(known, indent=1) + "\n")
            first, this = known[f"{args.model.name} {verb} {min(args.tokens)}"], known[key]
            growth = (this["peak"] - first["peak"]) / max(1, tokens - min(args.tokens))
            print(f"{verb:10} {tokens:9,} tokens  {this['seconds']:9.1f} s  {this['read'] / this['seconds']:9,.0f} tokens/s  "
                  f"peak {this['peak'] / 1e6:7.1f} MB  {growth:6.2f} bytes a token", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
