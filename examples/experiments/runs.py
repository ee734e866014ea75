"""Runs of the `mneme` program, none of them twice.

Every run lies in a folder named after a hash of all that decides its numbers (its config, and through the names of what it
starts from, theirs). A folder with result.json is finished and is read, not run; one without goes on from its newest
checkpoint. So two experiments that need the same run share it, and a stopped experiment continues by the same command.

    WORK/runs/LABEL-HASH/      run.json, out/ (the trainer's folder), result.json
    WORK/derived/LABEL-HASH/   a checkpoint with tensors changed by edit()
    WORK/converted/LABEL-HASH/ recipe.json, model/ (what `mneme convert` writes)
"""
import array
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import time

UP = pathlib.PurePosixPath("../..")  # from a run's folder to WORK: configs name files by relative paths

STILL = 1e-30  # a learning rate (it must be above 0) at which weights stay what they are in f32


class OutOfTime(Exception):
    """The minutes of this call are over. What was running has saved itself."""


class Failed(Exception):
    """A program refused or crashed; the message is for people."""


def write_json(path, value):
    """Whole or not at all."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    partial.replace(path)


def key_of(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


class Runner:
    def __init__(self, mneme, work, threads=0, minutes=None, say=lambda text: print(text, file=sys.stderr, flush=True)):
        self.mneme, self.work, self.threads, self.say = mneme, work, threads, say
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self.ran = 0  # runs that this call began or continued

    def call(self, *arguments, stderr=None):
        """Standard output of `mneme ARGUMENTS`. When time is over, or at Ctrl-C, the program gets one SIGINT (which lets
        it save) and is waited for. It has a session of its own, so that a terminal's Ctrl-C does not reach it twice."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise OutOfTime
        with open(stderr or os.devnull, "w") as errors:
            child = subprocess.Popen([str(self.mneme), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                                     text=True, start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
            try:
                left = None if self.deadline is None else max(0.1, self.deadline - time.monotonic())
                out, _ = child.communicate(timeout=left)
            except (subprocess.TimeoutExpired, KeyboardInterrupt) as stopped:
                child.send_signal(signal.SIGINT)
                child.communicate()
                if isinstance(stopped, KeyboardInterrupt):
                    raise
                raise OutOfTime from None
        if child.returncode:
            said = pathlib.Path(stderr).read_text().strip() if stderr else ""
            raise Failed(f"mneme {' '.join(map(str, arguments))}: exit {child.returncode}: {said.splitlines()[-1] if said else 'no message'}")
        return out

    def option_threads(self):
        return ["--threads", self.threads] if self.threads else []

    # ---- training ------------------------------------------------------------------------------------------------

    def train(self, label, config):
        """The result of one training run: {"folder", "checkpoint", "loss", "bits_per_byte", "curve": [[tokens, loss], ...],
        "tokens", "tokens_per_second", "parameters", "table_parameters"}."""
        key = key_of(config)
        known = sorted((self.work / "runs").glob(f"*-{key}"))  # an experiment that came before may call it otherwise
        folder = known[0] if known else self.work / "runs" / f"{label}-{key}"
        done = folder / "result.json"
        if not done.exists():
            self.ran += 1
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "run.json", config)
            self.say(f"  {folder.name}")
            resume = ["--resume"] if (folder / "out").exists() else []
            self.call("train", folder / "run.json", "--out", folder / "out", *resume, *self.option_threads(), stderr=folder / "stderr.txt")
            write_json(done, summary_of(folder))
        result = json.loads(done.read_text())
        return result | {"folder": folder, "checkpoint": folder / "out" / result["checkpoint"]}

    def validation_loss(self, label, config, model):
        """The loss of a finished model folder on the run's validation text, measured as in training: by a step that moves nothing."""
        config = {k: v for k, v in config.items() if k not in ("tokens", "steps", "schedule", "save")}
        config |= {"model": self.relative(model), "steps": 1, "optimiser": {"lr": STILL}, "validate": config["validate"] | {"every": 1}}
        return self.train(label, config)["loss"]

    def relative(self, path):
        """How a run's config names a path under WORK."""
        return str(UP / path.relative_to(self.work))

    # ---- other models from a finished one ------------------------------------------------------------------------

    def edited(self, label, checkpoint, scale):
        """A copy of a model folder in which each tensor whose name ends in a key of `scale` is multiplied by its value."""
        folder = self.work / "derived" / f"{label}-{key_of([self.relative(checkpoint), scale])}"
        if not folder.exists():
            partial = folder.with_name(folder.name + ".part")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(checkpoint, partial, ignore=shutil.ignore_patterns("optimiser.safetensors", "state.json"))
            scale_tensors(partial / "model.safetensors", scale)
            partial.rename(folder)
        return folder

    def converted(self, label, checkpoint, recipe):
        """The folder that `mneme convert` makes of a checkpoint."""
        folder = self.work / "converted" / f"{label}-{key_of([self.relative(checkpoint), recipe])}"
        if not (folder / "model" / "conversion.json").exists():
            self.ran += 1
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "recipe.json", recipe)
            self.say(f"  {folder.name}")
            self.call("convert", checkpoint, folder / "model", "--recipe", folder / "recipe.json", *self.option_threads(), stderr=folder / "stderr.txt")
        return folder / "model"


