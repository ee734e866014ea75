#!/usr/bin/env python3
"""What spikes cost in perplexity: the table that SpikingBrain's report does not have, for any model, resumable.

rows      activations of all projections: float, int8 (the engine's, blocks of 32), int4 (a row's absmax), and spikes at
          k = 2, 2.5, 3, 3.5, 4
columns   the model's own weights (A-spike), or these rounded to 8 bits (W8; Q8_0: groups of 32, finer than W8ASpike's of
          128), with down_proj like the others or left float as the published code of W8ASpike leaves it

A cell is `mneme perplexity` over the same tokens, a JSON file in --cells that is not measured again; cells that say most come
first. The output head reads int8 or float as it would anyway, in every cell the same. At the end the smallest k within
--budget of float is sought by bisection, with and without down_proj (k to 0.1).

    bench/spike_perplexity.py build/release/bin/mneme MODEL --text TEXT --name smollm2-135m --threads 1 --cells build/spike-cells \\
        --markdown docs/tables/spike_perplexity.md
"""
import argparse
import json
import pathlib
import subprocess
import sys
import time

KS = (3, 2, 4, 2.5, 3.5)  # in the order of measuring
PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
DOWNS = (("all", "all projections"), ("no-down", "down_proj float"))


def policy(activation, down="all"):
    """As --activation takes it, and so that the output head stays as it is."""
    if activation.startswith("k"):
        return f"spike:k={activation[1:]}" + (",down=float" if down == "no-down" else "")
    types = {name: activation for name in PROJECTIONS} | ({"down": "float"} if down == "no-down" else {})
    return "auto:" + ",".join(f"{name}={kind}" for name, kind in types.items())


def cells(ks):
    """(weights, activation, down) in the order of measuring."""
    first, rest = [f"k{k:g}" for k in ks[:1]], [f"k{k:g}" for k in ks[1:]]
    out = [("own", "float", "all"), ("own", first[0], "all"), ("own", first[0], "no-down"), ("w8", "float", "all"), ("w8", first[0], "all"),
           ("w8", first[0], "no-down"), ("own", "int8", "all"), ("own", "int4", "all")]
    for down, _ in DOWNS:
        out += [("own", k, down) for k in rest]
    out += [("own", "int4", "no-down"), ("own", "int8", "no-down"), ("w8", "int8", "all"), ("w8", "int4", "all")]
    for down, _ in DOWNS:
        out += [("w8", k, down) for k in rest]
    return out


