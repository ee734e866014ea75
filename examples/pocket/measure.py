#!/usr/bin/env python3
"""Measures a pocket model against its two goals and prints one JSON object. Needs numpy.

    examples/pocket/measure.py MODEL [--build examples/pocket/build] [--samples 60] > pocket.json
    examples/pocket/measure.py --card models/pocket.md pocket.json      writes the figures into the model's card

Bits per byte: the model as shipped (tools/bits_per_byte.py) beside Kneser-Ney models of the same text and the same held-out
documents (tools/kneser_ney.py), over the model's own tokens and over bytes, some orders of each. These do not depend on the
model and are kept in BUILD/baseline.json.

Recital: texts sampled from the model as it is (temperature 1, nothing cut off, each from the beginning of a document) and at
temperature 0.8; the share of their windows of 10 tokens that stand in the training text (tools/window_overlap.py). The same
share of the held-out text says what is normal for texts of this kind.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

import numpy

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent.parent
sys.path.insert(0, str(TOP / "tools"))
import bits_per_byte
import kneser_ney
import token_shards
import window_overlap

SAMPLE = 256  # tokens of a text
SOURCES = ["World English Bible", "Jane Austen"]
EXCERPT = TOP / "tests/data/pocket/held_out.txt"  # the beginning of the held-out text, which the tests read


def mneme(program, *arguments, text=None):
    ran = subprocess.run([program, *map(str, arguments), "--json", "--quiet"], input=text, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(ran.stderr.strip())
    return json.loads(ran.stdout)


def sampled(program, model, count, temperature, threads):
    """Token ids of texts that the model writes."""
    out = []
    for seed in range(count):
        text = mneme(program, "generate", model, "--ids", "0", "-n", SAMPLE, "--temp", temperature, "--top-p", 1, "--top-k", 0, "--min-p", 0,
                     "--seed", seed, "--threads", threads)["text"]
        if text:
            out.append(mneme(program, "tokenize", model, "@-", text=text)["ids"])
    return out


def kneser_ney_bits(train, test, vocab, order, text_bytes):
    return float(-numpy.log2(kneser_ney.KneserNey(train, vocab, order).probabilities(test)).sum() / text_bytes)


def baseline(build, train, test, vocab, text_bytes):
    """Bits per byte of n-gram models by order, over tokens and over bytes."""
    kept = build / "baseline.json"
    if not kept.exists():
        tokens = {str(order): round(kneser_ney_bits(train, test, vocab, order, text_bytes), 4) for order in (3, 5, 6)}
        raw, _, raw_vocab = token_shards.bytes_of(build / "train.jsonl")
        raw_test, raw_bytes, _ = token_shards.bytes_of(build / "held_out.jsonl")
        raws = {str(order): round(kneser_ney_bits(raw, raw_test, raw_vocab, order, raw_bytes), 4) for order in (5, 9)}
        kept.write_text(json.dumps({"kneser_ney_tokens": tokens, "kneser_ney_bytes": raws}) + "\n")
    return json.loads(kept.read_text())


def write_card(card, r):
    """Replaces what stands between the two marks of the card."""
    def percent(x):
        return f"{100 * x:.2g} %"
    below = r["below_5_gram"]
    verdict = f"{percent(below)} below" if below >= 0 else f"{percent(-below)} above"
    rows = [("model as shipped, bits per byte of held-out text", f"**{r['model']:.3f}**"),
            ("5-gram Kneser–Ney, same tokens, same documents", f"{r['kneser_ney_tokens']['5']:.3f}"),
            ("the model is (goal: at least 10 % below)", f"**{verdict}: the goal is {'reached' if below >= 0.1 else 'missed'}**"),
            ("Kneser–Ney of tokens, orders 3 and 6", f"{r['kneser_ney_tokens']['3']:.3f}, {r['kneser_ney_tokens']['6']:.3f}"),
            ("Kneser–Ney of bytes, orders 5 and 9", f"{r['kneser_ney_bytes']['5']:.3f}, {r['kneser_ney_bytes']['9']:.3f}"),
            ("windows of 10 tokens that stand in the training text: of texts sampled at temperature 1 (goal: below 20 %)",
             f"**{percent(r['recited_at_temperature_1']['share'])}** of {r['recited_at_temperature_1']['windows']:,}"),
            ("the same at temperature 0.8", f"{percent(r['recited_at_temperature_0.8']['share'])} of {r['recited_at_temperature_0.8']['windows']:,}"),
            ("the same of the held-out text", f"{percent(r['recited_by_held_out_text']['share'])} of {r['recited_by_held_out_text']['windows']:,}"),
            ("text learned from; held out", f"{r['train']['bytes']:,} bytes, {r['train']['tokens']:,} tokens; {r['held_out']['bytes']:,} bytes, {r['held_out']['tokens']:,} tokens"),
            ("training", f"{r['trained']['steps']:,} steps, {r['trained']['tokens'] / 1e6:.1f} M tokens")]
    table = "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)
    begin, end = "<!-- figures: examples/pocket/measure.py --card -->\n", "<!-- end of figures -->"
    before, rest = card.read_text().split(begin)
    card.write_text(before + begin + table + end + rest.split(end)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the model; with --card what was measured")
    parser.add_argument("--card", type=pathlib.Path, help="only write figures into this file")
    parser.add_argument("--baseline-only", action="store_true", help="only the n-gram models")
    parser.add_argument("--build", type=pathlib.Path, default=HERE / "build", help="what train.sh left: texts and run/shards")
    parser.add_argument("--samples", type=int, default=60, help="texts for each temperature")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mneme", default=os.environ.get("MNEME_BIN", str(bits_per_byte.BUILT)))
    arguments = parser.parse_args()
    if arguments.card:
        write_card(arguments.card, json.loads(pathlib.Path(arguments.model).read_text()))
        return
    shards = arguments.build / "run/shards"
    train, train_bytes, vocab = token_shards.load(shards / "train", "train")
    test, test_bytes, _ = token_shards.load(shards / "validation", "train")
    result = {"train": {"bytes": train_bytes, "tokens": len(train)}, "held_out": {"bytes": test_bytes, "tokens": len(test)}}
    result.update(baseline(arguments.build, train, test, vocab, test_bytes))
    if arguments.baseline_only:
        print(json.dumps(result, indent=1))
        return
    bits = bits_per_byte.bits_of(arguments.mneme, arguments.model, test, vocab, 512, 256, ["--threads", str(arguments.threads)]) / test_bytes
    result["model"] = round(bits, 4)
    result["below_5_gram"] = round(1 - bits / result["kneser_ney_tokens"]["5"], 4)
    for name, temperature in (("1", 1), ("0.8", 0.8)):
        texts = sampled(arguments.mneme, arguments.model, arguments.samples, temperature, arguments.threads)
        found, total = window_overlap.overlap(train, texts, 10)
        result[f"recited_at_temperature_{name}"] = {"windows": total, "share": round(found / max(1, total), 4)}
    found, total = window_overlap.overlap(train, [test], 10)
    result["recited_by_held_out_text"] = {"windows": total, "share": round(found / total, 4)}
    scored = mneme(arguments.mneme, "perplexity", arguments.model, EXCERPT, "--ctx", 512)
    result["excerpt"] = {"tokens": scored["tokens"], "nll": round(scored["nll"], 4)}
    result["sources"] = SOURCES
    step = (arguments.build / "run/latest").read_text().strip()
    state, run = (json.loads((arguments.build / "run" / name).read_text()) for name in (f"{step}/state.json", "run.json"))
    tokens = state["step"] * run["batch"]["sequences"] * run["batch"]["accumulate"] * run["data"]["length"]
    result["trained"] = {"steps": state["step"], "tokens": tokens}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