# ---- what a run wrote ------------------------------------------------------------------------------------------------


def summary_of(folder):
    lines = [json.loads(line) for line in (folder / "out" / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    checked = [line for line in lines if "validation_loss" in line]
    if not checked:
        raise Failed(f"{folder}: the run has no validation")
    tokens = {line["step"]: line["tokens"] for line in steps}
    checkpoint = (folder / "out" / "latest").read_text().strip()
    dense, table = parameters_of(folder / "out" / checkpoint)
    return {"checkpoint": checkpoint, "loss": checked[-1]["validation_loss"], "bits_per_byte": checked[-1]["bits_per_byte"],
            "curve": [[tokens[line["step"]], line["validation_loss"]] for line in checked], "tokens": steps[-1]["tokens"],
            # the median forgets the first steps and whatever else ran on the machine for a while
            "tokens_per_second": statistics.median(line["tokens_per_second"] for line in steps),
            "parameters": dense + table, "table_parameters": table,
            # of mixtures: over the last steps, the mean over layers
            **({"load_cv": statistics.mean(line["load_cv"] for line in steps[-20:])} if "load_cv" in steps[-1] else {})}


def header_of(path):
    """The header of a safetensors file, and where its data begins."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), 8 + length


def parameters_of(checkpoint):
    """Values of a model folder: in its tensors, and in the rows of its tables."""
    tensors, _ = header_of(checkpoint / "model.safetensors")
    dense = sum((t["data_offsets"][1] - t["data_offsets"][0]) // 4 for name, t in tensors.items() if name != "__metadata__")
    tables = json.loads((checkpoint / "config.json").read_text())["mneme_config"].get("tables", {})
    return dense, sum(table_rows(table) * table.get("head_dim", 64) for table in tables.values())


def is_prime(n):
    return n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1))


def table_rows(table):
    """Rows of an Engram table: for each head of each layer and order the next unused prime from base_rows on (docs/config.md)."""
    used, rows = set(), 0
    for _ in table["layer_ids"]:
        for base in table["base_rows"]:
            candidate = base - 1
            for _ in range(table.get("heads", 8)):
                candidate += 1
                while candidate in used or not is_prime(candidate):
                    candidate += 1
                used.add(candidate)
                rows += candidate
    return rows


def scale_tensors(path, scale):
    header, start = header_of(path)
    found = set()
    with open(path, "r+b") as file:
        for name, tensor in header.items():
            for end, factor in scale.items():
                if name.endswith(end):
                    if tensor["dtype"] != "F32":
                        raise Failed(f"{path}: {name} is {tensor['dtype']}, not F32")
                    found.add(end)
                    first, last = tensor["data_offsets"]
                    file.seek(start + first)
                    values = array.array("f", file.read(last - first))
                    file.seek(start + first)
                    file.write(array.array("f", [value * factor for value in values]).tobytes())
    if missing := set(scale) - found:
        raise Failed(f"{path}: no tensor ends in {', '.join(sorted(missing))}")


def classes_of(runner, config):
    """How many classes the token map of a run's tokenizer has. The trainer knows: it refuses a table made for another number."""
    folder = runner.work / "runs" / f"probe-{key_of(config)}"
    done = folder / "classes.json"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "run.json", config)
        try:
            runner.call("train", folder / "run.json", "--out", folder / "out", stderr=folder / "stderr.txt")
        except Failed as refused:
            found = re.search(r"the tokenizer has (\d+) classes", str(refused))
            if not found:
                raise
            write_json(done, int(found.group(1)))
        else:
            raise Failed(f"{folder}: a table of one class was accepted")
    return json.loads(done.read_text())
