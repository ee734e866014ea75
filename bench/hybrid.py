#!/usr/bin/env python3
"""What attention whose cost does not grow is worth: a hybrid of gated linear and windowed attention against full attention.

Shapes: 16 layers, 2048 wide ("1b") and SmolLM2-135M's ("135m"), random weights; the hybrid has gated linear attention in even
layers (gate rank 16) and a window of 512 keys in odd ones. The peer is llama.cpp on the full-attention file (bench/setup_peer.sh).

parts, each measured by itself and kept in --json, so that an interrupted run goes on where it stopped:
  decode       tokens/s at depths 1k to 256k: hybrid, our full attention (f16 and int8 KV), llama.cpp (f16 and q8_0 KV)
  flat         hybrid decode at 1M tokens against 1k
  prefill      135m hybrid: seconds and memory against length, 1k to 1M, by bench/prefill_curve (--tokens 4194304 goes on to 4M)
  first        time to first token: the same for our full attention to 64k, and its quadratic fit
  peer-prefill the hybrid and llama.cpp reading 32k tokens (the peer's time put together from pieces at several depths)
  reopen       whole processes: reading a document of 32k tokens and saving the session, against going on from the saved file
  sparse       135m, int8 KV, 1M tokens: the best 64 blocks of 512 keys against all of them, chosen by each head or together

A context of a decode test is synthetic in every program (random keys and values here, 1,024 read positions repeated in the
peer): reading 256k tokens with full attention takes hours. The table says so.

    bench/setup_peer.sh
    bench/hybrid.py build/release/bin --peer build/peer --work build/hybrid --json docs/images/hybrid.json --svg docs/images/hybrid.svg
"""
import argparse
import json
import os
import pathlib
import random
import shlex
import statistics
import subprocess
import sys
import time

import gguf_config
from medians import median_interval
from plotting import with_matplotlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEPTHS = [1024, 4096, 16384, 65536, 131072, 262144]
MILLION = 1 << 20


def run(command, prefix="", **options):
    ran = subprocess.run([*shlex.split(prefix), *map(str, command)], capture_output=True, text=True, **options)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {ran.returncode}: {ran.stderr.strip()[-400:]}")
    return ran.stdout


class Bench:
    def __init__(self, args):
        self.args, self.done = args, {}
        if args.json.exists():
            self.done = json.loads(args.json.read_text())

    def keep(self, part, key, value):
        self.done.setdefault(part, {})[key] = value
        partial = self.args.json.with_suffix(".part")
        partial.write_text(json.dumps(self.done, indent=1) + "\n")
        partial.replace(self.args.json)
        print(f"{part} {key}: {value}", file=sys.stderr, flush=True)

    def has(self, part, key):
        return key in self.done.get(part, {}) and not self.args.again

    def model(self, shape, kind, hybrid):
        """A file of random weights, made on first use."""
        path = self.args.work / f"{shape}{'-hybrid' if hybrid else ''}-{kind}.gguf"
        if not path.exists():
            vocabulary = self.args.vocab_from or self.args.peer / "models/smollm2-135m-q4_1.gguf"
            run([self.args.python or self.args.peer / "venv/bin/python", ROOT / "tools/make_random_gguf.py", "--shape", shape, "--type", kind,
                 *(["--hybrid"] if hybrid else []), "--vocab-from", vocabulary, path])
        return path

    def mneme(self, model, depth, tokens, *more):
        rows = json.loads(run([self.args.bin / "mneme", "bench", model, "--prompt", 0, "--gen", tokens, "--depth", depth, "--synthetic",
                               "--repeat", self.args.repeat, "--json", "--quiet", *more], self.args.prefix))
        return rows[0]

    def peer_rate(self, model, test, kv="f16"):
        libraries = self.args.peer.resolve() / "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64"
        out = run([self.args.peer / "llamacpp_peer", "bench", model, "--tests", test, "--repeat", self.args.repeat, "--threads", os.cpu_count(),
                   "--flash", "on", "--kv", kv, "--synthetic", "yes"], self.args.prefix, env=os.environ | {"PEER_BACKENDS": str(libraries)})
        return statistics.median(json.loads(out)["tokens_per_second"])


