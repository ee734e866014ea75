#!/usr/bin/env python3
"""How near `mneme cost` comes: predicted against measured time of a decoded token, over models and contexts of all kinds.

Each case is one process, `mneme cost MODEL --measure --machine measure`: kernels and bandwidth are timed, then the model, so that
a prediction and its measurement come from the same minute and no figure is fitted to the model. Contexts are synthetic keys,
values and states. A case runs --rounds times; its ratio is the median, and the goal is a ratio within 15 % of 1. Files of random weights are made on first
use (tools/make_random_gguf.py; needs numpy and gguf in --python) in --work, about 5 GB.

    bench/cost_prediction.py build/release/bin --vocab-from SmolLM2-135M-Instruct.Q4_1.gguf --work build/cost --json docs/images/cost_prediction.json
"""
import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOAL = 0.15
SMALL = {"heads": 9, "kv_heads": 3, "head_dim": 64}


def config(name, layers, d=576, hidden=1536, vocab=49152, mixer=None, ffn=None):
    return {"mneme": 1, "name": name, "d_model": d, "vocab": vocab, "context": 4194304, "tied": True, "norm": {"eps": 1e-5}, "rope": {"base": 1e5},
            "defaults": {"mixer": mixer or SMALL, "ffn": ffn or {"type": "dense", "hidden": hidden}}, "layers": layers}


def repeated(mixer):
    return [{"repeat": 30, "mixer": mixer}]


# Configs of the kinds that no shape of the tool covers.
CONFIGS = {
    "delta": config("delta rule", repeated({"type": "delta", "feature": "silu"})),
    "sparse": config("block-sparse", repeated({"type": "sparse", "block": 512, "top_k": 8})),
    "window": config("windows", repeated({"type": "window", "window": 512, "sinks": 4})),
    "parallel": config("gla beside window", repeated({"type": "parallel", "of": [{"type": "gla", **SMALL}, {"type": "window", "window": 512, **SMALL}]})),
}

# name: (how the file comes about, context, more arguments of mneme cost)
CASES = {
    "SmolLM2-135M Q4_1": (("file", None), 128, []),
    "SmolLM2-135M Q4_1, int8 KV, 16k": (("file", None), 16384, ["--kv", "int8"]),
    "SmolLM2-135M Q8_0, 4k": (("requantize", "q8_0"), 4096, []),
    "SmolLM2-135M Q8_0, spikes": (("requantize", "q8_0"), 128, ["--activation", "spike", "SPIKES"]),
    "135M hybrid (gla, windows) Q8_0, 64k": (("hybrid", "135m", "q8_0"), 65536, []),
    "135M hybrid (gla, windows) Q4_0, 1k": (("hybrid", "135m", "q4_0"), 1024, []),
    "135M delta rule Q8_0, 4k": (("config", "delta", "q8_0"), 4096, []),
    "135M block-sparse Q8_0, 32k": (("config", "sparse", "q8_0"), 32768, []),
    "135M windows Q4_0, 8k": (("config", "window", "q4_0"), 8192, []),
    "135M parallel Q8_0, 2k": (("config", "parallel", "q8_0"), 2048, []),
    "135M F16, 512": (("shape", "135m", "f16"), 512, []),
    "1B Q4_0": (("shape", "1b", "q4_0"), 128, []),
    "1B Q4_0, 16k": (("shape", "1b", "q4_0"), 16384, []),
    "1B Q8_0, 2k": (("shape", "1b", "q8_0"), 2048, []),
    "1B hybrid Q8_0, 128k": (("hybrid", "1b", "q8_0"), 131072, []),
    "1.7B Q8_0": (("shape", "1.7b", "q8_0"), 256, []),
    "2 GB mixture, 8 of 64 experts, Q4_0": (("shape", "moe", "q4_0"), 256, []),
    "2 GB mixture, 8 of 64 experts, Q4_0, 8k": (("shape", "moe", "q4_0"), 8192, []),
    "pocket: hybrid with an Engram memory": (("repository", "models/pocket.gguf"), 512, []),
    "Gemma-3-270M Q4_K_M, 2k": (("option", "k_quants"), 2048, []),
}


