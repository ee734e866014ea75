#!/usr/bin/env bash
# The pocket model with every feature on: hybrid attention, a memory table, experts of which easy tokens wake fewer, and
# spikes in front of every projection. As train.sh, whose text and tokenizer it shares; run it again to go on.
#   examples/pocket/all.sh [options of mneme train]
# Out: build/pocket-all.gguf with build/pocket-all.engram, and what it fires and wakes on held-out text
# (build/pocket-all-experts.json, build/pocket-all-spikes.json).
set -eu
cd "$(dirname "$0")"
. ./texts.sh
resume=
[ ! -e build/run-all/latest ] || resume=--resume
"$mneme" train all.json $resume "$@"
"$mneme" quantize "build/run-all/$(cat build/run-all/latest)" build/pocket-all.gguf --type q8_0 --with-tables
kept build/pocket-all-experts.json "$mneme" experts build/pocket-all.gguf -f build/held_out.txt --tokens 20000 --json
kept build/pocket-all-spikes.json "$mneme" spikes build/pocket-all.gguf -f build/held_out.txt --tokens 20000 --no-ppl --json
"$mneme" experts build/pocket-all.gguf -f build/held_out.txt --tokens 20000