def labels(args):
    """What keys of decode results begin with, and the shape and type of weights that it stands for."""
    return {kind if shape == "1b" else f"{shape} {kind}": (shape, kind) for shape in args.shapes for kind in args.types}


def decode(bench):
    for label, (shape, kind) in labels(bench.args).items():
        full, hybrid = bench.model(shape, kind, False), bench.model(shape, kind, True)
        for number in range(bench.args.rounds):
            for depth in bench.args.depths:
                tokens = (32 if depth < 65536 else 8) * (4 if shape == "135m" and depth < 16384 else 1)
                for name, rate in (
                        ("hybrid", lambda: bench.mneme(hybrid, depth, 128 if shape == "135m" else 32, "--bandwidth")),
                        ("full-f16", lambda: bench.mneme(full, depth, tokens)["tokens_per_second"]),
                        ("full-int8", lambda: bench.mneme(full, depth, tokens, "--kv", "int8")["tokens_per_second"]),
                        ("peer-f16", lambda: bench.peer_rate(full, f"tg{tokens}@{depth}")),
                        ("peer-q8_0", lambda: bench.peer_rate(full, f"tg{tokens}@{depth}", "q8_0"))):
                    key = f"{label} {depth} {name} {number}"
                    if bench.has("decode", key):
                        continue
                    value = rate()
                    if name == "hybrid":
                        bench.keep("share", f"{label} {depth} {number}", value["bandwidth_fraction"])
                        value = value["tokens_per_second"]
                    bench.keep("decode", key, value)


def flat(bench):
    for shape in ("1b", "135m"):
        model = bench.model(shape, "q8_0", True)
        for number in range(3 * bench.args.rounds):
            if bench.has("flat", f"{shape} {number}"):
                continue
            order = (1024, MILLION) if number % 2 == 0 else (MILLION, 1024)
            rates = {depth: bench.mneme(model, depth, 64 if shape == "1b" else 512) for depth in order}
            bench.keep("flat", f"{shape} {number}", {"1k": rates[1024]["tokens_per_second"], "1M": rates[MILLION]["tokens_per_second"],
                                                     "rss_1k": rates[1024]["rss_bytes"], "rss_1M": rates[MILLION]["rss_bytes"]})


def curve(bench, part, model, tokens, *more):
    """Runs prefill_curve to `tokens`; what is there already is not read again."""
    log = bench.args.work / f"{part}.jsonl"
    known = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    if bench.args.again or not known or known[-1]["tokens"] < tokens:
        if bench.args.again:
            log.unlink(missing_ok=True)
            (bench.args.work / f"{part}.session").unlink(missing_ok=True)
        run([bench.args.bin / "prefill_curve", model, "--tokens", tokens, "--log", log, *more], bench.args.prefix)
        known = [json.loads(line) for line in log.read_text().splitlines()]
    bench.keep(part, "rows", [row for row in known if row["tokens"] & (row["tokens"] - 1) == 0 or row["tokens"] % 262144 == 0])


def prefill(bench):
    curve(bench, "prefill", bench.model("135m", "q8_0", True), bench.args.tokens, "--state", bench.args.work / "prefill.session")


def first(bench):
    curve(bench, "first", bench.model("135m", "q8_0", False), bench.args.full_tokens, "--state", bench.args.work / "first.session", "--save-every", 16384)


def peer_prefill(bench):
    full, hybrid = bench.model("135m", "q8_0", False), bench.model("135m", "q8_0", True)
    for depth in (0, 8192, 16384, 32768):
        if not bench.has("peer-prefill", f"peer {depth}"):
            bench.keep("peer-prefill", f"peer {depth}", bench.peer_rate(full, f"pp512@{depth}"))
    if not bench.has("peer-prefill", "hybrid"):
        rows = json.loads(run([bench.args.bin / "mneme", "bench", hybrid, "--prompt", 32768, "--gen", 0, "--repeat", 1, "--no-warmup", "--json", "--quiet"],
                              bench.args.prefix))
        bench.keep("peer-prefill", "hybrid", rows[0]["tokens_per_second"])


