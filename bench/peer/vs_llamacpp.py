#!/usr/bin/env python3
"""Times Mneme and llama.cpp on the same files, alternating, each at its best settings. Called by bench/vs_llamacpp.sh.

For every model both programs first try their settings (threads 1..cores; the peer also flash attention on and off) and
keep the fastest for each test. Then rounds follow: peer, Mneme; Mneme, peer; ... so that slow drift of the machine hits
both. A ratio is taken within each round; its interval is Student's t on the logarithms of those ratios.

tests: ppN = prefill of N tokens, tgN = decoding N tokens one by one, tgN@D = the same after D positions (f16 KV cache).
"""
import argparse
import json
import math
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import time

SMALL = ["tg128", "pp512", "pp2048"]
PLAN = {  # model: tests
    "smollm2-135m-q4_1": SMALL, "smollm2-135m-q8_0": SMALL,
    "1b-q4_0": SMALL + ["tg32@4096", "tg32@16384"], "1b-q8_0": SMALL, "big-q8_0": ["tg64"],
}
T95 = [0, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23]  # two-sided, by degrees of freedom


def run(command, prefix, environment=None):
    done = subprocess.run(prefix + [str(part) for part in command], capture_output=True, text=True,
                          env=os.environ | (environment or {}))
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout


def parse_test(test):
    head, _, depth = test.partition("@")
    return head[:2] == "tg", int(head[2:]), int(depth or 0)


class Peer:
    """llama.cpp through llamacpp_peer."""
    name = "llama.cpp"

    def __init__(self, folder, prefix, fill_prefix):
        self.fill_prefix = fill_prefix
        self.libraries = folder / "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64"
        self.program, self.prefix, self.state = folder / "llamacpp_peer", prefix, folder / "state"
        self.state.mkdir(exist_ok=True)
        self.backends = {"auto": self.libraries}
        # The automatic choice is usually the fastest; for some weight types narrower vectors are.
        for name, needs in (("alderlake", "avx_vnni"), ("haswell", "avx2")):
            library = self.libraries / f"libggml-cpu-{name}.so"
            if library.exists() and f" {needs} " in pathlib.Path("/proc/cpuinfo").read_text():
                self.backends[name] = folder / "backends" / name
                self.backends[name].mkdir(parents=True, exist_ok=True)
                link = self.backends[name] / "libggml-cpu.so"
                link.unlink(missing_ok=True)
                link.symlink_to(library)

    def settings(self):
        return [{"threads": t, "flash": f} for t in range(1, os.cpu_count() + 1) for f in ("on", "off")]

    def usual(self):
        return {"threads": os.cpu_count(), "flash": "on"}

    def refinements(self, setting):
        return [setting | {"backend": name} for name in self.backends if name != "auto"]

    def rate(self, model, test, setting, repeat=1):
        depth = parse_test(test)[2]
        extra = ["--state", self.state] if depth else []
        if depth:  # filling is slow: in steps that other work on the machine can get between
            for step in range(1024, depth + 1, 1024):
                self.fill(model, step, setting)
        out = run([self.program, "bench", model, "--tests", test, "--repeat", repeat, "--threads", setting["threads"],
                   "--flash", setting["flash"], *extra], self.prefix, self.environment(setting))
        return json.loads(out)["tokens_per_second"]

    def environment(self, setting):
        return {"PEER_BACKENDS": str(self.backends[setting.get("backend", "auto")])}

    def fill(self, model, depth, setting):
        file = self.state / f"{model.name}-{depth}-{setting['flash']}-f16.state"
        full = [self.state / f"{model.name}-{d}-{setting['flash']}-f16.state" for d in range(depth, 65536, 1024)]
        if any(path.exists() for path in full):
            return
        run([self.program, "fill", model, "--depth", depth, "--state", self.state, "--threads", os.cpu_count(),
             "--flash", setting["flash"]], self.fill_prefix, self.environment(setting))
        before = self.state / file.name.replace(f"-{depth}-", f"-{depth - 1024}-")
        if depth - 1024 not in (4096, 16384):
            before.unlink(missing_ok=True)


class Mneme:
    name = "Mneme"

    def __init__(self, program, prefix):
        self.program, self.prefix = program, prefix
        self.last = {}

    def settings(self):
        return [{"threads": t} for t in range(1, os.cpu_count() + 1)]

    def usual(self):
        return {"threads": os.cpu_count()}

    def refinements(self, setting):
        return []

    def rate(self, model, test, setting, repeat=1):
        decode, count, depth = parse_test(test)
        what = ["--gen", count, "--prompt", 0] if decode else ["--prompt", count, "--gen", 0]
        out = run([self.program, "bench", model, "--json", "--threads", setting["threads"], "--repeat", repeat,
                   "--depth", depth, *what], self.prefix)
        rows = [row for row in json.loads(out) if row["tokens_per_second"]]
        if len(rows) != 1:
            raise RuntimeError(f"mneme bench printed {len(rows)} rows for {test}: {out[:300]}")
        self.last = rows[0]
        return [rows[0]["tokens_per_second"]]


def best_setting(program, model, test):
    """Quick trial of every setting; decode trials are 32 tokens, prefill trials 256, at depth 0 (4096 if deeper)."""
    decode, count, depth = parse_test(test)
    trial = f"tg{min(count, 32)}" if decode else f"pp{min(count, 256)}"
    if depth:
        trial += "@4096"

    def fastest(settings):
        rates = [(max(program.rate(model, trial, setting, 2)), setting) for setting in settings]
        return max(rates, key=lambda pair: pair[0], default=(0, None))

    best = fastest(program.settings())
    return max(best, fastest(program.refinements(best[1])), key=lambda pair: pair[0])[1]


