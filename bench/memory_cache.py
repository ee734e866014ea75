#!/usr/bin/env python3
"""Hit rate of a row cache against its budget on real text, for each n-gram order, and how n-grams are distributed.

Takes three texts from Debian packages (a manual, a dictionary, a handbook; by package name, unpacked under --work and
never installed), lets `cache_rates` hash them with DeepSeek-V4.1's geometry (bench/cache_rates.cpp says what is
simulated), and writes the numbers as JSON and a plot as SVG. Needs apt, dpkg-deb, and python3-venv for matplotlib.

    bench/memory_cache.py build/release/bin/cache_rates MODEL.gguf --work build/memory_cache \\
        --json docs/images/memory_cache.json --svg docs/images/memory_cache.svg
"""
import argparse
import gzip
import html.parser
import json
import pathlib
import re
import subprocess
import sys

from plotting import with_matplotlib

MAX_BYTES = 12_000_000  # of a text
SKIPPED = {"script", "style", "head", "nav", "footer"}
COLOURS = ["#c1440e", "#1f6feb", "#2da44e", "#444444"]


class TextOfHtml(html.parser.HTMLParser):
    """The readable text of a page; a line for each block."""

    def __init__(self):
        super().__init__()
        self.parts, self.skipping = [], 0

    def handle_starttag(self, tag, attributes):
        self.skipping += tag in SKIPPED
        if tag in ("p", "div", "li", "h1", "h2", "h3", "h4", "tr", "dt", "dd", "br"):
            self.parts.append("\n")

    def handle_endtag(self, tag):
        self.skipping -= tag in SKIPPED and self.skipping > 0

    def handle_data(self, data):
        if not self.skipping:
            self.parts.append(data)


def text_of_pages(paths):
    texts = []
    for path in sorted(paths):
        parser = TextOfHtml()
        parser.feed(path.read_text(errors="replace"))
        lines = (" ".join(line.split()) for line in "".join(parser.parts).split("\n"))
        texts.append("\n".join(line for line in lines if line))
    return "\n\n".join(texts)


def python_manual(root):
    pages = [p for p in root.rglob("*.html") if p.name not in ("genindex-all.html", "search.html")]
    return text_of_pages(p for p in pages if not p.name.startswith("genindex") and not p.is_symlink())


def dictionary(root):
    text = gzip.decompress(next(root.rglob("gcide.dict.dz")).read_bytes()).decode("utf-8", "replace")
    return re.sub(r"\s*\[[^\]\n]*Webster[^\]\n]*\]", "", text)  # the source, named after every paragraph


def handbook(root):
    return text_of_pages((root / "usr/share/doc/debian-handbook/html/en-US").glob("*.html"))


TEXTS = {"Python manual": ("python3.11-doc", python_manual), "English dictionary": ("dict-gcide", dictionary),
         "Debian handbook": ("debian-handbook", handbook)}


def fetch(package, work):
    """The unpacked files of a Debian package."""
    root = work / package
    if not root.exists():
        subprocess.run(["apt-get", "download", package], cwd=work, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["dpkg-deb", "-x", str(next(work.glob(package + "_*.deb"))), str(root)], check=True)
    return root


def measure(args):
    numbers = {}
    for name, (package, extract) in TEXTS.items():
        path = args.work / (package + ".txt")
        if not path.exists():
            path.write_text(extract(fetch(package, args.work))[:MAX_BYTES])
        ran = subprocess.run([str(args.cache_rates), str(args.model), str(path)], capture_output=True, text=True)
        if ran.returncode:
            sys.exit(f"{name}: {ran.stderr.strip()}")
        numbers[name] = {"package": package, **json.loads(ran.stdout)}
        print(f"{name}: {numbers[name]['tokens']:,} tokens", file=sys.stderr)
    return numbers


def summary(numbers):
    """Markdown: one line a text and order."""
    lines = ["| text | tokens | order | distinct | seen once | Zipf exponent | met before, 100k then 10k | met before, last tenth |",
             "|---|---|---|---|---|---|---|---|"]
    for name, of in numbers.items():
        for i, (order, stats) in enumerate(of["orders"].items()):
            exponent = stats["zipf_exponent"]
            first, last = (w["unbounded"][i] for w in of["windows"])
            lines.append(f"| {name} | {of['tokens']:,} | {order} | {stats['distinct']:,} | {stats['seen_once'] / stats['distinct']:.0%} | "
                         f"{'–' if exponent is None else format(exponent, '.2f')} | {first:.1%} | {last:.1%} |")
    return "\n".join(lines)


def plot(numbers, path):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    import matplotlib.ticker
    plt.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "mneme", "xtick.minor.visible": False, "ytick.minor.visible": False})
    figure, axes = plt.subplots(2, len(numbers), figsize=(11, 6.6), constrained_layout=True)
    labels = ["2-grams", "3-grams", "4-grams", "all rows"]
    for column, (name, of) in enumerate(numbers.items()):
        window = of["windows"][-1]
        top, bottom = axes[0][column], axes[1][column]
        budgets = [point["bytes"] / 2**20 for point in window["curve"]]
        for i, label in enumerate(labels):
            for policy, style in (("mneme", "-"), ("lru", "--"), ("static", ":")):
                rates = [100 * point[policy][i] for point in window["curve"]]
                top.plot(budgets, rates, color=COLOURS[i], linestyle=style, linewidth=1.6 if style == "-" else 1,
                         label=label if style == "-" else None)
            top.axhline(100 * window["unbounded"][i], color=COLOURS[i], linewidth=0.4)
        top.set(xscale="log", ylim=(0, 100), xlabel="budget, MiB", title=f"{name}, {of['tokens'] / 1e6:.1f} M tokens")
        for i, (order, stats) in enumerate(of["orders"].items()):
            ranks, counts = zip(*stats["rank_count"])
            exponent = stats["zipf_exponent"]
            bottom.plot(ranks, counts, color=COLOURS[i], label=f"{order}-grams" + ("" if exponent is None else f": s = {exponent:.2f}"))
        bottom.set(xscale="log", yscale="log", xlabel="rank of the n-gram")
        bottom.legend(frameon=False)
        for axis in (top.xaxis, bottom.xaxis, bottom.yaxis):
            axis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes[0][0].set_ylabel("hit rate, %")
    axes[1][0].set_ylabel("occurrences")
    axes[0][-1].legend(frameon=False, loc="upper left")
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache_rates", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path, help="any model whose tokenizer is to be used")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for packages, texts and the virtual environment")
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--svg", type=pathlib.Path)
    parser.add_argument("--only-plot", action="store_true", help="draw what --json already holds")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.only_plot:
        args.json.write_text(json.dumps(measure(args)) + "\n")
    numbers = json.loads(args.json.read_text())
    print(summary(numbers))
    if not args.svg:
        return
    with_matplotlib(args.work, args.only_plot)
    plot(numbers, args.svg)


if __name__ == "__main__":
    main()
