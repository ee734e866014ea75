#!/usr/bin/env python3
"""Gathers the pocket model's text: English prose in the public domain, from Debian packages.

    examples/pocket/gather_text.py OUT [--debs FOLDER] [--held-out 0.03]

writes OUT/train.jsonl, OUT/held_out.jsonl ({"text", "source"} a line) and OUT/sizes.json. Packages are fetched with
`apt-get download` into --debs (default OUT/debs) and unpacked there; nothing is installed. Each source's documents are
kept in OUT/parts/, so that an interrupted call goes on. Sources:

    sword-text-web       World English Bible, public domain
    r-cran-janeaustenr   six novels by Jane Austen, public domain (the package: MIT)

Paragraphs that were seen before are dropped, over all sources; a document is held out by the hash of its text.
"""
import argparse
import hashlib
import json
import pathlib
import re
import struct
import subprocess
import zlib

MIN_PARAGRAPH = 60      # shorter paragraphs (headings, list items) may repeat
MIN_DOCUMENT = 300      # characters
DOCUMENT = 12000        # characters: longer texts are cut at blank lines


def bible(root):
    """SWORD's compressed text: an index (offset, packed size, size) and zlib streams of OSIS marks."""
    for name in ("ot", "nt"):
        data = next(root.rglob(f"{name}.bzz")).read_bytes()
        for offset, packed, _ in struct.iter_unpack("<III", next(root.rglob(f"{name}.bzs")).read_bytes()):
            text = zlib.decompress(data[offset:offset + packed]).decode("utf-8", "replace")
            text = re.sub(r"(?s)<note.*?</note>|<title.*?</title>", "", text)
            text = re.sub(r"<chapter n[^>]*>", "\n\n", text)
            text = re.sub(r'<div[^>]*type="x-p"[^>]*>|<(?:lb|p|l|lg)\b[^>]*>', "\n", text)
            text = re.sub(r"<[^>]+>", "", text).replace("¶", "\n").replace("\r", "")
            yield re.sub(r"\n\s*\n+", "\n\n", re.sub(r"[ \t]+", " ", text))


def austen(root):
    """Strings of R's serialised vectors (XDR): item flags ending in type 9, a length, bytes; one string a line."""
    data = next(root.rglob("data/Rdata.rdb")).read_bytes()
    while data:  # each: the unpacked length, then a zlib stream
        stream = zlib.decompressobj()
        raw = stream.decompress(data[4:])
        data = stream.unused_data
        lines = []
        for found in re.finditer(rb"\x00[\x04\x00][\x00\x80]\x09(....)", raw, re.S):
            (length,) = struct.unpack(">i", found.group(1))
            if 0 <= length < 2000:
                lines.append(raw[found.end():found.end() + length].decode("utf-8", "replace"))
        if len(lines) > 1000:  # a novel
            for chapter in re.split(r"(?m)^(?=(?:CHAPTER|Chapter) )", "\n".join(lines)):
                yield re.sub(r"(?<=[^\n])\n(?=[^\n])", " ", chapter)


SOURCES = {"sword-text-web": bible, "r-cran-janeaustenr": austen}


PLAIN = str.maketrans({"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'", "\u2014": "--", "\u2013": "-", "\u2026": "..."})


def clean(text):
    """One spelling of quotes and dashes, so that a small vocabulary serves all sources."""
    text = text.translate(PLAIN)
    text = re.sub(r"[ \t\u00a0]+$", "", text.replace("\r\n", "\n").replace("\u00b6", ""), flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def pieces(text):
    """Cuts a long text at blank lines into documents of about DOCUMENT characters."""
    out, size = [], 0
    for paragraph in text.split("\n\n"):
        out.append(paragraph)
        size += len(paragraph) + 2
        if size >= DOCUMENT:
            yield "\n\n".join(out)
            out, size = [], 0
    if out:
        yield "\n\n".join(out)


def without_repeats(text, seen):
    kept = []
    for paragraph in text.split("\n\n"):
        bare = " ".join(paragraph.split())
        if not bare:
            continue
        if len(bare) >= MIN_PARAGRAPH:
            mark = hashlib.blake2b(bare.lower().encode(), digest_size=8).digest()
            if mark in seen:
                continue
            seen.add(mark)
        kept.append(paragraph)
    return "\n\n".join(kept)


def unpack(package, debs):
    root = debs / package
    if not (root / ".done").exists():
        found = sorted(debs.glob(f"{package}_*.deb"))
        if not found:
            subprocess.run(["apt-get", "download", package], cwd=debs, check=True, stdout=subprocess.DEVNULL)
            found = sorted(debs.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", found[-1], root], check=True)
        (root / ".done").touch()
    return root


def held_out(text, share):
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64 < share


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--debs", type=pathlib.Path, help="where packages are fetched and unpacked (default OUT/debs)")
    parser.add_argument("--held-out", type=float, default=0.03, help="share of the documents")
    arguments = parser.parse_args()
    debs, parts = arguments.debs or arguments.out / "debs", arguments.out / "parts"
    debs.mkdir(parents=True, exist_ok=True)
    parts.mkdir(parents=True, exist_ok=True)
    for package, read in SOURCES.items():
        part = parts / f"{package}.jsonl"
        if part.exists():
            continue
        temporary = part.with_suffix(".tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            for text in read(unpack(package, debs)):
                for piece in pieces(clean(text)):
                    file.write(json.dumps(piece) + "\n")
        temporary.rename(part)
    seen, sizes = set(), {}
    names = {out: arguments.out / f"{name}.jsonl" for out, name in ((False, "train"), (True, "held_out"))}
    files = {out: open(path.with_suffix(".tmp"), "w", encoding="utf-8") for out, path in names.items()}
    for package in SOURCES:
        count = sizes[package] = {"documents": 0, "train_bytes": 0, "held_out_bytes": 0}
        for line in open(parts / f"{package}.jsonl", encoding="utf-8"):
            text = without_repeats(json.loads(line), seen)
            if len(text) < MIN_DOCUMENT:
                continue
            out = held_out(text, arguments.held_out)
            count["documents"] += 1
            count["held_out_bytes" if out else "train_bytes"] += len(text.encode())
            files[out].write(json.dumps({"text": text, "source": package}, ensure_ascii=False) + "\n")
    for out, file in files.items():  # appear whole, or not at all
        file.close()
        names[out].with_suffix(".tmp").rename(names[out])
    (arguments.out / "sizes.json").write_text(json.dumps(sizes, indent=1) + "\n")
    for package, count in sizes.items():
        print(f"{package:20} {count['documents']:6} documents {count['train_bytes']:12,} bytes to train, {count['held_out_bytes']:9,} held out")
    print(f"{'all':20} {sum(c['documents'] for c in sizes.values()):6} documents {sum(c['train_bytes'] for c in sizes.values()):12,} bytes to train, "
          f"{sum(c['held_out_bytes'] for c in sizes.values()):9,} held out")


if __name__ == "__main__":
    main()
