#!/usr/bin/env bash
# The pocket model from nothing: gathers its text, learns its tokenizer, trains, packs, measures. Each step that is done is
# kept, and an interrupted one goes on: run it again. --steps N for a look.
#   examples/pocket/train.sh [options of mneme train]
# What comes out is build/pocket.gguf with build/pocket.engram, and build/pocket.json, which says how good they are; the model
# that ships is a copy of the three in models/.
set -eu
cd "$(dirname "$0")"
. ./texts.sh
resume=
[ ! -e build/run/latest ] || resume=--resume
"$mneme" train train.json $resume "$@"
"$mneme" quantize "build/run/$(cat build/run/latest)" build/pocket.gguf --type q8_0 --with-tables \
  --note "general.license=apache-2.0" \
  --note "general.source=World English Bible (public domain, Debian package sword-text-web); six novels by Jane Austen (public domain, Debian package r-cran-janeaustenr)" \
  --note "general.description=A small test model: continues English prose, answers no questions. Trained by examples/pocket/train.sh."
if "$python" -c "import numpy" 2>/dev/null; then
  kept build/pocket.json "$python" measure.py build/pocket.gguf
  cat build/pocket.json
else
  echo "numpy is not installed; measure.py says how good the model is where it is" >&2
fi
