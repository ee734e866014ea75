#!/usr/bin/env bash
# What every run of the pocket model reads, made once: build/train.jsonl and build/held_out.jsonl, the held-out documents as
# one text, and the tokenizer. train.sh and all.sh source it for that, for the programs and for kept(); alone it only makes the
# texts.
#   examples/pocket/texts.sh
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")"
mneme=${MNEME_BIN:-../../build/release/bin/mneme}
python=${PYTHON:-python3}
# kept FILE COMMAND...: what a command prints becomes FILE when it has succeeded.
kept() {
  to=$1
  shift
  "$@" > "$to.tmp"
  mv "$to.tmp" "$to"
}
mkdir -p build
[ -e build/sizes.json ] || "$python" gather_text.py build
kept build/held_out.txt "$python" -c 'import json; print("\n\n".join(json.loads(line)["text"] for line in open("build/held_out.jsonl")))'
[ -e build/tokenizer/tokenizer.json ] || "$mneme" tokenizer train build/train.jsonl -o build/tokenizer --vocab 2048
