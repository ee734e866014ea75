#!/usr/bin/env python3
"""Gathers the pocket model's text: English prose under permissive licences or in the public domain, from Debian packages.

    examples/pocket/gather_text.py OUT [--debs FOLDER] [--held-out 0.02]

writes OUT/train.jsonl, OUT/held_out.jsonl ({"text", "source"} a line) and OUT/sizes.json. Packages are fetched with
`apt-get download` into --debs (default OUT/debs) and unpacked there; nothing is installed. Each source's documents are
kept in OUT/parts/, so that an interrupted call goes on. Sources and why they may be learned from:

    wordnet-base         WordNet 3.0 licence (use, copy, modify, distribute for any purpose, notice kept)
    python3.11-doc       PSF licence
    postgresql-doc-15    PostgreSQL licence (as MIT)
    rust-doc             MIT or Apache-2.0: the books, not the pages made from code
    sword-text-web       World English Bible, public domain
    r-cran-janeaustenr   six novels by Jane Austen, public domain (the package: MIT)

GPL, GFDL and share-alike texts are left out, so that the licence of a model made from these is nobody's question.
Paragraphs that were seen before are dropped, over all sources; a document is held out by the hash of its text.
"""
import argparse
import hashlib
import html.parser
import json
import pathlib
import re
import struct
import subprocess
import zlib

MIN_PARAGRAPH = 60      # shorter paragraphs (headings, list items) may repeat
MIN_DOCUMENT = 300      # characters
DOCUMENT = 12000        # characters: longer texts are cut at blank lines


class Prose(html.parser.HTMLParser):
    """The text of a page: paragraphs, headings and examples, without navigation, tables of contents and scripts."""
    SKIP = {"script", "style", "nav", "head", "table", "form", "button", "svg"}
    BLOCK = {"p", "h1", "h2", "h3", "h4", "h5", "pre", "li", "dt", "dd", "div", "section", "br", "blockquote"}

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.out, self.skipped, self.pre = [], 0, 0

    def handle_starttag(self, tag, attrs):
        marks = " ".join(v or "" for k, v in attrs if k in ("class", "id"))
        if self.skipped or tag in self.SKIP or re.search(r"\b(navheader|navfooter|toc|sidebar|nav-wrapper|menu)\b", marks):
            if tag not in ("br", "img", "hr", "meta", "link", "input", "col", "wbr"):
                self.skipped += 1
            return
        self.pre += tag == "pre"
        if tag in self.BLOCK:
            self.out.append("\n" if tag in ("br", "li") else "\n\n")

    def handle_endtag(self, tag):
        if self.skipped:
            self.skipped -= tag not in ("br", "img", "hr", "meta", "link", "input", "col", "wbr")
            return
        self.pre -= tag == "pre" and self.pre > 0
        if tag in self.BLOCK:
            self.out.append("\n\n")

    def handle_data(self, data):
        if not self.skipped:
            self.out.append(data if self.pre else re.sub(r"\s+", " ", data))


def page_text(path):
    parser = Prose()
    parser.feed(path.read_text("utf-8", "replace"))
    return "".join(parser.out)


def rst_text(text):
    """reStructuredText without its marks: directives, targets, roles, underlines."""
    text = re.sub(r"(?m)^\.\. (?:index|_|toctree|module|highlight|sectionauthor|moduleauthor|only|testsetup|rubric).*\n(?:[ \t]+.*\n|\n(?=[ \t]))*", "", text)
    text = re.sub(r"(?m)^( *)\.\. (?:function|method|class|data|attribute|exception|cmdoption|option|c:\w+|describe|opcode)::\s*", r"\1", text)
    text = re.sub(r"(?m)^( *)\.\. (?:note|warning|seealso|tip|versionadded|versionchanged|deprecated|code-block|doctest|impl-detail)::\s*", r"\1", text)
    text = re.sub(r"(?m)^ *\.\. .*$|^ *:\w[\w -]*:\s*\w*$", "", text)
    text = re.sub(r":(?:\w+:)*\w+:`(?:[!~])?([^`<]*?)(?:\s*<[^`]*>)?`", r"\1", text)
    text = re.sub(r"`([^`<]+?)\s*<[^`]*>`_+", r"\1", text)
    text = re.sub(r"(?m)^[=\-~^*#\"'+]{3,}$\n?", "", text)
    return re.sub(r"``([^`]*)``|\*\*([^*\n]+)\*\*|(?<!\w)\*([^*\n]+)\*(?!\w)", lambda m: next(g for g in m.groups() if g is not None), text).replace("::\n", ":\n")