def reopen(bench):
    """Seconds of a whole `mneme generate` that reads a document and saves, and of one that goes on from the file by one token."""
    document = bench.args.work / "document.txt"
    words = "the of and to in is was for that with as on by at from it his are be this".split()
    generator = random.Random(1)
    document.write_text(" ".join(generator.choice(words) for _ in range(32768)))
    for name, hybrid in (("hybrid", True), ("full", False)):
        model, file = bench.model("135m", "q8_0", hybrid), bench.args.work / f"reopen-{name}.session"
        if bench.has("reopen", name):
            continue
        file.unlink(missing_ok=True)
        common = [bench.args.bin / "mneme", "generate", model, "--session", file, "--ctx", 65536, "--json", "--quiet"]
        start = time.monotonic()
        tokens = json.loads(run([*common, "-n", 0, "-p", f"@{document}"], bench.args.prefix))["prompt_tokens"]
        read = time.monotonic() - start
        again = []
        for _ in range(5):
            start = time.monotonic()
            run([*common, "-n", 1, "-p", " the", "--no-save", "--ignore-eos"], bench.args.prefix)
            again.append(time.monotonic() - start)
        bench.keep("reopen", name, {"tokens": tokens, "read": read, "again": again, "bytes": file.stat().st_size})
        file.unlink()


def sparse_model(bench, shared):
    """The full-attention file with a config that says sparse: the same tensors, fewer keys read."""
    path = bench.args.work / f"135m-sparse{'-shared' if shared else ''}-q8_0.gguf"
    if not path.exists():
        full = bench.model("135m", "q8_0", False)
        fields = {"type": "sparse", "block": 512, "top_k": 64, **({"shared": True} if shared else {})}
        config = gguf_config.with_mixers(gguf_config.config_of(bench.args.bin / "mneme", full), lambda _, mixer: mixer.update(fields))
        partial = path.with_suffix(".part")
        gguf_config.write_with_config(full, partial, config)
        partial.replace(path)
    return path


def sparse(bench):
    models = {"sparse": sparse_model(bench, False), "shared": sparse_model(bench, True), "full": bench.model("135m", "q8_0", False)}
    for number in range(bench.args.rounds):
        for name, model in models.items():
            if not bench.has("sparse", f"{name} {number}"):
                bench.keep("sparse", f"{name} {number}", bench.mneme(model, MILLION, 2 if name == "full" else 16, "--kv", "int8")["tokens_per_second"])


PARTS = {"decode": decode, "flat": flat, "prefill": prefill, "first": first, "peer-prefill": peer_prefill, "reopen": reopen, "sparse": sparse}


# ---- what the numbers say ----------------------------------------------------------------------------------------


def medians(rows, prefix):
    values = [value for key, value in rows.items() if key.startswith(prefix)]
    return statistics.median(values) if values else None


def polynomial(points, degree):
    """Least squares of y over x by normal equations; x in millions keeps them well scaled. Returns coefficients, R²."""
    xs, ys = [x / 1e6 for x, _ in points], [y for _, y in points]
    n = degree + 1
    matrix = [[sum(x ** (i + j) for x in xs) for j in range(n)] + [sum(y * x ** i for x, y in zip(xs, ys))] for i in range(n)]
    for i in range(n):
        pivot = max(range(i, n), key=lambda r: abs(matrix[r][i]))
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        for r in range(n):
            if r != i:
                factor = matrix[r][i] / matrix[i][i]
                matrix[r] = [a - factor * b for a, b in zip(matrix[r], matrix[i])]
    found = [matrix[i][n] / matrix[i][i] for i in range(n)]
    mean = statistics.fmean(ys)
    rest = sum((y - sum(c * x ** i for i, c in enumerate(found))) ** 2 for x, y in zip(xs, ys))
    return found, 1 - rest / sum((y - mean) ** 2 for y in ys)


def at(coefficients, tokens):
    return sum(c * (tokens / 1e6) ** i for i, c in enumerate(coefficients))


def length_text(tokens):
    return f"{tokens >> 20}M" if tokens >= MILLION else f"{tokens >> 10}k"


