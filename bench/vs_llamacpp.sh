#!/usr/bin/env bash
# Mneme beside llama.cpp: same GGUF files, same machine, runs interleaved, each program at its best settings.
# Prints a Markdown table (medians, spread, ratios with 95 % intervals) and writes build/peer/vs_llamacpp.json.
#   bench/vs_llamacpp.sh                      everything (about 25 minutes on two cores)
#   bench/vs_llamacpp.sh --models 1b-q4_0 --tests tg128,pp512 --rounds 3
# `--help` lists the options; docs/benchmarks.md says what the numbers mean.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
peer=${MNEME_PEER:-$root/build/peer}
for argument in "$@"; do
  [ "$argument" = --help ] || [ "$argument" = -h ] && exec python3 "$root/bench/peer/vs_llamacpp.py" --help
done
[ -x "$root/build/release/bin/mneme" ] || "$root/run.sh" --build-only
[ -n "${MNEME_PEER:-}" ] || "$root/bench/setup_peer.sh" "$peer"
exec python3 "$root/bench/peer/vs_llamacpp.py" --mneme "$root/build/release/bin/mneme" --peer "$peer" "$@"
