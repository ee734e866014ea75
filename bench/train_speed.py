#!/usr/bin/env python3
"""Training speed: a hybrid of 5-6M parameters against the same model in eager PyTorch, and a dense one of 20M against the machine.

Both programs start from the same parameters and the same batch, and their losses are compared step by step, so that it is the same
computation that is timed. The peer (bench/peer/torch_trainer.py) is tried in both forms of gated linear attention, in f32 and under
bf16 autocast, on 1 thread and on 2; so is ours. The best of each then take turns, and medians of the rounds are compared.

The dense model's rate is 6 x (parameters that multiply: all but the embedding, and the head) a token, plus attention's products,
over that of 2048^3 bf16 products by the same libtorch on 2 threads, and, since f32 is faster on CPUs without matrix units, over
those in f32 as well.

    bench/train_speed.py build/release/bin --json docs/images/train_speed.json
    bench/train_speed.py build/release/bin --python VENV/bin/python   (with torch; else a venv is made in build/)
"""
import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LENGTH, BATCH = 512, 8


def config(d_model, layers, heads, kv_heads, hidden, kinds, window):
    def layer(i):
        kind = kinds[i % len(kinds)]
        return {"mixer": {"type": kind, **({"window": window} if kind == "window" else {})}}

    return {"mneme": 1, "d_model": d_model, "vocab": 8192, "context": LENGTH, "tied": True,
            "defaults": {"mixer": {"heads": heads, "kv_heads": kv_heads, "head_dim": 64}, "ffn": {"type": "dense", "hidden": hidden}},
            "layers": [layer(i) for i in range(layers)]}


HYBRID = config(256, 8, 4, 2, 352, ["gla", "window"], 128)
DENSE = config(512, 6, 8, 8, 1024, ["full"], 0)