def wordnet(root):
    names = {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}
    for part, name in names.items():
        lines = []
        for line in (root / f"usr/share/wordnet/data.{part}").read_text("utf-8", "replace").splitlines():
            if line.startswith("  ") or " | " not in line:
                continue
            head, gloss = line.split(" | ", 1)
            fields = head.split()
            words = [re.sub(r"\(\w+\)$", "", fields[4 + 2 * i]).replace("_", " ") for i in range(int(fields[3], 16))]
            lines.append(f"{', '.join(words)} ({name}): {gloss.strip()}.")
            if len(lines) == 40:
                yield "\n\n".join(lines)
                lines = []
        if lines:
            yield "\n\n".join(lines)


def python_docs(root):
    for path in sorted((root / "usr/share/doc/python3.11/html/_sources").rglob("*.rst.txt")):
        yield rst_text(path.read_text("utf-8", "replace"))


def postgresql(root):
    for path in sorted((root / "usr/share/doc/postgresql-doc-15/html").glob("*.html")):
        if not re.match(r"(bookindex|biblio|index|release-)", path.name):
            yield page_text(path)


def rust(root):
    top = root / "usr/share/doc/rust-doc/html"
    for folder in ("book", "reference", "rust-by-example", "nomicon", "edition-guide", "embedded-book", "rustc", "cargo", "rustdoc"):
        for path in sorted((top / folder).rglob("*.html")):
            if path.name not in ("print.html", "toc.html", "404.html") and not re.search(r"first-edition|second-edition|2018-edition", str(path)):
                yield page_text(path)


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


SOURCES = {"wordnet-base": wordnet, "python3.11-doc": python_docs, "postgresql-doc-15": postgresql, "rust-doc": rust,
           "sword-text-web": bible, "r-cran-janeaustenr": austen}


def clean(text):
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
    parser.add_argument("--held-out", type=float, default=0.02, help="share of the documents")
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
    with open(arguments.out / "train.jsonl", "w", encoding="utf-8") as train, open(arguments.out / "held_out.jsonl", "w", encoding="utf-8") as held:
        for package in SOURCES:
            count = sizes[package] = {"documents": 0, "train_bytes": 0, "held_out_bytes": 0}
            for line in open(parts / f"{package}.jsonl", encoding="utf-8"):
                text = without_repeats(json.loads(line), seen)
                if len(text) < MIN_DOCUMENT:
                    continue
                out = held_out(text, arguments.held_out)
                count["documents"] += 1
                count["held_out_bytes" if out else "train_bytes"] += len(text.encode())
                (held if out else train).write(json.dumps({"text": text, "source": package}, ensure_ascii=False) + "\n")
    (arguments.out / "sizes.json").write_text(json.dumps(sizes, indent=1) + "\n")
    for package, count in sizes.items():
        print(f"{package:20} {count['documents']:6} documents {count['train_bytes']:12,} bytes to train, {count['held_out_bytes']:9,} held out")
    print(f"{'all':20} {sum(c['documents'] for c in sizes.values()):6} documents {sum(c['train_bytes'] for c in sizes.values()):12,} bytes to train, "
          f"{sum(c['held_out_bytes'] for c in sizes.values()):9,} held out")


if __name__ == "__main__":
    main()
