#!/usr/bin/env bash
# The pocket model from nothing: gathers its text, learns its tokenizer, trains, packs. Each step that is done is kept,
# and an interrupted one goes on: run it again. Takes hours of CPU for the length in train.json; --steps N for a look.
#   examples/pocket/train.sh [options of mneme train]
set -eu
cd "$(dirname "$0")"
mneme=${MNEME_BIN:-../../build/release/bin/mneme}
mkdir -p build
[ -e build/sizes.json ] || python3 gather_text.py build
[ -e build/tokenizer/tokenizer.json ] || "$mneme" tokenizer train build/train.jsonl -o build/tokenizer --vocab 4096
resume=
[ ! -e build/run/latest ] || resume=--resume
"$mneme" train train.json $resume "$@"
"$mneme" quantize "build/run/$(cat build/run/latest)" build/pocket.gguf --type q8_0
