#!/usr/bin/env python3
"""Does a larger table cost more? Decode time a token for tables of 2^16 to 2^26 rows, all resident.

For each size a pack of random rows is built (every block written, no holes) with two Engram modules of DeepSeek-V4.1's
shape: orders 2 to 4, 8 heads each, FP8 rows, layers 1 and 14, Q8_0 projections. Then, in rounds that go through all sizes
in a new order each time, `mneme bench` decodes random tokens, other ones in every run, so nearly every row is new; beside
it, `mneme memory bench` times the rows alone. The model without a memory is measured in each round too. Free disk space
and free memory are checked before a pack is built and before it is loaded; a size that does not fit is left out and named.

    bench/memory_scaling.py build/release/bin/mneme MODEL.gguf --work build/memory_scaling \\
        --json docs/images/memory_scaling.json --svg docs/images/memory_scaling.svg
"""
import argparse
import json
import pathlib
import random
import shutil
import statistics
import struct
import subprocess
import sys

from plotting import with_matplotlib

LAYERS, ORDERS, HEADS = (1, 14), 3, 8
SPARE_MEMORY, SPARE_DISK = 2 << 30, 4 << 30


def run(*command):
    ran = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {ran.stderr.strip()}")
    return json.loads(ran.stdout)


def available_memory():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def write_modules(path, width, embedding):
    """A GGUF file of the modules' tensors: Q8_0 projections of random codes, norms of ones."""
    source = random.Random(1)
    tensors = []  # name, dimensions innermost first, GGUF type, data
    for layer in LAYERS:
        for name in ("engram_k", "engram_v"):
            blocks = width * embedding // 32
            data = b"".join(b"\x00\x0c" + source.randbytes(32) for _ in range(blocks))  # scale 2^-12
            tensors.append((f"blk.{layer}.{name}.weight", (embedding, width), 8, data))
        for name in ("engram_k_norm", "engram_q_norm"):
            tensors.append((f"blk.{layer}.{name}.weight", (width,), 0, struct.pack("<f", 1.0) * width))

    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1) + text("general.architecture") + struct.pack("<I", 8) + text("engram")
    body = b""
    for name, shape, kind, data in tensors:
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, len(body))
        body += data + b"\0" * (-len(data) % 32)
    path.write_bytes(head + b"\0" * (-len(head) % 32) + body)