def decode_lines(done, which):
    lines = []
    for label, (shape, kind) in which.items():
        rows = []
        for depth in DEPTHS:
            got = {name: medians(done["decode"], f"{label} {depth} {name} ") for name in ("hybrid", "full-f16", "full-int8", "peer-f16", "peer-q8_0")}
            if None in got.values():
                continue
            share = medians(done.get("share", {}), f"{label} {depth} ")
            rows.append(f"| {length_text(depth)} | {got['hybrid']:.1f} | {100 * share:.0f} % | {got['full-f16']:.2f} | {got['full-int8']:.2f} | {got['peer-f16']:.2f} | "
                        f"{got['peer-q8_0']:.2f} | **{got['hybrid'] / got['peer-f16']:.1f}×** | {got['hybrid'] / got['peer-q8_0']:.1f}× | "
                        f"{got['hybrid'] / got['full-f16']:.1f}× |")
        if rows:
            lines += [f"**Decode, {shape.upper()} shape, {kind.upper()}, tokens/s** (contexts are synthetic)", "",
                      "| depth | hybrid | of bandwidth | full, f16 KV | full, int8 KV | llama.cpp, f16 KV | llama.cpp, q8_0 KV | hybrid / llama.cpp f16 | / q8_0 | / our full f16 |",
                      "|---|---|---|---|---|---|---|---|---|---|", *rows, ""]
    return lines


def summary(done, which):
    lines = decode_lines(done, which) if "decode" in done else []
    if "flat" in done:
        for shape in ("1b", "135m"):
            rows = [row for key, row in done["flat"].items() if key.startswith(shape + " ")]
            ratios = [row["1M"] / row["1k"] for row in rows]
            if rows:
                median, low, high = median_interval(ratios)
                lines.append(f"Hybrid decode at 1M tokens over 1k, {shape}: {median:.3f}, 95 % interval of the median {low:.3f} to {high:.3f}, "
                             f"{len(rows)} pairs from {min(ratios):.3f} to {max(ratios):.3f}; "
                             f"resident {rows[0]['rss_1k'] / 1e6:.0f} and {rows[0]['rss_1M'] / 1e6:.0f} MB")
    if "prefill" in done:
        points = [(row["tokens"], row["seconds"]) for row in done["prefill"]["rows"]]
        line, r2 = polynomial(points, 1)
        state = [row["state_bytes"] for row in done["prefill"]["rows"] if row["tokens"] >= 8192]
        lines.append(f"Prefill, 135m hybrid, to {length_text(points[-1][0])}: {points[-1][1]:.0f} s, straight line R² {r2:.5f}, state {min(state) / 1e6:.1f} to {max(state) / 1e6:.1f} MB")
        if "first" in done:
            full = [(row["tokens"], row["seconds"]) for row in done["first"]["rows"]]
            curve_, full_r2 = polynomial(full, 2)
            hybrid = dict(points)
            lines += ["", "| time to first token | hybrid, s | full attention, s | ratio |", "|---|---|---|---|"]
            for tokens, seconds in full:
                if tokens >= 8192 and tokens in hybrid:
                    lines.append(f"| {length_text(tokens)} | {hybrid[tokens]:.1f} | {seconds:.1f} | {seconds / hybrid[tokens]:.1f}× |")
            for tokens in (MILLION, 4 * MILLION):
                ours = hybrid.get(tokens, at(line, tokens))
                lines.append(f"| {length_text(tokens)}, full attention fitted (R² {full_r2:.5f}) | {ours:.0f}{'' if tokens in hybrid else ' (fitted)'} | {at(curve_, tokens):.0f} | "
                             f"**{at(curve_, tokens) / ours:.0f}×** |")
            lines.append("")
    if "peer-prefill" in done and "hybrid" in done["peer-prefill"]:
        rows = done["peer-prefill"]
        # Seconds a token are a straight line in the depth; its integral is the time to read that far.
        line, _ = polynomial([(depth, 1 / rows[f"peer {depth}"]) for depth in (0, 8192, 16384, 32768)], 1)
        peer = 32768 * at(line, 16384)
        lines.append(f"Reading 32k tokens, 135m Q8_0: hybrid {32768 / rows['hybrid']:.1f} s, llama.cpp {peer:.1f} s (from pieces of 512 at four depths): **{peer * rows['hybrid'] / 32768:.1f}×**")
    for name, row in done.get("reopen", {}).items():
        again = statistics.median(row["again"])
        lines.append(f"A document of {row['tokens']:,} tokens, 135m {name}: read and saved in {row['read']:.1f} s, opened again with one more token in {again:.2f} s "
                     f"[{min(row['again']):.2f}–{max(row['again']):.2f}] from {row['bytes'] / 1e6:.0f} MB: **{row['read'] / again:.0f}×**, processes as a whole")
    if "sparse" in done:
        full = medians(done["sparse"], "full ")
        for name, how in (("sparse", "each head chooses"), ("shared", "heads of a key-value head choose together")):
            chosen = medians(done["sparse"], f"{name} ")
            if chosen and full:
                lines.append(f"Block-sparse decode at 1M tokens (synthetic keys), 135m, int8 KV, 64 blocks of 512, {how}: {chosen:.2f} tokens/s, all keys {full:.3f}: "
                             f"**{chosen / full:.1f}×**")
    return "\n".join(lines)


