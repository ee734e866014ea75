"""The measuring half of memory_vs_fio.sh: python3 memory_vs_fio.py MNEME FOLDER ROUNDS"""
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

# V4.1's geometry with a smaller base: orders 2 to 4, 8 heads, 256 FP8 values, two layers.
BASE_ROWS = int(os.environ.get("BASE_ROWS", 400_000))
DEPTHS = [int(d) for d in os.environ.get("DEPTHS", "32,128").split(",")]
TOKENS = 2048
SECONDS = 2


def config(path):
    path.write_text(json.dumps({"raw_ids": True, "compressed_vocab": 99092, "pad_id": 2, "max_ngram": 4, "heads": 8, "head_dim": 256,
                                "base_rows": [BASE_ROWS] * 3, "layer_ids": [1, 14], "format": "fp8_e4m3_e8m0"}))


def run(*command):
    ran = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {ran.stderr.strip()}")
    return ran.stdout


def drop(path):
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fio(path, depth):
    drop(path)
    out = run("fio", "--name=rows", f"--filename={path}", "--readonly", "--rw=randread", "--bs=4k", "--direct=1", "--ioengine=io_uring",
              f"--iodepth={depth}", f"--runtime={SECONDS}", "--time_based", "--randrepeat=0", "--norandommap", "--output-format=json")
    return json.loads(out)["jobs"][0]["read"]["iops"]


def mneme_bench(mneme, path, seed, placement, depth):
    return json.loads(run(mneme, "memory", "bench", path, "--json", "--quiet", "--placement", placement, "--queue-depth", depth, "--tokens",
                          TOKENS, "--batch", TOKENS, "--ids", "uniform", "--dedupe", "--cold", "--seed", seed))


def main():
    mneme, folder, rounds = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
    pack, table = folder / "memory_vs_fio.engram", folder / "memory_vs_fio.json"
    wanted = BASE_ROWS * 48 // 15 * 4096 * 1.1 + 2e9
    if not pack.exists() and shutil.disk_usage(folder).free < wanted:
        sys.exit(f"{folder} has {shutil.disk_usage(folder).free / 1e9:.1f} GB free, but {wanted / 1e9:.1f} GB are needed; name another folder")
    config(table)
    try:
        if not pack.exists():
            run(mneme, "memory", "build", pack, "--config", table, "--random", 1)
        os.sync()
        size = pack.stat().st_size
        if os.stat(pack).st_blocks * 512 < size:
            sys.exit(f"{pack} has holes; its reads would not come from the disk")
        print(f"{pack}: {size / 1e9:.1f} GB of random rows, chunks of {TOKENS} tokens, {rounds} rounds, medians (lowest to highest)\n")
        print("| reads in flight | fio, 4 KiB random reads/s | `direct`: distinct rows/s | of fio | disk reads/s | of fio | page faults: distinct rows/s | `direct` over page faults |")
        print("|---|---|---|---|---|---|---|---|")
        for depth in DEPTHS:
            figures = {"fio": [], "direct": [], "reads": [], "mmap": []}
            for r in range(rounds):
                figures["fio"].append(fio(pack, depth))
                got = mneme_bench(mneme, pack, r, "direct", depth)
                figures["direct"].append(got["distinct"] / got["seconds"])
                figures["reads"].append(got["disk_reads"] / got["seconds"])
                got = mneme_bench(mneme, pack, r, "mmap", depth)
                if got["resident_fraction"] > 0.01:
                    print(f"(mmap: {100 * got['resident_fraction']:.0f} % of the file was in the cache)", file=sys.stderr)
                figures["mmap"].append(got["rows"] / got["seconds"])
            median = {name: statistics.median(values) for name, values in figures.items()}
            text = {name: f"{median[name]:,.0f} ({min(values):,.0f} to {max(values):,.0f})" for name, values in figures.items()}
            print(f"| {depth} | {text['fio']} | {text['direct']} | {median['direct'] / median['fio']:.0%} | {text['reads']} | {median['reads'] / median['fio']:.0%} | "
                  f"{text['mmap']} | {median['direct'] / median['mmap']:.1f}x |", flush=True)
    finally:
        table.unlink(missing_ok=True)
        if not os.environ.get("KEEP"):
            pack.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
