#!/usr/bin/env python3
"""kill -9 at random moments, by hand:   tests/e2e/train_kills.py --kills 20 [--seed 1] [--steps 400]

One run is left alone; another is killed again and again, while it starts, steps, writes checkpoints or cleans up, and
resumed. Prints a line for each kill (what was lost) and a JSON summary; exit code 1 if a loss differs or if a kill lost more
than one interval of saving. A kill before the first checkpoint begins the run again.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import train_fixture as fixture


def last_step(out):
    """The last step that the log holds, and the newest checkpoint."""
    try:
        lines = fixture.log(out)
    except FileNotFoundError:
        lines = []
    steps = [line["step"] for line in lines if "loss" in line]
    saved = [int(folder.name[5:]) for folder in out.glob("step-*")]
    return max(steps, default=0), max(saved, default=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
    options = parser.parse_args()
    pick = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        config = fixture.write_run(folder, steps=options.steps, save={"every": options.every, "keep": 2}, validate={"every": options.every, "tokens": 512})
        start = time.monotonic()
        alone = fixture.start(config, "--out", folder / "alone", "--quiet")
        _, errors = alone.communicate()
        whole = time.monotonic() - start
        if alone.returncode:
            sys.exit(f"the run that was left alone failed: {errors}")
        out, kills, worst, parts = folder / "out", 0, 0, 0
        while True:
            parts += 1
            process = fixture.start(config, "--resume", "--quiet")
            try:
                # Long enough for some progress on the mean, and any moment of start, step and save.
                process.communicate(timeout=pick.uniform(0.05, 2 * whole / options.kills + 1.0) if kills < options.kills else None)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
            kills += 1
            step, saved = last_step(out)
            worst = max(worst, step - saved)
            print(f"kill {kills}: at step {step}, newest checkpoint {saved}", flush=True)
        if process.returncode:
            sys.exit(f"the resumed run failed with {process.returncode}")
        want, got = fixture.losses(folder / "alone"), fixture.losses(out)
        equal = want == got
        summary = {"kills": kills, "steps": options.steps, "interval": options.every, "most_steps_lost": worst, "losses_equal": equal,
                   "checkpoint_equal": all((folder / "alone" / f"step-{options.steps:08}" / name).read_bytes() == (out / f"step-{options.steps:08}" / name).read_bytes()
                                           for name in ("model.safetensors", "optimiser.safetensors", "facts.engram"))}
        print(json.dumps(summary))
        sys.exit(0 if equal and worst <= options.every else 1)


if __name__ == "__main__":
    main()
