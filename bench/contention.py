#!/usr/bin/env python3
"""What is left of the decoding speed when other programs want the cores too.

Thread pools that spin at their barriers collapse on an oversubscribed machine: a thread that has lost its core keeps all
others waiting for a time slice. This runs `mneme bench` alone and beside 1, 2 and 4 processes that only compute, in turn,
and prints tokens/s beside the fair share: cores / (cores + competitors) of the speed alone.

    bench/contention.py build/release/bin/mneme MODEL.gguf
    bench/contention.py build/release/bin/mneme MODEL.gguf --peer build/peer     # llama.cpp under the same load
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

LOADS = [0, 1, 2, 4]


class Competitors:
    """Processes that compute and never sleep, for as long as the block runs."""

    def __init__(self, count):
        self.count = count

    def __enter__(self):
        self.running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(self.count)]
        time.sleep(0.3)

    def __exit__(self, *_):
        for process in self.running:
            process.kill()
            process.wait()


def mneme_rate(args):
    out = subprocess.run([args.mneme, "bench", args.model, "--json", "--prompt", "0", "--gen", str(args.gen), "--repeat",
                          "1", "--threads", str(args.threads)], capture_output=True, text=True, check=True).stdout
    return json.loads(out)[0]["tokens_per_second"]


def peer_rate(args):
    libraries = args.peer / "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64"
    out = subprocess.run([args.peer / "llamacpp_peer", "bench", args.model, "--tests", f"tg{args.gen}", "--repeat", "1",
                          "--threads", str(args.threads), "--flash", "on"], capture_output=True, text=True, check=True,
                         env=os.environ | {"PEER_BACKENDS": str(libraries.resolve())}).stdout
    return json.loads(out)["tokens_per_second"][0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mneme")
    parser.add_argument("model")
    parser.add_argument("--peer", type=pathlib.Path, help="folder made by bench/setup_peer.sh")
    parser.add_argument("--gen", type=int, default=128, help="tokens decoded in a run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    programs = {"Mneme": mneme_rate} | ({"llama.cpp": peer_rate} if args.peer else {})
    rates = {(name, load): [] for name in programs for load in LOADS}
    for _ in range(args.rounds):
        for load in LOADS:
            with Competitors(load):
                for name, rate in programs.items():
                    rates[name, load].append(rate(args))
    cores = os.cpu_count()
    print("| program | competitors | tokens/s | of the speed alone | fair share |\n|---|---|---|---|---|")
    for (name, load), values in rates.items():
        alone = statistics.median(rates[name, 0])
        middle = statistics.median(values)
        print(f"| {name} | {load} | {middle:.1f} [{min(values):.1f}–{max(values):.1f}] | {100 * middle / alone:.0f} % | "
              f"{100 * min(1, args.threads * cores / (args.threads + load) / cores):.0f} % |")


if __name__ == "__main__":
    main()
