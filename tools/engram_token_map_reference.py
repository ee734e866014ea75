"""The token map of Engram in Python, made with the library that published maps were made with, and the golden file
of the C++ one.

  python3 tools/engram_token_map_reference.py tests/data/engram/token_map_golden.json NAME=TOKENIZER.json ...

For each tokenizer: its size, the number of classes, and the CRC-32 of the classes of all tokens as little-endian int32.
Beside that, how single texts are normalized. Needs the Python package `tokenizers`.
"""
import json
import sys
import zlib

import numpy as np
import tokenizers
from tokenizers import Regex, Tokenizer, normalizers

SENTINEL = "\ue000"
NORMALIZER = normalizers.Sequence([normalizers.NFKC(), normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase(),
                                   normalizers.Replace(Regex(r"[ \t\r\n]+"), " "), normalizers.Replace(Regex(r"^ $"), SENTINEL),
                                   normalizers.Strip(), normalizers.Replace(SENTINEL, " ")])
TEXTS = ["Apple", " apple", "APPLE ", "  ", " ", "\t", "\n\n", "\r\n \t", " a  b ", "É", "e\u0301", "ﬁ", "Ⅳ", "ｆｕｌｌ", "ΟΔΟΣ", "Σ",
         "İstanbul", "ẞ", "Straße", "\u00a0", "\u3000x\u3000", "\u200b", "\x1c", "\x85", "\x0b", "a\u0903", "\u0301", "क्षि", "한국", "각",
         "ａ\u20dd", "½", "№", "™", "①", "\ue000", "x\ue000y", "", "ǅ", "ŉ", "ΐ", "\u1e9b\u0323", "日本語", "ガ", "ｶﾞ", "\U0001d54f", "🙂", "ﷺ",
         "<|endoftext|>", "foo\u00a0bar", "\u2028", "a\u2028", "a\n", "\ufeffx"]


def classes(path):
    tokenizer = Tokenizer.from_file(path)
    new, known = [], {}
    for token in range(tokenizer.get_vocab_size(with_added_tokens=True)):
        text = tokenizer.decode([token], skip_special_tokens=False)
        if "\ufffd" in text:
            key = tokenizer.id_to_token(token)
        else:
            key = NORMALIZER.normalize_str(text) or text
        new.append(known.setdefault(key, len(known)))
    return new, len(known)


def main(out, named):
    golden = {"made_by": "tools/engram_token_map_reference.py", "tokenizers": tokenizers.__version__,
              "texts": [[text, NORMALIZER.normalize_str(text)] for text in TEXTS], "maps": {}}
    for entry in named:
        name, path = entry.split("=", 1)
        ids, count = classes(path)
        golden["maps"][name] = {"tokens": len(ids), "classes": count, "crc": zlib.crc32(np.array(ids, "<i4").tobytes())}
        print(name, golden["maps"][name])
    with open(out, "w") as file:
        json.dump(golden, file, indent=1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
