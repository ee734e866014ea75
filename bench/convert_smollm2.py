#!/usr/bin/env python3
"""SmolLM2-135M as a hybrid: the texts, the conversion, and what it costs in perplexity, with one command that goes on where it stopped.

Texts come from Debian packages (apt-get download: python3.11-doc, anarchism, dict-foldoc) and are divided by document: eight of ten are
trained on, one is held out for the choice of layers, one (test.txt) no part of the conversion ever sees. Both models are measured on that
one with the engine, at a context of 2,048 tokens.

parts: texts, convert (examples/recipes/smollm2-hybrid.json, or --recipe), measure, plot

    bench/convert_smollm2.py build/release/bin/mneme MODEL --work build/convert --json docs/images/conversion.json --svg docs/images/conversion.svg
"""
import argparse
import gzip
import html
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys

from plotting import with_matplotlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ["python3.11-doc", "anarchism", "dict-foldoc"]
HELD_OUT_CHARACTERS = 6000  # of each held-out document: many documents count more than much of one


def run(*command, **options):
    ran = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, **options)
    if ran.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {ran.returncode}")
    return ran.stdout


def plain(page):
    """The text of an HTML page, paragraphs apart."""
    page = re.sub(r"(?is)<(script|style|head).*?</\1>", "", page)
    page = re.sub(r"(?i)<(p|br|li|h\d|div|tr)[^>]*>", "\n", page)
    page = re.sub(r"[ \t]+", " ", html.unescape(re.sub(r"<[^>]+>", "", page)))
    return re.sub(r"\n\s*\n+", "\n\n", page).strip() + "\n\n"


def documents(unpacked):
    pages = [plain(p.read_text(errors="replace")) for p in sorted((unpacked / "anarchism").rglob("*.html")) if p.stat().st_size > 4000]
    sources = [p.read_text(errors="replace").strip() + "\n\n" for p in sorted((unpacked / "python3.11-doc").rglob("*.rst.txt")) if p.stat().st_size > 2000]
    entries = re.split(r"\n(?=\S)", gzip.open(next((unpacked / "dict-foldoc").rglob("*.dict.dz"))).read().decode("utf-8", "replace"))
    return pages, sources, ["\n".join(entries[i:i + 200]) + "\n\n" for i in range(0, len(entries), 200)]


def make_texts(work):
    folder = work / "texts"
    if (folder / "train.txt").exists():
        return
    packages, unpacked = work / "packages", work / "unpacked"
    for folder_of in (packages, unpacked):
        folder_of.mkdir(parents=True, exist_ok=True)
    run("apt-get", "download", *PACKAGES, cwd=packages)
    for package in packages.glob("*.deb"):
        run("dpkg-deb", "-x", package, unpacked / package.name.split("_")[0])
    parts = {"test": [], "valid": [], "train": []}
    for collection in documents(unpacked):
        for i, document in enumerate(collection):
            parts[{9: "test", 4: "valid"}.get(i % 10, "train")].append(document)
    folder.mkdir(exist_ok=True)
    for name, texts in parts.items():
        random.Random(1).shuffle(texts)
        (folder / f"{name}.txt").write_text("".join(t if name == "train" else t[:HELD_OUT_CHARACTERS] for t in texts))


def convert(args):
    out = args.work / "hybrid"
    if not (out / "config.json").exists():
        recipe = args.work / "recipe.json"  # its paths are relative to it
        shutil.copy(args.recipe, recipe)
        subprocess.run([args.mneme, "convert", args.model, out, "--recipe", recipe], check=True)
    return out


def layer_counts(mneme, model):
    config = json.loads(run(mneme, "inspect", model, "--json"))["config"]
    counts = {}
    for layer in config["layers"]:
        kind = layer.get("mixer", {}).get("type", config.get("defaults", {}).get("mixer", {}).get("type", "full"))
        counts[kind] = counts.get(kind, 0) + layer.get("repeat", 1)
    return counts


def measure(args, out):
    def perplexity(model):
        return json.loads(run(args.mneme, "perplexity", model, args.work / "texts/test.txt", "--ctx", "2048", "--tokens", args.tokens, "--json"))

    original, hybrid = perplexity(args.model), perplexity(out)
    return {"original": original, "hybrid": hybrid, "ratio": hybrid["ppl"] / original["ppl"], "layers": layer_counts(args.mneme, out),
            "conversion": json.loads((out / "conversion.json").read_text())}


def plot(result, svg):
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    done = 0
    for stage in result["conversion"]["stages"]:
        if "curve" not in stage:
            continue
        ratios = [1.0] + [ppl / stage["ppl_of_none"] for ppl in stage["curve"]]
        axes.plot([done + i for i in range(len(ratios))], ratios, "o-", label=f"{stage['kind']}, layers {', '.join(map(str, stage['order']))}")
    axes.axhline(result["ratio"], color="gray", linestyle="--", label=f"after distillation, unseen text: {result['ratio']:.3f}")
    axes.set(xlabel="layers converted in this stage", ylabel="perplexity / perplexity before the stage", yscale="log")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(svg)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mneme", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--recipe", type=pathlib.Path, default=ROOT / "examples/recipes/smollm2-hybrid.json")
    parser.add_argument("--tokens", type=int, default=65536, help="of the unseen text")
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--svg", type=pathlib.Path)
    parser.add_argument("--only-plot", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.only_plot:
        make_texts(args.work)
        result = measure(args, convert(args))
        args.json.write_text(json.dumps(result, indent=1) + "\n")
        print(f"perplexity {result['original']['ppl']:.3f} -> {result['hybrid']['ppl']:.3f} ({result['ratio']:.3f}), layers {result['layers']}")
    if args.svg:
        with_matplotlib(args.work, not args.only_plot)
        plot(json.loads(args.json.read_text()), args.svg)


if __name__ == "__main__":
    main()