class Table:
    def __init__(self, args):
        self.args = args
        args.cells.mkdir(parents=True, exist_ok=True)
        self.models = {"own": args.model}
        self.failures = []

    def path(self, cell):
        return self.args.cells / f"{self.args.name}.{'.'.join(cell)}.{self.args.tokens}.{self.args.ctx}.json"

    def known(self, cell):
        path = self.path(cell)
        return json.loads(path.read_text()) if path.exists() else None

    def run(self, *command):
        ran = subprocess.run([*self.args.prefix.split(), str(self.args.mneme), *map(str, command)], capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(f"mneme {' '.join(map(str, command))}: {ran.stderr.strip()[-300:]}")
        return ran.stdout

    def model(self, weights):
        """The model with those weights, made when it is first asked for."""
        if weights not in self.models:
            made = self.args.cells / f"{self.args.name}-{self.args.w8}.gguf"
            if not made.exists():
                self.run("quantize", self.args.model, made, "--type", self.args.w8, "--threads", self.args.threads, "--quiet")
            self.models[weights] = made
        return self.models[weights]

    def measure(self, cell):
        weights, activation, down = cell
        began = time.monotonic()
        result = json.loads(self.run("perplexity", self.model(weights), self.args.text, "--ctx", self.args.ctx, "--tokens", self.args.tokens,
                                     "--activation", policy(activation, down), "--threads", self.args.threads, "--json", "--quiet"))
        result |= {"weights": weights, "activation": activation, "down": down, "policy": policy(activation, down),
                   "seconds": round(max(time.monotonic() - began, 1e-3), 3)}
        part = self.path(cell).with_suffix(".partial")
        part.write_text(json.dumps(result, indent=1) + "\n")
        part.rename(self.path(cell))
        return result

    def get(self, cell, progress=""):
        found = self.known(cell)
        if found is None and time.monotonic() < self.args.deadline:
            try:
                found = self.measure(cell)
            except RuntimeError as failure:  # the other cells are not lost by it
                self.failures.append(str(failure))
                print(failure, file=sys.stderr, flush=True)
                return None
            print(f"{progress}{' '.join(cell)}: perplexity {found['ppl']:.4f} ± {found['stderr']:.4f}, {found['seconds']:.0f} s, "
                  f"{self.args.tokens / found['seconds']:.0f} tokens/s", file=sys.stderr, flush=True)
            self.write()
        return found

    def ratio(self, cell):
        found, base = self.known(cell), self.known(("own", "float", "all"))
        return found["ppl"] / base["ppl"] if found and base else None

    def smallest_k(self, down):
        """Bisection to 0.1 over k; None where a cell is not measured, or where none up to 8 is within the budget."""
        def within(k):
            cell = ("own", f"k{k:g}", down)
            return None if self.get(cell) is None else self.ratio(cell) <= 1 + self.args.budget

        low, high = 1.0, 8.0
        for k in sorted(KS):  # what the table knows narrows it at no cost
            ratio = self.ratio(("own", f"k{k:g}", down))
            if ratio is not None:
                low, high = (max(low, k), high) if ratio > 1 + self.args.budget else (low, min(high, k))
        answer = high if high < 8 else (8.0 if within(8.0) else None)
        while answer and high - low > 0.1001:
            middle = round((low + high) / 2, 1)
            if middle in (low, high):
                break
            ok = within(middle)
            if ok is None:
                return None
            low, high = (low, middle) if ok else (middle, high)
        return round(high, 1) if answer else None

    def known_k(self, down):
        """The bracket that measured cells give: the largest k beyond the budget and the smallest within."""
        measured = {}
        for path in self.args.cells.glob(f"{self.args.name}.own.k*.{down}.{self.args.tokens}.{self.args.ctx}.json"):
            value = json.loads(path.read_text())
            measured[float(value["activation"][1:])] = value["ppl"]
        base = self.known(("own", "float", "all"))
        limit = base["ppl"] * (1 + self.args.budget) if base else 0
        return (max((k for k, ppl in measured.items() if ppl > limit), default=None),
                min((k for k, ppl in measured.items() if ppl <= limit), default=None))

    def text(self, cell):
        found, ratio = self.known(cell), self.ratio(cell)
        return "not measured" if found is None else f"{found['ppl']:.3f}" + (f" ({100 * ratio - 100:+.2f} %)" if ratio else "")

    def markdown(self):
        base = self.known(("own", "float", "all"))
        rows = [f"**{self.args.name}**, {self.args.tokens:,} tokens of {self.args.text.name} in windows of {self.args.ctx}"
                + (f", {base['tokens']:,} of them scored; float ± {base['stderr']:.3f}" if base else ""), "",
                f"| activations | own weights, {DOWNS[0][1]} | own weights, {DOWNS[1][1]} | W8, {DOWNS[0][1]} | W8, {DOWNS[1][1]} |", "|---|---:|---:|---:|---:|"]
        for activation in ["float", "int8", "int4"] + [f"k{k:g}" for k in sorted(KS)]:
            label = f"spikes, k = {activation[1:]}" if activation.startswith("k") else activation
            columns = []
            for weights in ("own", "w8"):
                for down, _ in DOWNS:
                    same = activation == "float" and down != "all"
                    cell = (weights, activation, down)
                    columns.append("the same" if same else "" if (weights, activation) in (("w8", "int8"), ("w8", "int4")) and down != "all" else self.text(cell))
            rows.append(f"| {label} | " + " | ".join(columns) + " |")
        rows.append("")
        for down, name in DOWNS:
            beyond, within = self.known_k(down)
            found = f"{within:g}" if within else "none measured"
            rows.append(f"Smallest k measured within {100 * self.args.budget:g} % of float, own weights, {name}: **{found}**"
                        + (f" ({beyond:g} is beyond)." if beyond else "."))
        return "\n".join(rows) + "\n"

    def write(self):
        if self.args.markdown:
            self.args.markdown.parent.mkdir(parents=True, exist_ok=True)
            self.args.markdown.write_text(self.markdown())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mneme", type=lambda path: pathlib.Path(path).absolute())
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--name", required=True, help="of the model, in file names and the table")
    parser.add_argument("--cells", type=pathlib.Path, required=True, help="folder of results")
    parser.add_argument("--tokens", type=int, default=102400, help="of the text; half of them are scored")
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=0.03)
    parser.add_argument("--w8", default="q8_0", help="type of the weights W8")
    parser.add_argument("--markdown", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no cell after so long")
    parser.add_argument("--prefix", default="", help="before every command, such as 'nice -n 19'")
    parser.add_argument("--print", action="store_true", help="measure nothing, print the table")
    args = parser.parse_args()
    args.deadline = time.monotonic() + args.minutes * 60
    table = Table(args)
    if not args.print:
        wanted = cells(KS)
        for number, cell in enumerate(wanted, 1):
            table.get(cell, f"[{number}/{len(wanted)}] ")
        for down, name in DOWNS:
            k = table.smallest_k(down)
            print(f"smallest k within {100 * args.budget:g} % of float, {name}: {'not known yet' if k is None else k}", file=sys.stderr)
        table.write()
    print(table.markdown())
    if table.failures:
        sys.exit(f"{len(table.failures)} cells failed, the first one: {table.failures[0]}")


if __name__ == "__main__":
    main()
