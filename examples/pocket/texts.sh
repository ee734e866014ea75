#!/usr/bin/env bash
# What every run of the pocket model reads, made once: build/train.jsonl and build/held_out.jsonl, the held-out documents as
# one text, and the tokenizer. train.sh and all.sh source it for that and for the programs; alone it only makes the texts.
#   examples/pocket/texts.sh
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")"
mneme=${MNEME_BIN:-../../build/release/bin/mneme}
python=${PYTHON:-python3}
mkdir -p build
[ -e build/sizes.json ] || "$python" gather_text.py build
"$python" -c 'import json; print("\n\n".join(json.loads(line)["text"] for line in open("build/held_out.jsonl")))' > build/held_out.txt
[ -e build/tokenizer/tokenizer.json ] || "$mneme" tokenizer train build/train.jsonl -o build/tokenizer --vocab 2048