class Program:
    """A child that answers commands."""

    def __init__(self, command):
        self.child = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, command):
        self.child.stdin.write(command + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(f"{command}: the program ended with {self.child.wait()}")
        return json.loads(line)

    def seconds_a_step(self, steps):
        return self.ask(f"steps {steps}")["seconds"] / steps

    def close(self):
        self.child.stdin.close()
        self.child.wait()


def ours(args, model, threads, bf16):
    return Program([args.bin / "train_speed", "--config", json.dumps(model), "--batch", BATCH, "--length", LENGTH,
                    "--threads", threads, *(["--bf16"] if bf16 else [])])


def peer(args, model, threads, bf16, form, folder):
    mixer = model["defaults"]["mixer"]
    kinds = [layer["mixer"]["type"] for layer in model["layers"]]
    window = max(layer["mixer"].get("window", 0) for layer in model["layers"])
    shape = {**mixer, "window": window, "layers": kinds}
    program = Program([args.python, ROOT / "bench" / "peer" / "torch_trainer.py", "--config", json.dumps(shape), "--batch", BATCH,
                       "--length", LENGTH, "--threads", threads, "--form", form, *(["--bf16"] if bf16 else [])])
    program.ask(f"load {folder}")
    return program


def name_of(threads, bf16):
    return f"{'bf16' if bf16 else 'f32'}, {threads} thread{'s' if threads > 1 else ''}"


def best_setting(make, steps):
    """Tries dtypes and threads. Returns seconds a step of each, and the program of the best, still running."""
    seconds, best = {}, None
    for threads in (2, 1):
        for bf16 in (False, True):
            program = make(threads, bf16)
            program.seconds_a_step(1)
            name = name_of(threads, bf16)
            seconds[name] = program.seconds_a_step(steps)
            if best is None or seconds[name] < seconds[best[0]]:
                if best:
                    best[1].close()
                best = (name, program)
            else:
                program.close()
            print(f"  {name}: {BATCH * LENGTH / seconds[name]:.0f} tokens/s", file=sys.stderr, flush=True)
    return seconds, best


def hybrid(args):
    with tempfile.TemporaryDirectory() as folder:
        first = ours(args, HYBRID, 2, False)
        parameters = first.ask(f"save {folder}")["parameters"]
        mine = first.ask("steps 3")["losses"]
        first.close()
        makers = {"mneme": lambda threads, bf16: ours(args, HYBRID, threads, bf16)}
        losses = {}
        for form in ("chunks", "loop"):
            makers[form] = lambda threads, bf16, form=form: peer(args, HYBRID, threads, bf16, form, folder)
            program = makers[form](2, False)
            losses[form] = program.ask("steps 3")["losses"]
            program.close()
            if any(not math.isclose(a, b, rel_tol=2e-4) for a, b in zip(mine, losses[form])):
                raise RuntimeError(f"the two programs do not compute the same: {mine} against {losses[form]} ({form})")
        out = {"parameters": parameters, "losses": {"mneme": mine, **losses}, "tried": {}, "best": {}}
        running = {}
        for name, make in makers.items():
            print(name, file=sys.stderr, flush=True)
            seconds, (setting, program) = best_setting(make, 1 if name == "loop" else 4)
            out["tried"][name] = {k: BATCH * LENGTH / v for k, v in seconds.items()}
            out["best"][name] = setting
            running[name] = program
        rates = {name: [] for name in running}
        for _ in range(args.rounds):
            for name, program in running.items():
                rates[name].append(BATCH * LENGTH / program.seconds_a_step(1 if name == "loop" else args.steps))
        for program in running.values():
            program.close()
    out["rounds"] = rates
    out["tokens_per_second"] = {name: statistics.median(values) for name, values in rates.items()}
    for form in ("chunks", "loop"):
        out[f"over_{form}"] = statistics.median(a / b for a, b in zip(rates["mneme"], rates[form]))
    return out


def dense(args):
    model, width = DENSE, DENSE["d_model"]
    seconds, (setting, program) = best_setting(lambda threads, bf16: ours(args, model, threads, bf16), 2)
    with tempfile.TemporaryDirectory() as folder:
        parameters = program.ask(f"save {folder}")["parameters"]
    norms = (2 * len(model["layers"]) + 1) * width
    matmul = parameters - norms  # the tied matrix counts once: as the head
    # Scores and values of the keys that are seen, (LENGTH + 1) / 2 on average; backward is twice forward.
    attention = 3 * len(model["layers"]) * 2 * 2 * (LENGTH + 1) / 2 * width
    gemm = {"bf16_libtorch": [], "f32_libtorch": [], "f32_onednn": []}
    rates = []
    machine = ours(args, model, 2, False)
    for _ in range(args.rounds):
        for name, value in machine.ask("gemm").items():
            gemm[name].append(value)
        rates.append(BATCH * LENGTH / program.seconds_a_step(args.steps))
    machine.close()
    program.close()
    out = {"parameters": parameters, "matmul_parameters": matmul, "setting": setting, "rounds": rates, "gemm_rounds": gemm,
           "tried": {k: BATCH * LENGTH / v for k, v in seconds.items()}, "tokens_per_second": statistics.median(rates)}
    out["gflops"] = (6 * matmul + attention) * out["tokens_per_second"] / 1e9
    out["gemm_gflops"] = {name: statistics.median(values) for name, values in gemm.items()}
    out["over_gemm"] = {name: out["gflops"] / value for name, value in out["gemm_gflops"].items()}
    return out


def own_python():
    venv = ROOT / "build" / "torch_peer"
    if not (venv / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "-q", "torch", "numpy"], check=True)
    return venv / "bin" / "python"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", type=pathlib.Path)
    parser.add_argument("--python", type=pathlib.Path, help="a Python with torch")
    parser.add_argument("--parts", nargs="+", choices=["hybrid", "dense"], default=["hybrid", "dense"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps in a round")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    if "hybrid" in args.parts and not args.python:
        args.python = own_python()
    done = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    for part in args.parts:
        done[part] = {"hybrid": hybrid, "dense": dense}[part](args)
        if args.json:
            args.json.write_text(json.dumps(done, indent=1) + "\n")
    print(json.dumps(done, indent=1))


main()
