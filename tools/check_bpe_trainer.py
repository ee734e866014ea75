#!/usr/bin/env python3
"""`mneme tokenizer train` beside Hugging Face's `tokenizers`: do both learn the same merges, and does the reference
read our tokenizer.json to the same ids (the unit test compares them)?

    python3 -m venv VENV && VENV/bin/pip install tokenizers
    VENV/bin/python tools/check_bpe_trainer.py --mneme build/release/bin/mneme [--write] [--text FILE.jsonl --vocab N]

Without --text: for each pattern a vocabulary of 1,024 pieces is learned from half of the lines of
tests/data/tokenizer/corpus.bin; --write stores the reference's ids as the
golden of the unit test (tests/data/tokenizer/trained_*). Exit code 1 if less than 99 % of the merges are shared.
"""
import argparse, json, struct, subprocess, sys, tempfile, time
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import make_tokenizer_golden as golden

PATTERNS = {
    "smollm": None, "gpt2": None,
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def reference_trained(pattern, documents, vocab):
    tokenizer = Tokenizer(models.BPE())
    cut = PATTERNS[pattern]
    steps = [pre_tokenizers.Digits(individual_digits=True)] if pattern == "smollm" else []
    if cut:
        steps.append(pre_tokenizers.Split(Regex(cut), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(documents, trainers.BpeTrainer(
        vocab_size=vocab, min_frequency=2, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return tokenizer


def corpus():
    data = (golden.DATA / "corpus.bin").read_bytes()
    at, lines = 0, []
    while at < len(data):
        repeat, size = struct.unpack_from("<II", data, at)
        lines.append((repeat, data[at + 8:at + 8 + size]))
        at += 8 + size
    return lines


def training_lines(lines):
    """As tests/text/bpe_trainer_test.cpp takes them."""
    out = []
    for repeat, raw in lines[::2]:
        raw = raw * repeat
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            continue
        if len(raw) < 1000 and "\0" not in text:
            out.append(text)
    return out


def merges_of(document):
    return [" ".join(m) if isinstance(m, list) else m for m in document["model"]["merges"]]


def check(mneme, pattern, documents, vocab, texts, write):
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "text.jsonl"
        source.write_text("".join(json.dumps({"text": d}) + "\n" for d in documents), encoding="utf-8")
        ran = subprocess.run([mneme, "tokenizer", "train", str(source), "-o", f"{folder}/out", "--vocab", str(vocab), "--pattern",
                              pattern, "--json", "--quiet"], capture_output=True, text=True, check=True)
        seconds = json.loads(ran.stdout)["seconds"]
        start = time.time()
        reference = reference_trained(pattern, documents, vocab)
        reference_seconds = time.time() - start
        path = f"{folder}/out/tokenizer.json"
        ours = merges_of(json.loads(Path(path).read_text(encoding="utf-8")))
        theirs = merges_of(json.loads(reference.to_str()))
        same = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        shared = len(set(ours) & set(theirs)) / max(len(theirs), 1)
        print(f"{pattern}: {len(ours)} merges, the reference {len(theirs)}; the first {same} equal, {shared:.1%} shared; "
              f"{seconds:.2f} s, the reference {reference_seconds:.2f} s")
        tokenizer = Tokenizer.from_file(path)
        if write:
            encode, decode = golden.hf_functions(tokenizer)
            golden.write_golden(f"trained_{pattern}", texts, encode, decode, list(range(0, len(texts), golden.SUBSET)))
        return 1 - shared


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mneme", required=True, help="the program")
    parser.add_argument("--write", action="store_true", help="store the golden of the unit test")
    parser.add_argument("--text", help="JSON lines to learn from instead")
    parser.add_argument("--vocab", type=int, default=1024)
    arguments = parser.parse_args()
    if arguments.text:
        documents = [json.loads(line)["text"] for line in open(arguments.text, encoding="utf-8")]
        return check(arguments.mneme, "smollm", documents, arguments.vocab, [], False)
    lines = corpus()
    documents, texts = training_lines(lines), golden.texts_of(lines)
    return max(check(arguments.mneme, pattern, documents, arguments.vocab, texts, arguments.write) for pattern in PATTERNS)


if __name__ == "__main__":
    sys.exit(1 if main() > 0.01 else 0)
