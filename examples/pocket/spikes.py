#!/usr/bin/env python3
"""The pocket model with spikes: trains it to fire less (examples/pocket/spikes.json) from several seeds, and beside it what tells
apart where a difference comes from.

    examples/pocket/spikes.py [--seeds 1,2,3] [--threads 1]                    trains, measures, prints one JSON object
    examples/pocket/spikes.py --card docs/spikes.md build/spikes/spikes.json   writes the figures into the page

    shipped      the model as it is, int8 activations
    fine-tuned   the same training without neurons: what more training alone is worth
    untrained    the recipe's last neurons in the model as it is
    no price     the spike stage without its penalty
    spike stage  the recipe

Each model is measured as a q8_0 file: perplexity of the held-out text, and the part of the weights behind spiking projections
that no input reads. The texts are those of train.sh (or only gather_text.py). Every model that is done is kept in build/spikes/, an
unfinished one goes on: run it again after Ctrl-C. A seed decides the order of the training text.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent.parent
MODEL = TOP / "models/pocket.gguf"
BUILT = TOP / "build/release/bin/mneme"
BEGIN, END = "<!-- figures: examples/pocket/spikes.py --card -->\n", "<!-- end of figures -->"
MEASURED = 80_000  # characters of the held-out text
PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")  # those of a spike stage, unless it names others
NEURONS = ("k", "dead_zone", "anneal", "penalty", "width", "log_every", "projections")


def variants(recipe, seeds):
    """(name, seed, stages) of every model that is made."""
    stage, = recipe["stages"]
    last = {name: value[-1] if isinstance(value, list) else value for name, value in stage.items() if name != "anneal"}
    plain = {name: value for name, value in stage.items() if name not in NEURONS} | {"kind": "distill", "train": ["all"]}
    free = {name: value for name, value in stage.items() if name not in ("penalty", "width")}
    yield "untrained", 0, [{name: value for name, value in last.items() if name not in ("tokens", "warmup")} | {"steps": 0}]
    for seed in seeds:
        yield "spike stage", seed, [stage]
    for seed in seeds:
        yield "no price", seed, [free]
    for seed in seeds:
        yield "fine-tuned", seed, [plain]


class Work:
    def __init__(self, arguments):
        self.program, self.threads = arguments.mneme, str(arguments.threads)
        self.build = arguments.build
        self.out = arguments.build / "spikes"
        self.out.mkdir(parents=True, exist_ok=True)

    def mneme(self, *words, **options):
        command = [self.program, *map(str, words), "--threads", self.threads]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, **options)
        if ran.returncode:
            raise SystemExit(f"{' '.join(command)}: exit {ran.returncode}")
        return ran.stdout

    def texts(self):
        if not (self.build / "sizes.json").exists():
            subprocess.run([sys.executable, HERE / "gather_text.py", self.build], check=True)
        text = "\n\n".join(json.loads(line)["text"] for line in (self.build / "held_out.jsonl").read_text().splitlines())
        (self.out / "held_out.txt").write_text(text[:MEASURED])

    def model(self, name, seed, recipe, stages):
        """Trains, or goes on, and makes the file; its path and its report."""
        stem = f"{name.replace(' ', '_')}-{seed}"
        folder, written = self.out / stem, self.out / f"{stem}.json"
        file = self.out / "files" / stem / "pocket.gguf"  # with its own pocket.engram beside it
        paths = {field: [str(self.build / pathlib.Path(p).relative_to("build")) for p in recipe["data"][field]] for field in ("train", "validation")}
        written.write_text(json.dumps(recipe | {"seed": seed, "stages": stages, "data": recipe["data"] | paths}, indent=1) + "\n")
        if not (folder / "conversion.json").exists():
            self.mneme("convert", MODEL, folder, "--recipe", written)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            self.mneme("quantize", folder, file, "--type", "q8_0", "--with-tables", "--quiet")
        return file, json.loads((folder / "conversion.json").read_text())["stages"][0]

    def measured(self, name, seed, file, report=None):
        """What the engine makes of a model; kept beside it."""
        kept = self.out / f"measured-{name.replace(' ', '_')}-{seed}.json"
        if not kept.exists():
            text = self.out / "held_out.txt"
            scored = json.loads(self.mneme("perplexity", file, text, "--ctx", 512, "--json", "--quiet"))
            out = {"model": name, "seed": seed, "tokens": scored["tokens"], "ppl": scored["ppl"], "stderr": scored["stderr"]}
            if report and "activity" in report:
                shown = json.loads(self.mneme("spikes", file, "-f", text, "--ctx", 512, "--no-ppl", "--json", "--quiet"))
                spiking = [(p["name"].split(".")[-1], p["silent"], p["inputs"] * p["outputs"]) for p in shown["projections"]]
                spiking = [p for p in spiking if p[0] in PROJECTIONS]
                out["silent"] = sum(s * w for _, s, w in spiking) / sum(w for _, _, w in spiking)
                out["by_projection"] = {kind: round(statistics.fmean(s for name, s, _ in spiking if name == kind), 4) for kind in ("q", "o", "gate", "down")}
                out["curve"] = [{f: line[f] for f in ("tokens", "loss", "k", "dead_zone", "silent")} for line in report.get("curve", [])]
                out["seconds"] = round(report["seconds"], 1)
            kept.write_text(json.dumps(out) + "\n")
        return json.loads(kept.read_text())


def measure(arguments):
    work = Work(arguments)
    work.texts()
    recipe = json.loads((HERE / "spikes.json").read_text())
    if arguments.tokens:
        recipe["stages"][0] |= {"tokens": arguments.tokens, "warmup": 0}
    result = {"recipe": recipe["stages"][0], "models": [work.measured("shipped", 0, MODEL)]}
    for name, seed, stages in variants(recipe, arguments.seeds):
        file, report = work.model(name, seed, recipe, stages)
        result["models"].append(work.measured(name, seed, file, report))
        (work.out / "spikes.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def spread(values):
    """Mean, and standard deviation where there are several."""
    mean = statistics.fmean(values)
    return mean, statistics.stdev(values) if len(values) > 1 else None


def written(values, form):
    mean, deviation = spread(values)
    return form(mean) + (f" ± {form(deviation)}" if deviation is not None else "")


def card(result):
    of = {}
    for model in result["models"]:
        of.setdefault(model["model"], []).append(model)
    base = of["shipped"][0]["ppl"]
    names = {"shipped": "as shipped (int8 activations)", "fine-tuned": "fine-tuned as much, no neurons", "untrained": "neurons, not trained",
             "no price": "spike stage without penalty", "spike stage": "**spike stage**"}
    rows = []
    for name, label in names.items():
        if name not in of:  # of a run that is not finished
            continue
        models = of[name]
        silent = [m["silent"] for m in models if "silent" in m]
        rows.append((label, len(models), written([m["ppl"] for m in models], lambda x: f"{x:.2f}"),
                     written([m["ppl"] / base for m in models], lambda x: f"{x:.3f}"),
                     written([100 * s for s in silent], lambda x: f"{x:.1f}") + " %" if silent else "–"))
    table = "| model | seeds | perplexity | of the shipped | weights not read |\n|---|---:|---:|---:|---:|\n"
    table += "".join(f"| {label} | {seeds} | {ppl} | {ratio} | {silent} |\n" for label, seeds, ppl, ratio, silent in rows)
    kinds = {kind: [m["by_projection"][kind] for m in of["spike stage"]] for kind in ("q", "o", "gate", "down")}
    before = of["untrained"][0]["by_projection"]
    shares = ", ".join(f"{label} {100 * before[k]:.0f} → {100 * statistics.fmean(kinds[k]):.0f} %"
                       for k, label in (("q", "q, k, v"), ("o", "o"), ("gate", "gate, up"), ("down", "down")))
    seconds = statistics.fmean(m["seconds"] for m in of["spike stage"])
    return table + (f"\n{base:.2f} is of {of['shipped'][0]['tokens']:,} held-out tokens (± {of['shipped'][0]['stderr']:.2f} for the choice of text, the same for "
                    f"all). Silent inputs by kind, untrained → trained: {shares}. One run took {seconds / 60:.0f} minutes on one thread of a busy machine.\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", nargs="?", type=pathlib.Path, help="with --card: what was measured")
    parser.add_argument("--card", type=pathlib.Path, help="only write figures into this file")
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[1, 2, 3])
    parser.add_argument("--tokens", type=int, help="to train on instead of the recipe's, for a look")
    parser.add_argument("--build", type=lambda text: pathlib.Path(text).resolve(), default=HERE / "build")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mneme", default=os.environ.get("MNEME_BIN", str(BUILT)))
    arguments = parser.parse_args()
    if arguments.card:
        if not arguments.measured:
            parser.error("--card needs what was measured")
        before, rest = arguments.card.read_text().split(BEGIN)
        arguments.card.write_text(before + BEGIN + card(json.loads(arguments.measured.read_text())) + END + rest.split(END)[1])
        return
    print(json.dumps(measure(arguments), indent=1))


if __name__ == "__main__":
    main()
