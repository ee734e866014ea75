#!/usr/bin/env python3
"""What each layer loses by a cheaper kind of attention, measured with the engine: no training, so the cost of the swap itself.

The model is written once as a float32 folder; every variant is that folder with another config (and nothing else copied), so any
`mneme convert` result can be measured in the same way. Perplexity is `mneme perplexity` at --ctx over --tokens of a text.

parts, each result kept in --json as soon as it is there, so that an interrupted run goes on where it stopped:
  windows   all layers with a window of W keys, with and without 4 sinks
  alone     one layer with --window keys at a time, all others as they are
  greedy    all layers windowed but the N that lose most alone, N = 0 to 6

    bench/convert_layers.py build/release/bin/mneme MODEL TEXT --work build/convert --json docs/images/convert_layers.json
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

WINDOWS = [512, 1024, 256, 128]
SINKS = 4


class Bench:
    def __init__(self, args):
        self.args, self.done = args, {}
        if args.json.exists():
            self.done = json.loads(args.json.read_text())
        self.base = args.work / "original"
        if not (self.base / "config.json").exists():
            self.run("quantize", args.model, f"{self.base}/", "--type", "f32")
        described = json.loads(self.run("inspect", self.base, "--json"))
        self.config = described["config"]
        self.layers = self.expanded(self.config)

    @staticmethod
    def expanded(config):
        """Every layer on its own, with the defaults filled in."""
        out = []
        for entry in config["layers"]:
            layer = {**config.get("defaults", {}), **entry}
            for part in ("mixer", "ffn"):
                layer[part] = {**config.get("defaults", {}).get(part, {}), **entry.get(part, {})}
            repeat = layer.pop("repeat", 1)
            out += [json.loads(json.dumps(layer)) for _ in range(repeat)]
        return out

    def run(self, *words):
        ran = subprocess.run([str(self.args.mneme), *map(str, words)], capture_output=True, text=True)
        if ran.returncode:
            sys.exit(f"mneme {' '.join(map(str, words))}: {ran.stderr.strip()[-400:]}")
        return ran.stdout

    def variant(self, windows):
        """A folder whose layers in `windows` (number -> (window, sinks)) are windowed; the rest is linked."""
        folder = self.args.work / "variant"
        folder.mkdir(parents=True, exist_ok=True)
        layers = json.loads(json.dumps(self.layers))
        for number, (window, sinks) in windows.items():
            layers[number]["mixer"].update(type="window", window=window, sinks=sinks)
        config = {k: v for k, v in self.config.items() if k != "defaults"} | {"layers": layers}
        for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            link = folder / name
            if (self.base / name).exists() and not link.exists():
                link.symlink_to(os.path.relpath(self.base / name, folder))
        (folder / "config.json").write_text(json.dumps({"model_type": "mneme", "torch_dtype": "float32", "mneme_config": config}))
        return folder

    def perplexity(self, part, key, windows):
        if key in self.done.get(part, {}):
            return self.done[part][key]["ppl"]
        result = json.loads(self.run("perplexity", self.variant(windows), self.args.text, "--ctx", self.args.ctx, "--tokens",
                                     self.args.tokens, "--json", "--type", self.args.type))
        self.done.setdefault(part, {})[key] = result
        partial = self.args.json.with_suffix(".part")
        partial.write_text(json.dumps(self.done, indent=1) + "\n")
        partial.replace(self.args.json)
        print(f"{part} {key}: {result['ppl']:.4f}", file=sys.stderr, flush=True)
        return result["ppl"]

    def windows(self):
        self.perplexity("windows", "original", {})
        for window in WINDOWS:
            for sinks in (SINKS, 0):
                self.perplexity("windows", f"{window}+{sinks}", {i: (window, sinks) for i in range(len(self.layers))})

    def alone(self):
        for i in range(len(self.layers)):
            self.perplexity("alone", str(i), {i: (self.args.window, SINKS)})

    def greedy(self):
        self.alone()
        worst = sorted(range(len(self.layers)), key=lambda i: -self.done["alone"][str(i)]["ppl"])
        for kept in range(7):
            full = sorted(worst[:kept])
            self.perplexity("greedy", " ".join(map(str, full)) or "none",
                            {i: (self.args.window, SINKS) for i in range(len(self.layers)) if i not in full})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mneme", type=lambda path: pathlib.Path(path).absolute())
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--ctx", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--type", default="f32")
    parser.add_argument("--parts", nargs="+", default=["windows", "alone", "greedy"], choices=["windows", "alone", "greedy"])
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(args)
    for part in args.parts:
        getattr(bench, part)()


if __name__ == "__main__":
    main()
