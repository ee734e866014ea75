#!/usr/bin/env python3
"""Does a larger table cost more? Decode time a token for tables of 2^16 to 2^26 rows, all resident.

For each size a pack of random rows is built (every block written, no holes) with two Engram modules of DeepSeek-V4.1's
shape: orders 2 to 4, 8 heads each, FP8 rows, layers 1 and 14, Q8_0 projections. Then, in rounds that go through all sizes
in a new order each time, `memory_decode` decodes random text, so that nearly every row is new, in turn with one token again
and again, whose rows stay in the first-level cache: pairs in one process, because two processes differ by more than rows
cost. All else being equal, the difference of two sizes' costs is the difference of their decode times. Beside it, `mneme
memory bench` times the rows alone. Free disk space and free memory are checked before a pack is built and before it is
loaded; a size that does not fit is left out and named.

    bench/memory_scaling.py build/release/bin MODEL.gguf --work build/memory_scaling \\
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

from medians import median_interval
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
    run(args.bin / "mneme", "memory", "build", pack, "--config", config, "--tokenizer", args.model, "--random", "1", "--modules", modules,
        "--json", "--quiet")
    return pack, None


def random_text(path, seed, words):
    source = random.Random(seed)
    path.write_text(" ".join("".join(source.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(source.randint(1, 7))) for _ in range(words)))


def decode(args, pack, text):
    """Pairs of milliseconds a token: new rows, constant rows; and without a memory."""
    got = run(args.bin / "memory_decode", args.model, "--real", pack, "--text", text, "--placement", "ram", "--cold", 128, "--warm", 0,
              "--decode", args.tokens)
    return got["warm"]["text_ms"], got["warm"]["constant_ms"], got["none"]["text_ms"]


def rows_alone(args, pack):
    """Microseconds for the rows of a token: addresses, and a touch of every row."""
    got = run(args.bin / "mneme", "memory", "bench", pack, "--placement", "ram", "--ids", "uniform", "--tokens", "20000", "--json", "--quiet")
    return 1e6 * got["seconds"] / 20000


def measure(args):
    width = run(args.bin / "mneme", "inspect", args.model, "--json", "--quiet")["config"]["d_model"]
    packs, left_out = {}, []
    for exponent in args.sizes:
        pack, why = build(args, exponent, width)
        if pack is None:
            left_out.append(why)
            print(f"left out: {why}", file=sys.stderr)
        else:
            packs[exponent] = pack
    times = {exponent: {"text_ms": [], "constant_ms": [], "rows_us": []} for exponent in packs}
    alone, text = [], args.work / "random.txt"
    for number in range(args.rounds):
        order = list(packs)
        random.Random(number).shuffle(order)
        random_text(text, number, args.tokens)
        for exponent in order:
            new, constant, none = decode(args, packs[exponent], text)
            times[exponent]["text_ms"] += new
            times[exponent]["constant_ms"] += constant
            times[exponent]["rows_us"].append(rows_alone(args, packs[exponent]))
            alone += none
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
    if not args.keep:
        for pack in packs.values():
            pack.unlink()
    return {"model": args.model.name, "head_dim": args.head_dim, "row_bytes": args.head_dim + args.head_dim // 32,
            "tokens": args.tokens, "without_memory_ms": alone, "left_out": left_out,
            "sizes": [{"log2_rows": exponent, **values} for exponent, values in times.items()]}


def joined(before, now):
    """The rounds of two runs of the same sizes as those of one."""
    if [s["log2_rows"] for s in before["sizes"]] != [s["log2_rows"] for s in now["sizes"]] or any(
            before[key] != now[key] for key in ("model", "head_dim", "tokens")):
        sys.exit("--add: the numbers in --json were taken with other options or other sizes")
    for old, new in zip(before["sizes"], now["sizes"]):
        for key in ("text_ms", "constant_ms", "rows_us"):
            old[key] += new[key]
    before["without_memory_ms"] += now["without_memory_ms"]
    return before


def cost(size):
    """Of new rows over constant ones, in percent: median, lower and upper end."""
    return [100 * (ratio - 1) for ratio in median_interval([t / c for t, c in zip(size["text_ms"], size["constant_ms"])])]


def summary(numbers):
    lines = ["| rows | table | constant rows, ms a token | cost of new rows [95 %] | pairs | rows alone, µs a token |", "|---|---|---|---|---|---|"]
    for size in numbers["sizes"]:
        middle, low, high = cost(size)
        lines.append(f"| 2^{size['log2_rows']} | {(numbers['row_bytes'] << size['log2_rows']) / 1e6:,.0f} MB | {statistics.median(size['constant_ms']):.2f} | "
                     f"{middle:+.2f} % [{low:+.2f}, {high:+.2f}] | {len(size['text_ms'])} | {statistics.median(size['rows_us']):.1f} |")
    return "\n".join(lines + [f"without a memory: {statistics.median(numbers['without_memory_ms']):.2f} ms a token"]
                     + [f"left out: {why}" for why in numbers["left_out"]])


def plot(numbers, path):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "mneme"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
    sizes = [size["log2_rows"] for size in numbers["sizes"]]
    costs = [cost(size) for size in numbers["sizes"]]
    left.axhspan(-5, 5, color="#1f6feb", alpha=0.08)
    left.errorbar(sizes, [c[0] for c in costs], [[c[0] - c[1] for c in costs], [c[2] - c[0] for c in costs]], color="#1f6feb",
                  marker="o", markersize=4, capsize=3)
    left.set(ylabel="decode time over that with constant rows, %", ylim=(-8, 8))
    left.set_title("shaded: within 5 %; bars: 95 % interval of the median", fontsize=9)
    medians = [statistics.median(size["rows_us"]) for size in numbers["sizes"]]
    right.plot(sizes, medians, color="#1f6feb", marker="o", markersize=4)
    right.set(ylabel="rows alone, µs a token")
    right.set_ylim(bottom=0)
    right.set_title("48 rows from memory, no model", fontsize=9)
    for axis in (left, right):
        axis.set(xlabel="rows in the table", xticks=sizes)
        axis.set_xticklabels([f"2^{size}" for size in sizes])
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", type=pathlib.Path, help="folder of mneme and memory_decode")
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for packs and the virtual environment")
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--svg", type=pathlib.Path)
    parser.add_argument("--sizes", type=lambda text: [int(word) for word in text.split(",")], default=[16, 18, 20, 22, 24, 26],
                        help="binary logarithms of the numbers of rows")
    parser.add_argument("--head-dim", type=int, default=256, help="values in a row, a multiple of 32")
    parser.add_argument("--tokens", type=int, default=3000, help="decoded in a process")
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
