#!/usr/bin/env python3
"""What silent inputs are worth at decode: a model whose projections read spikes against the same file with int8 activations, and against
llama.cpp on that file.

Variants of the model decode the same real text in turn, in one process (bench/spike_decode.cpp), all threads; after each such run
llama.cpp decodes 128 tokens at its best setting, in even rounds before it. So a ratio is always of runs that were neighbours; the table
has medians and the 95 % interval of the median ratio.

variants: --silent 0.3,0.5 finds for each share the dead zone (the same for all projections, by bisection on the text) at which so much of
the weights' inputs is silent; --spike k=16,dead_zone=12 forces that neuron; --calibrated FILE is a model that says itself. The first
variant is always MODEL with int8 activations. With --perplexity N the perplexity of each over N tokens of the text stands beside.
--batches 1,2,4,8 measures so many sequences at a time besides (without the peer), and how much their events overlap.

    bench/setup_peer.sh
    bench/spike_decode.py build/release/bin build/peer/models/smollm2-135m-q8_0.gguf --silent 0.3,0.5,0.7 --peer build/peer \\
        --work build/spike_decode --json docs/images/spike_decode.json
What was measured is kept in --json by model; an interrupted run goes on where it stopped. The text is the language reference that ships
with Python unless --text names a file.
"""
import argparse
import json
import pathlib
import pydoc_data.topics
import shlex
import statistics
import subprocess
import sys

from medians import median_interval

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench/peer"))
from vs_llamacpp import Peer, best_setting  # noqa: E402


