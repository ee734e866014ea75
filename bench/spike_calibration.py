#!/usr/bin/env python3
"""How much silence a budget of perplexity buys: `mneme convert` with a calibration, and its figures as Markdown.

One calibration gives the neurons of each projection at --budget and the points of perplexity against silence that it measured, among them
one at each of --curve. What was measured is kept in --json; with the file there, only the tables are printed, so delete it to measure again.
The texts of bench/convert_smollm2.py (part texts) are two that share no document.

    bench/spike_calibration.py build/release/bin/mneme MODEL.gguf --train train.txt --held-out test.txt --out quiet.gguf --json docs/images/spike_calibration.json
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile


def calibrate(args):
    stage = {"kind": "calibrate", "budget": args.budget, "tokens": args.tokens, "probe_tokens": args.probe_tokens, "curve": args.curve}
    data = {"train": [str(args.train.resolve())], "validation": [str(args.held_out.resolve())], "context": args.ctx, "tokens": args.held_out_tokens}
    with tempfile.TemporaryDirectory() as folder:
        recipe = pathlib.Path(folder) / "recipe.json"
        recipe.write_text(json.dumps({"mneme_convert": 1, "data": data, "stages": [stage]}))
        command = [args.mneme.resolve(), "convert", args.model, args.out, "--recipe", recipe, "--json", "--threads", args.threads]
        ran = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if ran.returncode:
        sys.exit(ran.returncode)
    result = json.loads(ran.stdout)
    result.pop("out")
    result |= {"model": args.model.name, "context": args.ctx}
    partial = args.json.with_name(args.json.name + ".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(partial, args.json)
    return result


def spread(values, digits=1):
    return f"{min(values):.{digits}f} … {max(values):.{digits}f}" if len(values) > 1 else f"{values[0]:.{digits}f}"


def tables(result):
    kinds = {}
    for neuron in result["projections"]:
        kinds.setdefault(neuron["name"], []).append(neuron)
    print("| projections | k | dead zone / k | silent, all layers | least … most silent layer | of all bytes |\n|---|---|---|---:|---|---:|")
    for name, neurons in kinds.items():
        silent = sum(n["bytes"] * n["silent"] for n in neurons) / sum(n["bytes"] for n in neurons)
        ks = sorted({n["k"] for n in neurons})
        print(f"| {name} | {', '.join(f'{k:g}' for k in ks)} | {spread([n['dead_zone'] / n['k'] for n in neurons], 2)} | {silent:.1%} | "
              f"{spread([100 * n['silent'] for n in neurons])} % | {sum(n['skipped'] for n in neurons):.1%} |")
    print(f"| all | | | {result['silent']:.1%} | | {result['model_silent']:.1%} |\n")
    print("| bytes of these projections that are silent | of all bytes that a token reads | perplexity | more |\n|---:|---:|---:|---:|")
    for point in sorted(result["curve"], key=lambda p: p["silent"]):
        print(f"| {point['silent']:.1%} | {point['model_silent']:.1%} | {point['ppl']:.3f} | {point['more']:+.2%} |")
    held_out = result["held_out"]
    print(f"\n{result['model']}, windows of {result['context']}: perplexity {result['ppl_before']:.3f} -> {result['ppl_after']:.3f} "
          f"({result['ppl_after'] / result['ppl_before'] - 1:+.2%}, {result['tokens']} tokens scored), held-out text {held_out['ppl_before']:.3f} -> "
          f"{held_out['ppl_after']:.3f} ({held_out['ppl_after'] / held_out['ppl_before'] - 1:+.2%}, {held_out['tokens']} tokens), {result['seconds']:.0f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mneme", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--train", type=pathlib.Path, required=True)
    parser.add_argument("--held-out", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the calibrated model, GGUF")
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--budget", type=float, default=0.02)
    parser.add_argument("--curve", type=float, nargs="*", default=[0.01, 0.05, 0.1, 0.2])
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--probe-tokens", type=int, default=512)
    parser.add_argument("--held-out-tokens", type=int, default=16384)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    tables(json.loads(args.json.read_text()) if args.json.exists() else calibrate(args))


if __name__ == "__main__":
    main()