def build(args, exponent, width):
    """The pack of 2^exponent rows, or None with a word why not."""
    pack = args.work / f"rows{exponent}.engram"
    embedding = ORDERS * HEADS * args.head_dim
    wanted = (args.head_dim + args.head_dim // 32) << exponent
    wanted += wanted // 16  # the ends of pages, and checksums
    if available_memory() < wanted + SPARE_MEMORY:
        return None, f"2^{exponent} rows need {wanted / 1e9:.1f} GB of memory; {available_memory() / 1e9:.1f} GB are free"
    if pack.exists():
        return pack, None
    if shutil.disk_usage(args.work).free < wanted + SPARE_DISK:
        return None, f"2^{exponent} rows need {wanted / 1e9:.1f} GB of disk; {shutil.disk_usage(args.work).free / 1e9:.1f} GB are free"
    table = {"pad_id": 0, "max_ngram": ORDERS + 1, "heads": HEADS, "head_dim": args.head_dim, "layer_ids": LAYERS,
             "base_rows": [(1 << exponent) // (len(LAYERS) * ORDERS * HEADS)] * ORDERS, "format": "fp8_e4m3_e8m0"}
    config, modules = args.work / f"rows{exponent}.json", args.work / "modules.gguf"
    config.write_text(json.dumps({"table": table, "modules": [{"table": "memory", "layer_id": layer} for layer in LAYERS]}))
    if not modules.exists():
        write_modules(modules, width, embedding)
    run(args.mneme, "memory", "build", pack, "--config", config, "--tokenizer", args.model, "--random", "1", "--modules", modules,
        "--json", "--quiet")
    return pack, None


def decode(args, pack):
    """Milliseconds a token."""
    memory = ("--memory", f"{pack}:ram") if pack else ()
    got, = run(args.mneme, "bench", args.model, "--prompt", "0", "--gen", args.tokens, "--repeat", args.repeat, *memory, "--json", "--quiet")
    return 1e3 / got["tokens_per_second"]


def rows_alone(args, pack):
    """Microseconds for the rows of a token: addresses, and a touch of every row."""
    got = run(args.mneme, "memory", "bench", pack, "--placement", "ram", "--ids", "uniform", "--tokens", "20000", "--json", "--quiet")
    return 1e6 * got["seconds"] / 20000


def measure(args):
    width = run(args.mneme, "inspect", args.model, "--json", "--quiet")["config"]["d_model"]
    packs, left_out = {}, []
    for exponent in args.sizes:
        pack, why = build(args, exponent, width)
        if pack is None:
            left_out.append(why)
            print(f"left out: {why}", file=sys.stderr)
        else:
            packs[exponent] = pack
    times = {exponent: {"decode_ms": [], "rows_us": []} for exponent in packs}
    alone = []
    for number in range(args.rounds):
        order = [None, *packs]
        random.Random(number).shuffle(order)
        for exponent in order:
            if exponent is None:
                alone.append(decode(args, None))
                continue
            times[exponent]["decode_ms"].append(decode(args, packs[exponent]))
            times[exponent]["rows_us"].append(rows_alone(args, packs[exponent]))
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
    if not args.keep:
        for pack in packs.values():
            pack.unlink()
    return {"model": args.model.name, "head_dim": args.head_dim, "row_bytes": args.head_dim + args.head_dim // 32,
            "tokens": args.tokens, "repeat": args.repeat, "without_memory_ms": alone, "left_out": left_out,
            "sizes": [{"log2_rows": exponent, **values} for exponent, values in times.items()]}


def joined(before, now):
    """The rounds of two runs of the same sizes as those of one."""
    if [s["log2_rows"] for s in before["sizes"]] != [s["log2_rows"] for s in now["sizes"]] or any(
            before[key] != now[key] for key in ("model", "head_dim", "tokens", "repeat")):
        sys.exit("--add: the numbers in --json were taken with other options or other sizes")
    for old, new in zip(before["sizes"], now["sizes"]):
        for key in ("decode_ms", "rows_us"):
            old[key] += new[key]
    before["without_memory_ms"] += now["without_memory_ms"]
    return before


def summary(numbers):
    lines = ["| rows | table | decode, ms a token [min–max] | rows alone, µs a token |", "|---|---|---|---|"]
    alone = numbers["without_memory_ms"]
    lines.append(f"| none | – | {statistics.median(alone):.3f} [{min(alone):.3f}–{max(alone):.3f}] | – |")
    for size in numbers["sizes"]:
        times, bytes_ = size["decode_ms"], numbers["row_bytes"] << size["log2_rows"]
        lines.append(f"| 2^{size['log2_rows']} | {bytes_ / 1e6:,.0f} MB | {statistics.median(times):.3f} [{min(times):.3f}–{max(times):.3f}] | "
                     f"{statistics.median(size['rows_us']):.1f} |")
    return "\n".join(lines + [f"left out: {why}" for why in numbers["left_out"]])


def plot(numbers, path):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "mneme"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
    sizes = [size["log2_rows"] for size in numbers["sizes"]]
    for axis, key, label in ((left, "decode_ms", "decode, ms a token"), (right, "rows_us", "rows alone, µs a token")):
        medians = [statistics.median(size[key]) for size in numbers["sizes"]]
        low = [m - min(size[key]) for m, size in zip(medians, numbers["sizes"])]
        high = [max(size[key]) - m for m, size in zip(medians, numbers["sizes"])]
        axis.errorbar(sizes, medians, [low, high], color="#1f6feb", marker="o", markersize=4, capsize=3)
        axis.set(xlabel="rows in the table", ylabel=label, xticks=sizes)
        axis.set_xticklabels([f"2^{size}" for size in sizes])
    left.axhline(statistics.median(numbers["without_memory_ms"]), color="#888", linewidth=0.8, linestyle="--")
    left.set_ylim(bottom=0)
    right.set_ylim(bottom=0)
    left.set_title("dashed: the model without a memory", fontsize=9)
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mneme", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for packs and the virtual environment")
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--svg", type=pathlib.Path)
    parser.add_argument("--sizes", type=lambda text: [int(word) for word in text.split(",")], default=[16, 18, 20, 22, 24, 26],
                        help="binary logarithms of the numbers of rows")
    parser.add_argument("--head-dim", type=int, default=256, help="values in a row, a multiple of 32")
    parser.add_argument("--tokens", type=int, default=256, help="decoded in a run")
    parser.add_argument("--repeat", type=int, default=5, help="runs of a process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--add", action="store_true", help="add the rounds to those that --json already holds")
    parser.add_argument("--keep", action="store_true", help="leave the packs for another run")
    parser.add_argument("--only-plot", action="store_true", help="draw what --json already holds")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.only_plot:
        numbers = measure(args)
        if args.add:
            numbers = joined(json.loads(args.json.read_text()), numbers)
        args.json.write_text(json.dumps(numbers) + "\n")
    numbers = json.loads(args.json.read_text())
    print(summary(numbers))
    if not args.svg:
        return
    with_matplotlib(args.work, args.only_plot)
    plot(numbers, args.svg)


if __name__ == "__main__":
    main()
