"""docs/experiments.md and its pictures, from the results that run.py has written; nothing in them is written by hand."""
import inspect
import json

import picture
from designs import EXPERIMENTS
from sizes import SIZES

HEAD = """# Experiments

Claims of two articles, Engram (arXiv 2601.07372) and SpikingBrain (arXiv 2509.05276), in miniature: which of them can be
seen in models that one machine trains in minutes or hours? This page is made from `docs/experiments/*.json` by
`examples/experiments/run.py --report`; each file is made by one command, which goes on where it was stopped:

```sh
examples/experiments/run.py rows --size small                       # minutes
examples/experiments/run.py rows --size published --minutes 60      # an hour of it; the same command again goes on
```

**How to read it.** Losses are nats a token on held-out documents, lower is better: mean ± sample standard deviation over seeds. A
seed decides first weights, tables and the order of data. *Equal tuning*: every variant tried the same learning rates with the
first seed and kept the best (marked ¹ if that was the lowest or highest of them, so that a better one may lie beyond). Rates
are chosen, and results reported, on the same held-out text, for every variant alike. Differences are paired by seed and have a
95 % interval by Student's t (`examples/experiments/paired.py`), not corrected for the number of comparisons. **null** means that
the interval includes 0: no effect was shown, which is not the same as no effect. Three seeds show large effects only.

**What a size is.** A result of a small model and few tokens says little about large ones: the articles' models are a
thousand times larger and saw ten thousand times more. Results of sizes that have not been run are not here.
"""

SETTING = ("`{name}`: {about}. {layers} layers, {d_model} wide, vocabulary {vocab:,}, {tokens:,} tokens in sequences of {length} unless said otherwise; Muon, "
           "cosine schedule, learning rates {rates}; reference table: orders 2 and 3, 2 heads each of {rows:,} rows of {row_dim} values.")


def load(folder):
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in EXPERIMENTS if (folder / f"{name}.json").exists()}


def number(value, digits=4):
    return f"{value:.{digits}f}".replace("-", "−")


def interval(found, digits=4):
    if found["low"] is None:
        return number(found["difference"], digits)
    return f"{number(found['difference'], digits)} [{number(found['low'], digits)}, {number(found['high'], digits)}]"


def spread_text(measure, digits):
    mean, sd = measure.get("mean"), measure.get("sd")
    return number(mean, digits) + (f" ± {number(sd, digits)}" if sd is not None else "")


def variant_table(variants):
    out = ["| variant | | parameters | of which rows | tokens | learning rate | loss |", "|---|---|---|---|---|---|---|"]
    for variant in variants:
        out.append(f"| {variant['name']} | {variant['about']} | {variant['parameters']:,} | {variant['table_parameters']:,} | {variant['tokens']:,} | "
                   f"{variant['lr']:g}{' ¹' if variant['lr_at_edge'] else ''} | {spread_text(variant, 4)} |")
    return out


def measure_line(measure):
    digits = 5 if "slope" in measure["name"] else 1 if "over the conversion" in measure["name"] else 3
    bounds = measure.get("bounds", [""] * len(measure["values"]))
    seeds = ", ".join(bound + number(value, digits) for bound, value in zip(bounds, measure["values"]))
    if "difference" in measure:
        return f"- {measure['name']}: {interval(measure, digits)}, n = {measure['n']}: **{measure['reading']}**; seeds {seeds}"
    return f"- {measure['name']}: {spread_text(measure, digits)}; seeds {seeds}"


def section(result, svg):
    speeds = ", ".join(f"{variant['name']} {variant['tokens_per_second']:,.0f}" for variant in result["variants"])
    out = [f"### {result['size']} size, seeds {', '.join(map(str, result['seeds']))}", ""] + variant_table(result["variants"]) + ["", f"![{result['experiment']}]({svg})", ""]
    out += ["| paired difference of losses | mean [95 % interval] | n | reading |", "|---|---|---|---|"]
    out += [f"| {pair['a']} − {pair['b']} | {interval(pair)} | {pair['n']} | **{pair['reading']}** |" for pair in result["pairs"]]
    out += [""] + [measure_line(measure) for measure in result.get("measures", [])]
    if result.get("note"):
        out += ["", result["note"]]
    if result["experiment"] == "hybrid":
        out += ["", f"Tokens a second in training (median of steps): {speeds}."]
    return out + [""]


def draw(result):
    label = "held-out loss, nats a token"
    named = {variant["name"]: variant for variant in result["variants"]}
    if "line" in result:
        of = result["line"]
        return picture.trend(of["x"], [named[name] for name in of["names"]], of["label"], label, named.get(of.get("level")))
    if "curve" in result:
        of = result["curve"]
        return picture.curve(of["points"], of["marks"], of["label"] + " (line: hybrid from scratch, first seed; dots: converted, at the conversion's tokens)", label)
    return picture.dots(result["variants"], label)


def write(docs):
    """docs/experiments.md and docs/experiments/*.svg from docs/experiments/*.json."""
    folder = docs / "experiments"
    found = load(folder)
    lines = [HEAD]
    for name in SIZES:
        if any(name in results for results in found.values()):
            size = SIZES[name]
            fields = {field: getattr(size, field) for field in ("name", "about", "layers", "d_model", "vocab", "tokens", "length", "rows", "row_dim")}
            lines += [SETTING.format(**fields, rates=", ".join(f"{rate:g}" for rate in size.rates)), ""]
    for name, experiment in EXPERIMENTS.items():
        lines += [f"## {name}", "", inspect.cleandoc(experiment.__doc__), ""]
        if not found.get(name):
            lines += [f"Not run yet: `examples/experiments/run.py {name} --size small`.", ""]
        for size in SIZES:
            if result := found.get(name, {}).get(size):
                svg = f"{name}-{size}.svg"
                (folder / svg).write_text(draw(result))
                lines += section(result, f"experiments/{svg}")
    (docs / "experiments.md").write_text("\n".join(lines).rstrip() + "\n")