def interval(ratios):
    """Geometric mean and 95 % interval of paired ratios."""
    logs = [math.log(r) for r in ratios]
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return math.exp(mean), None
    half = T95[min(len(logs) - 1, 10)] * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), (math.exp(mean - half), math.exp(mean + half))


def compare(model, test, peer, mneme, rounds, repeat, trials):
    settings = {program: best_setting(program, model, test) if trials else program.usual() for program in (peer, mneme)}
    rates = {peer: [], mneme: []}
    for number in range(rounds):
        for program in ((peer, mneme), (mneme, peer))[number % 2]:
            rates[program].append(statistics.median(program.rate(model, test, settings[program], repeat)))
    ratios = [m / p for m, p in zip(rates[mneme], rates[peer])]
    mean, ci = interval(ratios)
    return {"model": model.stem, "test": test, "peer": rates[peer], "mneme": rates[mneme],
            "peer_setting": settings[peer], "mneme_setting": settings[mneme], "ratio": mean, "ratio_ci95": ci,
            "bytes_per_token": mneme.last.get("bytes_per_token"), "rss_bytes": mneme.last.get("rss_bytes")}


def bandwidth(model, mneme, rounds, prefix, trials):
    """Share of the measured memory bandwidth at decode; `mneme bench --bandwidth` times both in turn."""
    setting = best_setting(mneme, model, "tg64") if trials else mneme.usual()
    rows = [json.loads(run([mneme.program, "bench", model, "--json", "--bandwidth", "--prompt", 0, "--gen", 64,
                            "--repeat", 3, "--threads", setting["threads"]], prefix))[0] for _ in range(rounds)]
    return {"model": model.stem, "test": "bandwidth", "share": [row["bandwidth_fraction"] for row in rows],
            "read_gbps": [row["bytes_per_token"] * row["tokens_per_second"] / row["bandwidth_fraction"] / 1e9
                          for row in rows],
            "mneme": [row["tokens_per_second"] for row in rows], "mneme_setting": setting,
            "bytes_per_token": rows[0]["bytes_per_token"]}


def spread(values):
    return f"{statistics.median(values):.1f} [{min(values):.1f}–{max(values):.1f}]"


def setting_text(setting):
    extra = "".join(f", {name} {setting[name]}" for name in ("flash", "backend") if name in setting)
    return f"{setting['threads']} thr{extra}"


def row_text(row):
    if row["test"] == "bandwidth":
        return (f"| {row['model']} | share of bandwidth | {spread(row['read_gbps'])} GB/s | {spread(row['mneme'])} "
                f"({setting_text(row['mneme_setting'])}) | {100 * statistics.median(row['share']):.0f} % "
                f"[{100 * min(row['share']):.0f}–{100 * max(row['share']):.0f}] |")
    ci = row["ratio_ci95"]
    ratio = f"**{row['ratio']:.2f}×**" + (f" [{ci[0]:.2f}–{ci[1]:.2f}]" if ci else "")
    return (f"| {row['model']} | {row['test']} | {spread(row['peer'])} ({setting_text(row['peer_setting'])}) | "
            f"{spread(row['mneme'])} ({setting_text(row['mneme_setting'])}) | {ratio} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mneme", type=pathlib.Path, required=True)
    parser.add_argument("--peer", type=pathlib.Path, required=True, help="folder made by bench/setup_peer.sh")
    parser.add_argument("--models-dir", type=pathlib.Path, help="default: PEER/models")
    parser.add_argument("--models", default=",".join(PLAN), help="names without .gguf, separated by commas")
    parser.add_argument("--tests", help="default: " + " ".join(f"{m}: {','.join(t)};" for m, t in PLAN.items()))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bandwidth", default="big-q8_0", help="model of the bandwidth row ('' = none)")
    parser.add_argument("--json", type=pathlib.Path, help="default: PEER/vs_llamacpp.json")
    parser.add_argument("--no-trials", action="store_true",
                        help="do not look for the best settings: all cores, flash attention on")
    parser.add_argument("--prefix", default="", help="command put before every measured run")
    parser.add_argument("--fill-prefix", default="", help="command put before the peer's unmeasured fills of a context")
    args = parser.parse_args()
    prefix = shlex.split(args.prefix)
    models_dir = args.models_dir or args.peer / "models"
    json_path = args.json or args.peer / "vs_llamacpp.json"
    peer, mneme = Peer(args.peer.resolve(), prefix, shlex.split(args.fill_prefix)), Mneme(args.mneme.resolve(), prefix)

    rows, failures = [], 0
    print("| model | test | llama.cpp, tokens/s | Mneme, tokens/s | ratio [95 %] |\n|---|---|---|---|---|")

    def record(make):
        nonlocal failures
        try:
            rows.append(make())
        except (RuntimeError, KeyError, ValueError) as error:
            failures += 1
            print(f"vs_llamacpp: {error}", file=sys.stderr)
            return
        print(row_text(rows[-1]), flush=True)
        json_path.write_text(json.dumps({"when": time.strftime("%F %T"), "rows": rows}, indent=1))

    for name in filter(None, args.models.split(",")):
        model = (models_dir / f"{name}.gguf").resolve()
        for test in args.tests.split(",") if args.tests else PLAN.get(name, SMALL):
            repeat = 3 if "@" in test else 1
            record(lambda: compare(model, test, peer, mneme, args.rounds, repeat,
                                   not args.no_trials))
    if args.bandwidth:
        model = (models_dir / f"{args.bandwidth}.gguf").resolve()
        record(lambda: bandwidth(model, mneme, args.rounds, prefix, not args.no_trials))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
