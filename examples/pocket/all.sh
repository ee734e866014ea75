#!/usr/bin/env bash
# The pocket model with every feature on: hybrid attention, a memory table, experts of which easy tokens wake fewer, and
# spikes in front of every projection. As train.sh, whose text and tokenizer it shares; run it again to go on.
#   examples/pocket/all.sh [options of mneme train]
# Out: build/pocket-all.gguf with build/pocket-all.engram, and what it fires and wakes on held-out text
# (build/pocket-all-experts.json, build/pocket-all-spikes.json).
set -eu
cd "$(dirname "$0")"
mneme=${MNEME_BIN:-../../build/release/bin/mneme}
python=${PYTHON:-python3}
mkdir -p build
[ -e build/sizes.json ] || "$python" gather_text.py build
[ -e build/tokenizer/tokenizer.json ] || "$mneme" tokenizer train build/train.jsonl -o build/tokenizer --vocab 2048
resume=
[ ! -e build/run-all/latest ] || resume=--resume
"$mneme" train all.json $resume "$@"
"$mneme" quantize "build/run-all/$(cat build/run-all/latest)" build/pocket-all.gguf --type q8_0 --with-tables
"$python" -c 'import json; print("\n\n".join(json.loads(line)["text"] for line in open("build/held_out.jsonl")))' > build/held_out.txt
"$mneme" experts build/pocket-all.gguf -f build/held_out.txt --tokens 20000 --json > build/pocket-all-experts.json
"$mneme" spikes build/pocket-all.gguf -f build/held_out.txt --tokens 20000 --no-ppl --json > build/pocket-all-spikes.json
"$mneme" experts build/pocket-all.gguf -f build/held_out.txt --tokens 20000
