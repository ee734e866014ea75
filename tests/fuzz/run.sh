#!/bin/bash
# Fuzzes: tests/fuzz/run.sh SECONDS [TARGET...]   e.g. tests/fuzz/run.sh 60 gguf safetensors (default: all)
# Builds the preset asan, runs each target for SECONDS from its committed corpus (new inputs go to build/fuzz/found/)
# and prints the executions of each. Exits with 1 at the first crash, whose input is left in build/fuzz/crashes/.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -ge 1 ] || { sed -n 2,4p "$0" | cut -c3-; exit 2; }
seconds=$1
shift
cmake --preset asan > /dev/null
cmake --build build/asan --target fuzz_targets -j"${MNEME_JOBS:-2}"
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for program in build/asan/fuzz/*_fuzz; do targets+=("$(basename "${program%_fuzz}")"); done
fi
mkdir -p build/fuzz/crashes
total=0
status=0
for target in "${targets[@]}"; do
  found=build/fuzz/found/$target
  mkdir -p "$found"
  log=build/fuzz/$target.log
  if ! build/asan/fuzz/"${target}_fuzz" -max_total_time="$seconds" -max_len=65536 -timeout=20 -rss_limit_mb=2048 \
      -print_final_stats=1 -verbosity=0 -artifact_prefix="build/fuzz/crashes/$target-" "$found" "tests/fuzz/corpus/$target" \
      > "$log" 2>&1; then
    echo "$target: FAILED, see $log"
    grep -m3 -E "ERROR|runtime error|SUMMARY" "$log" || true
    status=1
    continue
  fi
  runs=$(awk '/stat::number_of_executed_units/ {print $2}' "$log")
  echo "$target: $runs executions in $seconds s"
  total=$((total + runs))
done
echo "total: $total executions"
exit $status
