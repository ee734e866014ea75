"""What the experiments train on, made once in WORK/data and WORK/facts.

data: English prose from Debian packages (examples/pocket/gather_text.py), or --text FILES (JSON lines with "text"). A
document is held out by the hash of its text. The held-out documents are shuffled, and only the beginning of each is kept, so
that a short validation sees many documents. Texts become token shards once, by a run of one step, and every run uses those. Conversions, which make shards of
their own, read some.jsonl: training documents chosen at random.

facts: a language made to tell what a table knows from what a context says. A document is a row of items:
    "ab7 "                    a fact: two small letters, and a digit that is the same in every document
    "(58293471)58293471 "     a span: eight digits drawn anew in every document, and said again
Facts can be looked up by the last two letters. What is said again can only be copied, from nine characters before.
"""
import hashlib
import json
import pathlib
import random
import shutil
import string
import subprocess
import sys

from runs import Failed, write_json

HERE = pathlib.Path(__file__).resolve().parent
SHARE = 0.02       # of the documents are held out
BEGINNING = 1500   # characters of a held-out document that are kept
SPAN = 8           # digits of a span
END = 256          # the end token of the facts' tokenizer: after the bytes


def held_out(text):
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64 < SHARE


def gathered(folder):
    if not (folder / "sizes.json").exists():
        subprocess.run([sys.executable, HERE.parent / "pocket" / "gather_text.py", folder], check=True, stdout=subprocess.DEVNULL)
    return [folder / "train.jsonl", folder / "held_out.jsonl"]


def prepare(runner, size, files):
    """WORK/data with train.jsonl, some.jsonl, held_out.jsonl, tokenizer/ and shards/; refuses to mix two collections of text in one WORK."""
    folder = runner.work / "data"
    made_from = [str(path.resolve()) for path in files] or "examples/pocket/gather_text.py"
    mark = folder / "made_from.json"
    if mark.exists():
        if json.loads(mark.read_text()) != made_from:
            raise Failed(f"{folder} was made from {json.loads(mark.read_text())}, not from {made_from}; choose another --work")
        return
    runner.say("texts and tokenizer")
    folder.mkdir(parents=True, exist_ok=True)
    kept, seen = [], set()
    with open(folder / "train.jsonl", "w", encoding="utf-8") as train:
        for path in files or gathered(runner.work.parent / "text"):
            with open(path, encoding="utf-8") as lines:
                for line in lines:
                    text = json.loads(line)["text"]
                    mark_of = hashlib.sha256(text.encode()).digest()
                    if mark_of in seen:
                        continue
                    seen.add(mark_of)
                    if held_out(text):
                        kept.append(text[:BEGINNING])
                    else:
                        train.write(json.dumps({"text": text}) + "\n")
    if not kept:
        raise Failed(f"no document of {made_from} was held out: {len(seen)} documents are too few")
    random.Random(1).shuffle(kept)
    with open(folder / "held_out.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in kept)
    with open(folder / "train.jsonl", encoding="utf-8") as file:
        documents = file.readlines()
    random.Random(2).shuffle(documents)
    with open(folder / "some.jsonl", "w", encoding="utf-8") as file:
        some = 0
        for line in documents:
            some += file.write(line)
            if some >= size.convert_bytes:
                break
    shutil.rmtree(folder / "tokenizer", ignore_errors=True)
    runner.call("tokenizer", "train", folder / "train.jsonl", "-o", folder / "tokenizer", "--vocab", size.vocab, stderr=folder / "tokenizer.txt")
    make_shards(runner, folder, size.vocab)
    write_json(mark, made_from)


def make_shards(runner, folder, vocab):
    """Tokens of FOLDER's texts under FOLDER/shards, by one step of the smallest model."""
    shutil.rmtree(folder / "once", ignore_errors=True)
    model = {"mneme": 1, "d_model": 8, "vocab": vocab, "context": 8, "defaults": {"mixer": {"heads": 1, "kv_heads": 1, "head_dim": 8}, "ffn": {"type": "dense", "hidden": 8}},
             "layers": [{}]}
    write_json(folder / "once.json", {"mneme_train": 1, "model": model, "tokenizer": "tokenizer", "data": {"train": ["train.jsonl"], "validation": ["held_out.jsonl"], "length": 8},
                                      "batch": {"sequences": 1}, "steps": 1, "out": "once"})
    runner.call("train", folder / "once.json", stderr=folder / "once.txt")
    shutil.rmtree(folder / "shards", ignore_errors=True)
    (folder / "once" / "shards").rename(folder / "shards")
    shutil.rmtree(folder / "once")


# ---- facts and spans --------------------------------------------------------------------------------------------------


def byte_tokenizer(folder):
    """256 bytes and an end token, no merges: the id of a byte is its value."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    names = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": END, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    write_json(folder / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [end], "normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "vocab": {name: b for b, name in names.items()}, "merges": []}})
    write_json(folder / "tokenizer_config.json", {"eos_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"})


def fact_document(pick, facts, spans, items):
    """A text, and what it asks: [[position of the digit, "fact" or "copy"], ...]."""
    row = [("copy", "".join(pick.choices(string.digits, k=SPAN))) for _ in range(spans)] + [("fact", key) for key in pick.sample(sorted(facts), items)]
    pick.shuffle(row)
    text, asked = "", []
    for kind, what in row:
        if kind == "fact":
            asked.append([len(text) + 2, kind])
            text += f"{what}{facts[what]} "
        else:
            asked += [[len(text) + SPAN + 2 + i, kind] for i in range(SPAN)]
            text += f"({what}){what} "
    return text, asked


def prepare_facts(runner, size):
    """WORK/facts: train.jsonl, held_out.jsonl, tokenizer/, shards/ and questions.json (held-out documents with what they ask)."""
    folder = runner.work / "facts"
    if (folder / "questions.json").exists():
        return
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    byte_tokenizer(folder / "tokenizer")
    pick = random.Random(7)
    keys = [a + b for a in string.ascii_lowercase for b in string.ascii_lowercase]
    facts = {key: pick.choice(string.digits) for key in pick.sample(keys, size.facts)}
    shape = facts, size.fact_spans, size.fact_items
    with open(folder / "train.jsonl", "w") as file:
        file.writelines(json.dumps({"text": fact_document(pick, *shape)[0]}) + "\n" for _ in range(size.fact_documents))
    asked = [fact_document(pick, *shape) for _ in range(size.fact_documents // 50)]
    with open(folder / "held_out.jsonl", "w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text, _ in asked)
    make_shards(runner, folder, END + 1)
    write_json(folder / "questions.json", asked[:size.fact_questions])


def answers(runner, model, questions):
    """Share of digits that a model folder guesses right with its best next token: {"fact": ..., "copy": ...}."""
    right, all_ = {"fact": 0, "copy": 0}, {"fact": 0, "copy": 0}
    for text, asked in questions:
        ids = [END, *text.encode()]  # a document begins after an end token
        out = json.loads(runner.call("logits", model, "--ids", ",".join(map(str, ids)), "--all", "--json", "--quiet", "--activation", "float"))
        for position, kind in asked:
            row = out["logits"][position]  # after id `position` of ids, which is the character before the digit
            all_[kind] += 1
            right[kind] += max(range(len(row)), key=row.__getitem__) == ord(text[position])
    return {kind: right[kind] / all_[kind] for kind in all_}