def run(args, program, *command, timed=True):
    ran = subprocess.run([*shlex.split(args.prefix if timed else args.side_prefix), str(args.bin / program), *map(str, command)], capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{program} {' '.join(map(str, command))}: exit {ran.returncode}: {ran.stderr.strip()[-400:]}")
    return json.loads(ran.stdout)


def decode(args, variants, *more, timed=True):
    return run(args, "spike_decode", *variants, "--text", args.text, "--window", 128, "--threads", args.threads, *more, timed=timed)


def dead_zone_for(args, silent):
    """The dead zone, in thresholds, at which the share `silent` of the inputs is silent; to 0.5 % of that share."""
    low, high = 0.0, 8 * args.k
    for _ in range(14):
        middle = (low + high) / 2
        got = decode(args, [f"{args.model}=spike:k={args.k},dead_zone={middle:.4f}"], "--rounds", 0, timed=False)["variants"][0]["spikes"]["silent"]
        if abs(got - silent) < 0.005 * silent:
            break
        low, high = (middle, high) if got < silent else (low, middle)
    return round(middle, 4)


class Kept:
    """What --json holds, saved after every measurement."""

    def __init__(self, path, model, settings):
        self.path, self.all = path, json.loads(path.read_text()) if path.exists() else {}
        self.model = self.all.setdefault(model, {})
        if self.model.get("settings") != settings:
            self.model.clear()
            self.model["settings"] = settings

    def measure(self, key, what):
        if key not in self.model:
            self.model[key] = what()
            partial = self.path.with_suffix(".part")
            partial.write_text(json.dumps(self.all, indent=1) + "\n")
            partial.replace(self.path)
            print(f"{self.path.name}: {key}", file=sys.stderr, flush=True)
        return self.model[key]


def measure(args, kept):
    zones = {silent: kept.measure(f"dead zone {silent}", lambda silent=silent: dead_zone_for(args, silent)) for silent in args.silent}
    variants = [f"{args.model}=int8"]
    variants += [f"{args.model}=spike:k={args.k},dead_zone={zone}" for zone in zones.values()]
    variants += [f"{args.model}=spike:{neuron}" for neuron in args.spike] + [str(path) for path in args.calibrated]
    peer = Peer(args.peer.resolve(), shlex.split(args.prefix), []) if args.peer else None
    if peer:
        setting = kept.measure("peer setting", lambda: best_setting(peer, args.model, "tg128"))
    kept.measure("profile", lambda: decode(args, variants, "--rounds", 0, "--profile", "--density", 0)["variants"])
    for number in range(args.rounds):
        def ours():
            return decode(args, variants, "--rounds", args.blocks, "--block", args.block)

        def theirs():
            return peer.rate(args.model, "tg128", setting)[0]
        steps = [("decode", ours)] + ([("peer", theirs)] if peer else [])
        for name, what in steps if number % 2 else steps[::-1]:
            kept.measure(f"{name} {number}", what)
    for batch in args.batches:
        kept.measure(f"batch {batch}", lambda batch=batch: decode(args, variants, "--rounds", args.blocks, "--block", args.block, "--batch", batch))
    for variant in variants if args.perplexity else []:
        path, _, activation = variant.partition("=")
        more = ["--activation", activation] if activation else []
        kept.measure(f"perplexity {variant}", lambda path=path, more=more: run(
            args, "mneme", "perplexity", path, args.text, "--ctx", 1024, "--tokens", args.perplexity, "--threads", args.threads, "--json", "--quiet", *more, timed=False))


# ---- what the numbers say


def ratio_text(ratios):
    median, low, high = median_interval(ratios)
    return f"**{median:.2f}×** [{low:.2f}–{high:.2f}]"


def name_of(variant):
    path, _, activation = variant.partition("=")
    return activation.replace("spike:", "") or pathlib.Path(path).stem


def table(done):
    rounds = [done[key] for key in sorted(done) if key.startswith("decode ")]
    numbers = [key.split()[1] for key in sorted(done) if key.startswith("decode ")]
    peers = [done.get(f"peer {number}") for number in numbers]
    lines = ["| activation | silent | of all weights | tokens/s | our int8 | llama.cpp | perplexity |", "|---|---|---|---|---|---|---|"]
    for v, variant in enumerate(rounds[0]["variants"]):
        times = [[row["variants"][i]["ms"] for row in rounds] for i in (0, v)]
        own = [base / one for bases, ones in zip(*times) for base, one in zip(bases, ones)]
        rates = [1e3 / statistics.median(one) for one in times[1]]
        against = ratio_text([rate / peer for rate, peer in zip(rates, peers)]) if None not in peers else ""
        spikes, ppl = variant["spikes"], done.get(f"perplexity {variant['variant']}", {}).get("ppl")
        base_ppl = done.get(f"perplexity {rounds[0]['variants'][0]['variant']}", {}).get("ppl")
        lines.append(f"| {name_of(variant['variant'])} | {100 * spikes['silent']:.0f} % | {100 * spikes['silent'] * spikes['spiking']:.0f} % | "
                     f"{statistics.median(rates):.1f} | {ratio_text(own) if v else '1'} | {against} | "
                     f"{f'{ppl:.3f} ({100 * (ppl / base_ppl - 1):+.1f} %)' if ppl else ''} |")
    if None not in peers:
        lines.append(f"llama.cpp ({done['peer setting']}): {statistics.median(peers):.1f} tokens/s")
    return lines


def batches(done):
    lines = ["| activation | batch | inputs that some sequence fires | event-driven products | ms a step | our int8, ms | ratio |", "|---|---|---|---|---|---|---|"]
    rows = sorted((int(key.split()[1]), row["variants"]) for key, row in done.items() if key.startswith("batch "))
    for v in range(1, len(rows[0][1]) if rows else 0):
        for batch, variants in rows:
            union = next(one for one in variants[v]["spikes"]["union"] if one["batch"] == batch)
            ratios = [base / one for base, one in zip(variants[0]["ms"], variants[v]["ms"])]
            lines.append(f"| {name_of(variants[v]['variant'])} | {batch} | {100 * union['listed']:.0f} % | {100 * union['events']:.0f} % | "
                         f"{statistics.median(variants[v]['ms']):.2f} | {statistics.median(variants[0]['ms']):.2f} | {ratio_text(ratios)} |")
    return lines if rows else []


def profile(done):
    lines = []
    for variant in done.get("profile", []):
        parts = variant["profile_us"]
        lines.append(f"{name_of(variant['variant'])}: " + ", ".join(f"{kind} {us:.0f} ({begin:.0f})" for kind, (us, begin) in parts.items()) + f"; {sum(us for us, _ in parts.values()):.0f} µs a token (before products)")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", type=pathlib.Path, help="folder of mneme and spike_decode")
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--silent", type=lambda text: [float(word) for word in text.split(",") if word], default=[0.3, 0.5, 0.7])
    parser.add_argument("--k", type=float, default=16, help="of --silent")
    parser.add_argument("--spike", action="append", default=[], help="k=NUMBER,dead_zone=NUMBER,...")
    parser.add_argument("--calibrated", type=pathlib.Path, action="append", default=[])
    parser.add_argument("--peer", type=pathlib.Path, help="folder made by bench/setup_peer.sh; without it llama.cpp is left out")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5, help="processes")
    parser.add_argument("--blocks", type=int, default=6, help="blocks of a process")
    parser.add_argument("--block", type=int, default=32, help="steps of a block")
    parser.add_argument("--batches", type=lambda text: [int(word) for word in text.split(",") if word], default=[])
    parser.add_argument("--perplexity", type=int, default=0, help="tokens")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--prefix", default="", help="command put before every timed run")
    parser.add_argument("--side-prefix", default="", help="command put before the others")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.text:
        args.text = args.work / "text.txt"
        args.text.write_text("\n\n".join(body for _, body in sorted(pydoc_data.topics.topics.items())))
    settings = {"silent": args.silent, "k": args.k, "spike": args.spike, "calibrated": [path.name for path in args.calibrated], "block": args.block}
    kept = Kept(args.json, args.model.stem, settings)
    measure(args, kept)
    for part in (table, batches, profile):
        print("\n".join(part(kept.model)), end="\n\n")


if __name__ == "__main__":
    main()
