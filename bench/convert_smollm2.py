#!/usr/bin/env python3
"""SmolLM2-135M as a hybrid: the texts, the conversion, and what it costs in perplexity, with one command that goes on where it stopped.

Texts come from Debian packages (apt-get download: python3.11-doc, anarchism, dict-foldoc) and are divided by document: eight of ten are
trained on, one is held out for the choice of layers and the learning curve, one (test.txt) no part of the conversion ever sees. Both models
are measured on that one with the engine, at a context of 2,048 tokens. Ctrl-C, kill and --hours stop it; the same command goes on.

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
import signal
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
    missing = [name for name in PACKAGES if not list(packages.glob(f"{name}_*.deb"))]
    if missing:
        run("apt-get", "download", *missing, cwd=packages)
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
        process = subprocess.Popen([str(w) for w in (args.mneme, "convert", args.model, out, "--recipe", recipe, "--threads", args.threads)])
        try:
            code = process.wait(args.hours * 3600 if args.hours else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # which saves first
            code = process.wait()
        if code:
            sys.exit(f"the conversion stopped with exit {code}; the same command goes on from there")
    return out


def layer_counts(mneme, model):
    config = json.loads(run(mneme, "inspect", model, "--json"))["config"]
    counts = {}
    for layer in config["layers"]:
        kind = layer.get("mixer", {}).get("type", config.get("defaults", {}).get("mixer", {}).get("type", "full"))
        counts[kind] = counts.get(kind, 0) + layer.get("repeat", 1)
    return counts


def measure(args, out):
    """Perplexity of the text that the conversion never saw. Both models as f32, so that nothing but the architecture differs; the
    file as it was downloaded and the hybrid in 8 bits besides."""
    results = json.loads(args.json.read_text()) if args.json.exists() else {}

    def perplexity(name, model):
        if name not in results:
            results[name] = json.loads(run(args.mneme, "perplexity", model, args.work / "texts/test.txt", "--ctx", "2048", "--tokens",
                                           args.tokens, "--threads", args.threads, "--json"))
            save(args.json, results)
            print(f"{name}: perplexity {results[name]['ppl']:.4f}", file=sys.stderr, flush=True)

    for name, model, target in (("original_f32", args.model, args.work / "original"), ("hybrid_q8_0", out, args.work / "hybrid-q8_0.gguf")):
        if not target.exists():
            run(args.mneme, "quantize", model, f"{target}/" if name == "original_f32" else target, "--type", name.split("_", 1)[1])
        perplexity(name, target)
    perplexity("hybrid_f32", out)
    perplexity("original_file", args.model)
    results |= {"ratio": results["hybrid_f32"]["ppl"] / results["original_f32"]["ppl"], "layers": layer_counts(args.mneme, out),
                "conversion": json.loads((out / "conversion.json").read_text())}
    save(args.json, results)
    return results


def save(path, results):
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(path)


def plot(result, svg):
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "conversion"
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    original = result["conversion"]["original"]["ppl"]
    for stage in result["conversion"]["stages"]:
        if "curve" not in stage:
            continue
        ratios = [1.0] + [ppl / stage["ppl_of_none"] for ppl in stage["curve"]]
        left.plot(range(len(ratios)), ratios, "o-", label=stage.get("label") or f"{stage['kind']}: {len(stage['layers'])} taken")
        for number, (layer, ratio) in enumerate(zip(stage["order"], ratios[1:], strict=True)):
            left.annotate(str(layer), (number + 1, ratio), fontsize=6, xytext=(0, 4), textcoords="offset points")
    left.set(xlabel="layers converted (numbers: which)", ylabel="perplexity / before the stage, held-out text")
    tokens = 0
    for stage in result["conversion"]["stages"]:
        if "quality" in stage:
            xs = [tokens] + [tokens + point["tokens"] for point in stage["quality"]]
            right.plot([x / 1000 for x in xs], [r / original for r in [stage["ppl_before"]] + [point["ppl"] for point in stage["quality"]]], ".-", color="tab:blue")
            tokens = xs[-1]
    right.axhline(result["ratio"], color="tab:red", linestyle="--", label=f"unseen text, engine: {result['ratio']:.3f}")
    right.axhline(1.1, color="gray", linestyle=":", label="goal: 1.10")
    right.set(xlabel="thousands of tokens of distillation", ylabel="perplexity / original")
    for axes in (left, right):
        axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(svg, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mneme", type=lambda path: pathlib.Path(path).absolute())
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--recipe", type=pathlib.Path, default=ROOT / "examples/recipes/smollm2-hybrid.json")
    parser.add_argument("--tokens", type=int, default=65536, help="of the unseen text")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--hours", type=float, help="stop the conversion after this long")
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--svg", type=pathlib.Path)
    parser.add_argument("--only-plot", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.only_plot:
        make_texts(args.work)
        result = measure(args, convert(args))
        print(f"perplexity {result['original_f32']['ppl']:.3f} -> {result['hybrid_f32']['ppl']:.3f} ({result['ratio']:.3f}), layers {result['layers']}")
    if args.svg:
        with_matplotlib(args.work, not args.only_plot)
        plot(json.loads(args.json.read_text()), args.svg)


if __name__ == "__main__":
    main()
