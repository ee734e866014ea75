#!/bin/bash
# Cold row reads beside the disk's own rate: bench/memory_vs_fio.sh [FOLDER [ROUNDS]]
# Writes a pack of several GB of random rows (real blocks, no holes) into FOLDER (default: the temporary folder), then in
# each round, interleaved and with the file's pages dropped before every one: fio's random reads of 4 KiB, the placement
# direct on a chunk of 2,048 tokens, and page faults (mmap) on the same deduplicated list. Prints medians and ratios as a
# Markdown table. Needs fio (Debian package: fio) and a release build; the pack is removed at the end unless KEEP=1.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v fio > /dev/null || { echo "fio is missing; install the Debian package fio" >&2; exit 1; }
mneme=${MNEME_BIN:-build/release/bin/mneme}
[ -x "$mneme" ] || { echo "$mneme is missing; build first (./run.sh --build-only)" >&2; exit 1; }
exec python3 bench/memory_vs_fio.py "$mneme" "${1:-${TMPDIR:-/tmp}}" "${2:-5}"
