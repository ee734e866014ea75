#!/usr/bin/env python3
"""Training in two processes of one thread each against one process of one thread: tokens a second at the same global batch.

  python3 bench/train_processes.py [--pairs 5] [--steps 6] [--program build/release/bin/mneme-train]

A hybrid of about 5M parameters (gated linear, delta, window and full attention, a memory table) on made-up text. The two kinds of run
alternate, so that what else the machine does meets both; a pair gives one ratio, and the median ratio with its range is printed as JSON. The
first two steps of each run are left out. Two physical cores are needed for the ratio to mean anything.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests" / "e2e"))
import train_fixture  # noqa: E402

LENGTH, SEQUENCES, SKIPPED = 512, 8, 2

MODEL = {"mneme": 1, "d_model": 256, "vocab": 257, "context": LENGTH, "tied": True,
         "tables": {"facts": {"hash": "pcg64", "seed": 3, "compressed_vocab": 257, "raw_ids": True, "pad_id": 256, "max_ngram": 3, "heads": 4, "head_dim": 32,
                              "base_rows": [4001, 8009], "layer_ids": [1]}},
         "defaults": {"mixer": {"heads": 4, "kv_heads": 2, "head_dim": 64}, "ffn": {"type": "dense", "hidden": 768}},
         "layers": [{"mixer": {"type": "full"}}, {"mixer": {"type": "gla", "gate_rank": 16}, "memory": {"table": "facts", "layer_id": 1}},
                    {"mixer": {"type": "delta"}}, {"mixer": {"type": "window", "window": 128}}, {"mixer": {"type": "gla", "gate_rank": 16}}, {"mixer": {"type": "delta"}}]}


def tokens_per_second(program, config, out, arguments):
    subprocess.run([program, str(config), "--out", str(out), "--quiet", *arguments], check=True, stdin=subprocess.DEVNULL, timeout=900)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    rates = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line][SKIPPED:]
    return 1 / statistics.mean(1 / r for r in rates), [line["loss"] for line in lines if "loss" in line]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--program", default=str(train_fixture.PROGRAM))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mneme-processes-") as folder:
        folder = pathlib.Path(folder)
        config = train_fixture.write_run(folder, model=MODEL, steps=options.steps, threads=1, validate=None, save={"every": 0, "keep": 1},
                                         data={"train": ["train.txt"], "length": LENGTH}, batch={"sequences": SEQUENCES, "accumulate": 1})
        train_fixture.write_text(folder / "train.txt", 6000, 1)
        one, two = [], []
        for pair in range(options.pairs):
            kinds = [("one", [], one), ("two", ["--processes", "2"], two)]
            losses = {}
            for name, arguments, rates in kinds if pair % 2 == 0 else kinds[::-1]:
                rate, losses[name] = tokens_per_second(options.program, config, folder / f"{name}{pair}", arguments)
                rates.append(rate)
            difference = max(abs(a / b - 1) for a, b in zip(losses["one"], losses["two"]))
            print(f"pair {pair + 1}: {one[-1]:.0f} and {two[-1]:.0f} tokens/s, ratio {two[-1] / one[-1]:.3f}, losses differ by {difference:.1e}", file=sys.stderr)
    ratios = sorted(b / a for a, b in zip(one, two))
    print(json.dumps({"cores": os.cpu_count(), "tokens_per_step": SEQUENCES * LENGTH, "one_process_tokens_per_second": round(statistics.median(one), 1),
                      "two_processes_tokens_per_second": round(statistics.median(two), 1), "ratio": round(statistics.median(ratios), 3),
                      "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)], "pairs": options.pairs}))


if __name__ == "__main__":
    main()
