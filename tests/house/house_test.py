#!/usr/bin/env python3
"""The house rules, checked on the sources: who includes whom, public headers that compile alone, scripts that parse,
links that lead somewhere, and nothing that belongs to one machine only. Prints `CASE pass|fail NAME: reason`."""
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent.parent

# folder of src/ -> folders it may include, besides itself. Bottom up; siblings do not see each other.
MAY_INCLUDE = {"core": set()}
MAY_INCLUDE["simd"] = MAY_INCLUDE["files"] = MAY_INCLUDE["text"] = {"core"}
MAY_INCLUDE["parallel"] = {"core", "simd"}
MAY_INCLUDE["mpi"] = {"parallel"}  # a library of its own, loaded at run time
MAY_INCLUDE["memory"] = {"core", "simd", "files", "text"}
MAY_INCLUDE["model"] = MAY_INCLUDE["memory"] | {"memory", "parallel"}
MAY_INCLUDE["engine"] = MAY_INCLUDE["model"] | {"model"}
for _folder in ("eval", "cost", "convert", "server"):
    MAY_INCLUDE[_folder] = MAY_INCLUDE["engine"] | {"engine"}
MAY_INCLUDE["train"] = MAY_INCLUDE["engine"] | {"engine", "convert", "eval"}  # a program of its own; engine: samples of text, convert: tokenizers as files, eval: how a text is read for perplexity
MAY_INCLUDE["cli"] = MAY_INCLUDE["engine"] | {"engine", "eval", "cost", "convert", "server"}

# public header -> the folder that implements it, and so the lowest one that may include it
PUBLIC_LAYER = {"error.h": "core", "version.h": "core", "tokenizer.h": "text", "memory.h": "memory", "mneme_memory.h": "memory", "engram_config.h": "core", "model_config.h": "model", "model.h": "model",
                "session.h": "engine", "sampling.h": "engine", "engine.h": "engine", "mneme.h": "engine"}

MAX_LINES = 600
# Written in two halves so that this file does not hold what it forbids.
MACHINE = ["/wo" "rk/", "/tmp/" "wt", "\\.\\./" "shared", "py" "pi\\.org", "python" "hosted\\.", "registry\\." "npmjs", "deb\\." "debian"]
MARKS = ["TO" "DO", "FIX" "ME", "XX" "X", "HA" "CK"]


