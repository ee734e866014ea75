#!/usr/bin/env python3
"""Event-driven products beside dense ones over the share of silent inputs: runs bench/spike_gemv.cpp for shapes of 1B and 7B models, keeps
what it printed in --json, prints the tables of docs/spike-products.md and draws the plot with the ideal line.

    bench/spike_gemv.py build/release/bin --json docs/images/spike_speed.json --svg docs/images/spike_speed.svg

The part "batch" measures 1, 2, 4 and 8 rows of X whose silent inputs are the same ones, so that the share of columns in their list is
known: where the event-driven time crosses the dense one is the engine's switch point. The part "chunk" times 512 rows, dense, in
stripes and in tiles. An interrupted run goes on where it stopped.
"""
import argparse
import json
import pathlib
import shlex
import subprocess
import sys

from plotting import with_matplotlib

SHAPES = ["2048x8192", "8192x2048", "4096x11008", "11008x4096"]
COLOURS = {"2048x8192": "#1f6feb", "8192x2048": "#8250df", "4096x11008": "#2da44e", "11008x4096": "#bf8700"}
BATCHES = [1, 2, 4, 8]


class Kept:
    def __init__(self, args):
        self.args, self.all = args, json.loads(args.json.read_text()) if args.json.exists() else {}

    def gemv(self, key, shape, kind, *more, megabytes="300"):
        if key in self.all:
            return
        rows, cols = shape.split("x")
        command = [*shlex.split(self.args.prefix), str(self.args.bin / "spike_gemv"), "--rows", rows, "--cols", cols, "--type", kind,
                   "--megabytes", megabytes, *map(str, more)]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode:
            sys.exit(f"{' '.join(command)}: exit {ran.returncode}: {ran.stderr.strip()[-400:]}")
        self.all[key] = json.loads(ran.stdout)
        partial = self.args.json.with_suffix(".part")
        partial.write_text(json.dumps(self.all, indent=1) + "\n")
        partial.replace(self.args.json)
        print(key, file=sys.stderr, flush=True)


def measure(kept, parts):
    for kind in ("q8_0", "q4_0") if "gemv" in parts else ():
        for shape in SHAPES:
            kept.gemv(f"gemv {kind} {shape}", shape, kind, "--rounds", 5)
    for kind in ("q8_0", "q4_0") if "batch" in parts else ():
        for batch in BATCHES:
            kept.gemv(f"batch {kind} {batch}", "2048x2048", kind, "--rounds", 5, "--batch", batch, "--same", "--silent", 0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
    for kind in ("q8_0", "q4_0", "q4_1") if "chunk" in parts else ():
        for shape in ("2048x2048", "8192x2048", "2048x8192"):
            kept.gemv(f"chunk {kind} {shape}", shape, kind, "--rounds", 5, "--batch", 512, "--silent", 0.3, megabytes="16")


def speed_table(done):
    shares = None
    lines = []
    for key, row in done.items():
        if not key.startswith("gemv "):
            continue
        if shares is None:
            shares = [round(one["silent"], 1) for one in row["shares"]]
            lines = ["| speed-up (part of the ideal), silent share | " + " | ".join(f"{share:.1f}" for share in shares) + " |", "|---" * (len(shares) + 1) + "|"]
        cells = " | ".join(f"{one['speedup']:.2f} ({one['of_ideal']:.2f})" for one in row["shares"])
        lines.append(f"| {row['rows']}×{row['cols']}, {row['type'].upper()} | {cells} |")
    return lines


def batch_table(done):
    lines = ["| type | rows of X | event-driven / dense time at a list of | switch |", "|---|---|---|---|"]
    for key, row in done.items():
        if not key.startswith("batch "):
            continue
        points = sorted((one["listed"], one["events_us"] / one["stripes_us"]) for one in row["shares"])
        cells = ", ".join(f"{100 * listed:.0f} %: {ratio:.2f}" for listed, ratio in points)
        below = [listed for listed, ratio in points if ratio <= 1]
        lines.append(f"| {row['type'].upper()} | {row['batch']} | {cells} | {100 * max(below):.0f} % |" if below else f"| {row['type'].upper()} | {row['batch']} | {cells} | never |")
    return lines if len(lines) > 2 else []


def chunk_table(done):
    lines = ["| 512 rows of X, dense | in tiles, ms | in stripes, ms | ratio |", "|---|---|---|---|"]
    for key, row in done.items():
        if key.startswith("chunk "):
            one = row["shares"][0]
            lines.append(f"| {row['rows']}×{row['cols']}, {row['type'].upper()} | {one['tiles_us'] / 1e3:.2f} | {one['stripes_us'] / 1e3:.2f} | {one['tiles_us'] / one['stripes_us']:.2f} |")
    return lines if len(lines) > 2 else []


def plot(done, path):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "mneme"})
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), constrained_layout=True, sharey=True)
    for axis, kind in zip(axes, ("q8_0", "q4_0")):
        for shape in SHAPES:
            row = done.get(f"gemv {kind} {shape}")
            if not row:
                continue
            silent = [one["silent"] for one in row["shares"]]
            axis.plot(silent, [one["speedup"] for one in row["shares"]], color=COLOURS[shape], marker="o", markersize=4, label=shape.replace("x", "×"))
            axis.plot(silent, [one["ideal"] for one in row["shares"]], color=COLOURS[shape], linestyle=":", linewidth=1)
        axis.plot([], [], color="#888", linestyle=":", label="ideal: bytes not read")
        axis.axhline(1, color="#888", linewidth=0.5)
        axis.set(xlabel="share of silent inputs", title=kind.upper(), yscale="log")
        axis.set_yticks([1, 2, 4, 8], ["1×", "2×", "4×", "8×"])
        axis.minorticks_off()
        axis.legend(frameon=False)
    axes[0].set_ylabel("speed, our dense int8 product = 1")
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", type=pathlib.Path, help="folder of spike_gemv")
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--svg", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build"), help="folder for matplotlib, if it is missing")
    parser.add_argument("--parts", default="gemv,batch,chunk")
    parser.add_argument("--prefix", default="", help="command put before every measured run")
    parser.add_argument("--only-plot", action="store_true", help="print and draw what --json already holds")
    args = parser.parse_args()
    kept = Kept(args)
    if not args.only_plot:
        measure(kept, args.parts.split(","))
    for part in (speed_table, batch_table, chunk_table):
        print("\n".join(part(kept.all)), end="\n\n")
    if args.svg:
        with_matplotlib(args.work, args.only_plot)
        plot(kept.all, args.svg)


if __name__ == "__main__":
    main()