def run(command, prefix=""):
    ran = subprocess.run([*shlex.split(prefix), *map(str, command)], capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {ran.returncode}: {ran.stderr.strip()[-400:]}")
    return ran.stdout


def run_pinned(command, prefix):
    """As run(), with the caller's thread on one core and every other thread on a second one: beside other work the system may put both
    threads of a pass on one core, which the engine answers by using one thread for seconds."""
    process = subprocess.Popen([*shlex.split(prefix), *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pinned = set()
    while process.poll() is None:
        try:
            for tid in map(int, os.listdir(f"/proc/{process.pid}/task")):
                if tid not in pinned:
                    os.sched_setaffinity(tid, {0 if tid == process.pid else 1})
                    pinned.add(tid)
        except OSError:
            pass  # the thread or the process has ended
        time.sleep(0.002)
    out, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {process.returncode}: {errors.strip()[-400:]}")
    return out


def model_of(args, made):
    """The file of a case; random weights are written once."""
    kind = made[0]
    if kind == "file":
        return args.vocab_from
    if kind == "repository":
        return ROOT / made[1]
    if kind == "option":
        return getattr(args, made[1])
    path = args.work / ("-".join(made) + ".gguf")
    if path.exists():
        return path
    more = {"requantize": lambda: ["--requantize", args.vocab_from, "--type", made[1]],
            "shape": lambda: ["--shape", made[1], "--type", made[2], "--vocab-from", args.vocab_from],
            "hybrid": lambda: ["--hybrid", "--shape", made[1], "--type", made[2], "--vocab-from", args.vocab_from],
            "config": lambda: ["--config", write_config(args, made[1]), "--type", made[2], "--vocab-from", args.vocab_from]}[kind]()
    run([args.python, ROOT / "tools/make_random_gguf.py", *more, path])
    return path


def write_config(args, name):
    path = args.work / f"{name}.json"
    path.write_text(json.dumps(CONFIGS[name]))
    return path


def spikes_report(args, model):
    """What fires in this model, measured on the first page of our own README."""
    path = args.work / f"{model.stem}-spikes.json"
    if not path.exists():
        path.write_text(run([args.bin / "mneme", "spikes", model, "-f", ROOT / "README.md", "--tokens", "512", "--no-ppl", "--activation", "spike",
                             "--json", "--quiet"]))
    return path


def measure(args, name):
    made, context, more = CASES[name]
    model = model_of(args, made)
    if "SPIKES" in more:
        more = [word for word in more if word != "SPIKES"] + ["--spikes", spikes_report(args, model)]
    command = [args.bin / "mneme", "cost", model, "--context", context, "--measure", "--machine", "measure", "--tokens", args.tokens,
               "--repeat", args.repeat, "--json", "--quiet", *more]
    return json.loads(run_pinned([*command, "--threads", 2], args.prefix) if args.pin else run(command, args.prefix))


def row(name, results):
    ratios = [r["predicted_over_measured"] for r in results]
    ratio = statistics.median(ratios)
    middle = min(results, key=lambda r: abs(r["predicted_over_measured"] - ratio))
    parts = middle["roofline"]
    verdict = "" if abs(ratio - 1) <= GOAL else " **missed**"
    return (f"| {name} | {middle['context']:,} | {middle['bytes'] / 1e6:.0f} | {parts['reading_ms']:.2f} | {parts['computing_ms']:.2f} | {parts['stages_ms']:.2f} | "
            f"{middle['predicted_ms']:.2f} | {middle['measured_ms']:.2f} | {ratio:.2f} [{min(ratios):.2f}, {max(ratios):.2f}]{verdict} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", type=pathlib.Path, help="folder of mneme")
    parser.add_argument("--vocab-from", type=pathlib.Path, required=True, help="SmolLM2-135M-Instruct Q4_1, a case itself and the source of vocabularies")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--json", type=pathlib.Path, required=True, help="results; cases that it holds are not run again")
    parser.add_argument("--python", default=sys.executable, help="a Python with numpy and gguf")
    parser.add_argument("--k-quants", type=pathlib.Path, help="gemma-3-270m-q4_k_m.gguf; without it that case is left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--cases", help="only those whose names contain one of these words, separated by commas")
    parser.add_argument("--prefix", default="", help="command put before each measured run")
    parser.add_argument("--pin", action="store_true", help="two threads, each on a core of its own: for a machine with other work")
    parser.add_argument("--prepare", action="store_true", help="only make the files")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    names = [n for n in CASES if not args.cases or any(word in n for word in args.cases.split(","))]
    names = [n for n in names if CASES[n][0][0] != "option" or model_of(args, CASES[n][0])]
    if args.prepare:
        for name in names:
            model = model_of(args, CASES[name][0])
            if "SPIKES" in CASES[name][2]:
                spikes_report(args, model)
        return
    done = json.loads(args.json.read_text()) if args.json.exists() else {}
    for _ in range(args.rounds):
        for name in names:
            if len(done.get(name, [])) >= args.rounds:
                continue
            done.setdefault(name, []).append(measure(args, name))
            args.json.write_text(json.dumps(done, indent=1) + "\n")
            print(f"{name}: {done[name][-1]['predicted_over_measured']:.3f}", file=sys.stderr, flush=True)
    print("| model, weights, context | positions | MB a token | bytes alone, ms | arithmetic alone, ms | stages, ms | predicted, ms | measured, ms | predicted / measured |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    known = [name for name in CASES if name in done]
    for name in known:
        print(row(name, done[name]))
    errors = [abs(statistics.median(r["predicted_over_measured"] for r in done[name]) - 1) for name in known]
    print(f"\nwithin {GOAL:.0%}: {sum(e <= GOAL for e in errors)} of {len(errors)}; mean error {statistics.mean(errors):.1%}, largest {max(errors):.1%}")


if __name__ == "__main__":
    main()
