#!/usr/bin/env python3
"""Reproductions of claims about Engram, hybrid attention, experts and spikes, at a size that one machine can train.

    examples/experiments/run.py NAME --size small [--seeds 3] [--minutes N] [--work DIR]
    examples/experiments/run.py --list | --report

NAME: rows, equal, layer, components, attention, row-optimiser, facts, hybrid, conversion, allocation,
combinations (or a to k), or all.
Sizes: smoke (seconds, to test the program), small (minutes), published (hours, in pieces).

Every training run is a `mneme train` in a folder of its own under --work (build/experiments/SIZE). Finished runs are never
repeated, an interrupted one goes on from its last checkpoint: the same command again continues whatever was stopped, by
--minutes, Ctrl-C or a crash. A finished experiment writes docs/experiments/NAME.json (--out), one entry a size, and
docs/experiments.md is made anew from those files. Python's standard library is all it needs, besides mneme and mneme-train
(./run.sh --build-train). Texts come from Debian packages by examples/pocket/gather_text.py, or are given with --text.

Exit codes: 0 done, 1 an error, 75 the minutes are over, 130 interrupted.
"""
import argparse
import difflib
import json
import pathlib
import platform
import signal
import sys

import report
import texts
from designs import EXPERIMENTS, Lab
from runs import Failed, OutOfTime, Runner, write_json
from sizes import SIZES

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
LETTERS = dict(zip("abcdefghijk", EXPERIMENTS))


def named(name):
    """The experiments that a word means; exits with one line for an unknown one."""
    if name == "all":
        return list(EXPERIMENTS)
    name = LETTERS.get(name, name)
    if name in EXPERIMENTS:
        return [name]
    near = "".join(f" (did you mean {other}?)" for other in difflib.get_close_matches(name, EXPERIMENTS, 1))
    sys.exit(f'run.py: error: there is no experiment "{name}"{near}; there are {", ".join(EXPERIMENTS)}, or all')


def experiment(name, runner, size, seeds, out):
    runner.say(f"{name}, {size.name} size, seeds {', '.join(map(str, seeds))}")
    found = EXPERIMENTS[name](Lab(runner, size, seeds))
    result = {"experiment": name, "size": size.name, "seeds": seeds, "machine": platform.processor() or platform.machine()} | found
    path = out / "experiments" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, known | {size.name: result})
    for pair in result["pairs"]:
        print(f"{name}: {pair['a']} - {pair['b']}: {report.interval(pair)}, n = {pair['n']}: {pair['reading']}")
    for measure in result.get("measures", []):
        print(report.measure_line(measure))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="which experiment")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--minutes", type=float, help="stop cleanly after so many")
    parser.add_argument("--work", type=pathlib.Path, default=TOP / "build/experiments", help="folder of texts and runs")
    parser.add_argument("--text", type=pathlib.Path, nargs="+", default=[], help="JSON lines with \"text\", instead of Debian's packages")
    parser.add_argument("--out", type=pathlib.Path, default=TOP / "docs", help="folder that gets experiments.md and experiments/")
    parser.add_argument("--mneme", type=pathlib.Path, default=TOP / "build/release/bin/mneme")
    parser.add_argument("--threads", type=int, default=0, help="of a run; 0: one per core")
    parser.add_argument("--list", action="store_true", help="print the experiments and what they ask")
    parser.add_argument("--report", action="store_true", help="only make experiments.md and the pictures anew")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error("--seeds must be at least 1")
    if not (args.name or args.list or args.report):
        parser.error("name an experiment, or --list or --report")
    return args


def main():
    args = parse()
    if args.list:
        for letter, (name, function) in zip(LETTERS, EXPERIMENTS.items()):
            print(f"{name:14} {function.__doc__.strip().splitlines()[0]}")
        return 0
    if args.report:
        report.write(args.out)
        return 0
    names = named(args.name)
    if not args.mneme.exists():
        sys.exit(f"run.py: error: {args.mneme} is not there; build it by ./run.sh --build-train, or name it with --mneme")
    size = SIZES[args.size]
    for stop in (signal.SIGINT, signal.SIGTERM):  # also where the shell that started this in the background ignores Ctrl-C
        signal.signal(stop, signal.default_int_handler)
    runner = Runner(args.mneme.resolve(), (args.work / size.name).resolve(), args.threads, args.minutes)
    again = "the same command goes on from here"
    try:
        texts.prepare(runner, size, args.text)
        for name in names:
            experiment(name, runner, size, list(range(1, args.seeds + 1)), args.out)
            report.write(args.out)
    except OutOfTime:
        print(f"run.py: the {args.minutes:g} minutes are over; {again}", file=sys.stderr)
        return 75
    except KeyboardInterrupt:
        print(f"run.py: interrupted; {again}", file=sys.stderr)
        return 130
    except Failed as failed:
        print(f"run.py: error: {failed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