def plot(done, path, kind):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "mneme"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), constrained_layout=True)
    names = {"hybrid": ("hybrid", "#1f6feb", "o"), "full-int8": ("full, int8 KV", "#8250df", "s"), "full-f16": ("full, f16 KV", "#8250df", "o"),
             "peer-q8_0": ("llama.cpp, q8_0 KV", "#888", "s"), "peer-f16": ("llama.cpp, f16 KV", "#888", "o")}
    for name, (label, colour, marker) in names.items():
        points = [(depth, medians(done.get("decode", {}), f"{kind} {depth} {name} ")) for depth in DEPTHS]
        points = [point for point in points if point[1]]
        if points:
            left.plot(*zip(*points), label=label, color=colour, marker=marker, markersize=4)
    left.set(xscale="log", yscale="log", xlabel="tokens of context (synthetic)", ylabel=f"decode, tokens/s (1B shape, {kind.upper()})")
    left.set_xticks(DEPTHS, [length_text(depth) for depth in DEPTHS])
    left.legend(frameon=False)
    for part, label, colour in (("prefill", "hybrid", "#1f6feb"), ("first", "full attention", "#8250df")):
        if part in done:
            points = [(row["tokens"], row["seconds"]) for row in done[part]["rows"]]
            right.plot(*zip(*points), label=label, color=colour, marker="o", markersize=3)
    if "first" in done:
        fit, _ = polynomial([(row["tokens"], row["seconds"]) for row in done["first"]["rows"]], 2)
        lengths = [65536 << i for i in range(7)]
        right.plot(lengths, [at(fit, tokens) for tokens in lengths], color="#8250df", linestyle=":", label="full attention, fitted")
    right.set(xscale="log", yscale="log", xlabel="tokens of prompt", ylabel="seconds to first token (135M shape)")
    right.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", type=pathlib.Path, help="folder of mneme and prefill_curve")
    parser.add_argument("--peer", type=pathlib.Path, default=ROOT / "build/peer", help="folder made by bench/setup_peer.sh")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for models, sessions, logs")
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--svg", type=pathlib.Path)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--shapes", type=lambda text: text.split(","), default=["1b", "135m"], help="of the decode part")
    parser.add_argument("--types", type=lambda text: text.split(","), default=["q4_0", "q8_0"])
    parser.add_argument("--depths", type=lambda text: [int(word) for word in text.split(",")], default=DEPTHS)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=2, help="runs of a process")
    parser.add_argument("--tokens", type=int, default=MILLION, help="length of the prefill part")
    parser.add_argument("--full-tokens", type=int, default=65536, help="length that full attention reads")
    parser.add_argument("--vocab-from", type=pathlib.Path, help="default: the model of setup_peer.sh")
    parser.add_argument("--python", type=pathlib.Path, help="a Python with numpy and gguf; default: that of setup_peer.sh")
    parser.add_argument("--prefix", default="", help="command put before every measured run")
    parser.add_argument("--again", action="store_true", help="measure again what --json already holds")
    parser.add_argument("--only-plot", action="store_true", help="print and draw what --json already holds")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(args)
    failed = False
    if not args.only_plot:
        for part in args.parts.split(","):
            try:
                PARTS[part](bench)
            except RuntimeError as error:
                failed = True
                print(f"hybrid.py: {part}: {error}", file=sys.stderr)
    print(summary(bench.done, labels(args)))
    if args.svg:
        with_matplotlib(args.work, args.only_plot)
        plot(bench.done, args.svg, args.types[0])
    sys.exit(failed)


if __name__ == "__main__":
    main()