def files():
    listed = subprocess.run(["git", "-C", str(TOP), "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True, text=True)
    if listed.returncode:
        return [p for p in TOP.rglob("*") if p.is_file() and p.relative_to(TOP).parts[0] not in ("build", ".git")]
    return [TOP / n for n in sorted(set(listed.stdout.split("\0"))) if n and (TOP / n).is_file()]


FILES = files()
SOURCES = [f for f in FILES if f.suffix in (".cpp", ".h")]


def text_of(path):
    data = path.read_bytes()
    return None if b"\0" in data[:4096] else data.decode("utf-8", "replace")


def inside(path, *parts):
    return path.relative_to(TOP).parts[:len(parts)] == parts


def check_includes_point_down():
    """A file of src/FOLDER includes only FOLDER and what lies below it."""
    problems = []
    for path in SOURCES:
        if not inside(path, "src"):
            continue
        folder = path.relative_to(TOP).parts[1]
        if folder not in MAY_INCLUDE:
            problems.append(f"src/{folder} is not in the house; give it a place in tests/house/house_test.py")
            continue
        allowed = MAY_INCLUDE[folder] | {folder}
        for included in re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(), re.M):
            head, _, rest = included.partition("/")
            target = PUBLIC_LAYER.get(rest) if head == "mneme" else head
            if head == "mneme" and target is None:
                problems.append(f"{path.relative_to(TOP)}: mneme/{rest} has no place in PUBLIC_LAYER")
            elif target in MAY_INCLUDE and target not in allowed:
                problems.append(f"{path.relative_to(TOP)} includes {included}, which lies above or beside it")
            elif target not in MAY_INCLUDE and "foreach_target" not in included:
                problems.append(f'{path.relative_to(TOP)} includes "{included}": write "FOLDER/FILE.h"')
    return problems


def check_http_and_terminal_only_in_cli():
    """Network, line editing and option parsing stay out of the library."""
    outside = re.compile(r"#\s*include\s*<(httplib\.h|histedit\.h|editline/|CLI/|torch/|ATen/|c10d?/|mpi\.h)")
    return [f"{p.relative_to(TOP)} includes {m.group(1)}" for p in SOURCES if inside(p, "src") and not inside(p, "src", "cli") and not inside(p, "src", "train") and not inside(p, "src", "mpi")
            for m in [outside.search(p.read_text())] if m]


def check_public_headers_compile_alone():
    """Each header of include/mneme compiles by itself, without src/ and without third-party headers on the path."""
    headers = [f for f in FILES if inside(f, "include", "mneme")]
    base = ["c++", "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-I", str(TOP / "include"),
            "-x", "c++", "-"]

    def compile_alone(header):
        program = f'#include "mneme/{header.name}"\n#include "mneme/{header.name}"\nint main() {{}}\n'
        ran = subprocess.run(base, input=program, capture_output=True, text=True)
        return f"{header.name}: {ran.stderr.splitlines()[0]}" if ran.returncode else None

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = [p for p in pool.map(compile_alone, headers) if p]
    for header in headers:
        problems += [f"{header.name} includes {i}" for i in re.findall(r'#include "([^"]+)"', header.read_text()) if not i.startswith("mneme/")]
    return problems if headers else ["include/mneme has no headers"]


def check_headers_begin_with_a_comment():
    """The first lines of a header say what it is for."""
    return [f"{p.relative_to(TOP)}" for p in SOURCES if p.suffix == ".h" and (inside(p, "src") or inside(p, "include"))
            and p.name != "version.h" and not p.read_text().startswith("//")]


def check_files_are_short():
    return [f"{p.relative_to(TOP)}: {n} lines (at most {MAX_LINES})" for p in FILES
            if p.suffix in (".cpp", ".h", ".py", ".sh") and (n := p.read_text().count("\n")) > MAX_LINES]


def check_no_machine_paths():
    pattern = re.compile("|".join(MACHINE))
    return [f"{p.relative_to(TOP)}: {m.group(0)}" for p in FILES if (t := text_of(p)) is not None and (m := pattern.search(t))]


def check_no_unfinished_marks():
    pattern = re.compile(r"\b(" + "|".join(MARKS) + r")\b")
    return [f"{p.relative_to(TOP)}: {m.group(0)}" for p in SOURCES for m in [pattern.search(p.read_text())] if m]


def check_no_addresses_in_scripts():
    """Packages are named, never addressed."""
    scripts = [p for p in FILES if p.suffix in (".sh", ".cmake") or p.name in ("CMakeLists.txt",) or inside(p, ".ci") or inside(p, "scripts")]
    pattern = re.compile(r"https?://(?!127\.0\.0\.1|localhost)")
    return [str(p.relative_to(TOP)) for p in scripts if pattern.search(p.read_text())]


def check_tests_make_files_in_scratch_folders():
    """Names that tests choose below /tmp are chosen twice, by two tests or two builds: tests/scratch.h makes one of its own."""
    pattern = re.compile(r"\b(TempDir|temp_directory_path|mk[ds]temp|tmpnam)\b")
    return [f"{p.relative_to(TOP)}: {m.group(0)}" for p in SOURCES if inside(p, "tests") and not inside(p, "tests", "scratch.h")
            for m in [pattern.search(p.read_text())] if m]


def check_library_never_exits():
    """Input errors are exceptions: no abort, exit or assert in the library."""
    pattern = re.compile(r"(?<![\w_:.>])(?:std::)?(abort|exit|quick_exit|assert|terminate)\s*\(")
    problems = []
    for path in SOURCES:
        if inside(path, "src"):
            code = re.sub(r"//.*|\"(?:\\.|[^\"\\\n])*\"", "", path.read_text())
            problems += [f"{path.relative_to(TOP)}: {m.group(1)}()" for m in pattern.finditer(code)]
    return problems


def check_scripts_parse_and_run():
    """Shell scripts parse and are executable."""
    problems = []
    for path in FILES:
        text = text_of(path) or ""
        if path.suffix == ".sh" or text.startswith("#!/usr/bin/env bash"):
            ran = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
            if ran.returncode:
                problems.append(ran.stderr.strip())
        if text.startswith("#!") and path.suffix != ".py" and not os.access(path, os.X_OK):
            problems.append(f"{path.relative_to(TOP)} has #! but is not executable")
    return problems


def check_json_parses():
    return [str(p.relative_to(TOP)) for p in FILES if p.suffix == ".json" and not inside(p, "tests", "data") and not inside(p, "tests", "fuzz")
            and not parses(p)]


def parses(path):
    try:
        json.loads(path.read_text())
    except ValueError:
        return False
    return True


def check_links_lead_somewhere():
    """Relative links of the Markdown files name files that exist."""
    problems = []
    for path in FILES:
        if path.suffix == ".md":
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"```.*?```|`[^`]*`", "", path.read_text(), flags=re.S)):
                if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                    problems.append(f"{path.relative_to(TOP)}: {target}")
    return problems


def check_face():
    """What a newcomer looks for is there."""
    wanted = ["README.md", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "run.sh", "test.sh", ".ci/run"]
    return [f"{name} is missing" for name in wanted if not (TOP / name).is_file()] + [
        f"{name} is not executable" for name in ("run.sh", "test.sh", ".ci/run") if not os.access(TOP / name, os.X_OK)]


def main():
    failed = False
    for name, check in sorted((n[6:], f) for n, f in globals().items() if n.startswith("check_")):
        problems = check()
        failed |= bool(problems)
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        print(f"CASE fail {name}: {'; '.join(problems[:5])}{more}" if problems else f"CASE pass {name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
