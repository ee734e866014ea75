#!/usr/bin/env python3
"""package_test.py BUILD_FOLDER: what a build gives to others. Installs it into a temporary prefix whose path holds a space,
builds examples/find_package against that from outside, runs it, and looks at what the program links."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
failed = False


def case(name, problem, skip=False):
    global failed
    failed |= bool(problem) and not skip
    verdict = "skip" if skip else "fail" if problem else "pass"
    print(f"CASE {verdict} {name}" + (f": {problem}" if problem else ""), flush=True)
    return not problem


def run(*command, env=None):
    ran = subprocess.run([str(c) for c in command], capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env)
    return ran, None if ran.returncode == 0 else " ".join((ran.stderr.strip() or ran.stdout.strip()).split())[-600:]


def main(build):
    program = build / "bin/mneme"
    ran, problem = run("ldd", program)
    heavy = re.findall(r"\b(libtorch\S*|libc10\S*|libmpi\S*|libopenblas\S*)", ran.stdout)
    case("program_links_neither_libtorch_nor_mpi", problem or (f"links {heavy}" if heavy else ""))

    with tempfile.TemporaryDirectory(prefix="mneme package ") as work:
        work = pathlib.Path(work)
        prefix, example = work / "prefix", work / "example"
        _, problem = run("cmake", "--install", build, "--prefix", prefix)
        if not case("install", problem):
            return
        leaked = [p.name for p in (prefix / "include").rglob("*") if p.is_file() and p.parent.name != "mneme"]
        case("install_has_only_public_headers", f"{leaked}" if leaked else "")
        ran, problem = run(prefix / "bin/mneme", "--version")
        case("installed_program_runs", problem)
        _, problem = run("cmake", "-G", "Ninja", "-S", TOP / "examples/find_package", "-B", example, f"-DCMAKE_PREFIX_PATH={prefix}")
        if not case("find_package", problem):
            return
        _, problem = run("cmake", "--build", example)
        if not case("example_builds", problem):
            return
        ran = subprocess.run([example / "complete", work / "absent.gguf", "x"], capture_output=True, text=True)
        case("example_reports_a_missing_model", "" if ran.returncode == 1 and "absent.gguf" in ran.stderr else ran.stderr or "no error")
        model = os.environ.get("MNEME_TEST_MODEL", "")
        if not os.path.isfile(model):
            case("example_generates", "MNEME_TEST_MODEL names no model (its pip package could not be fetched)", skip=True)
            return
        ran, problem = run(example / "complete", model, "The capital of France is", "8")
        case("example_generates", problem or ("" if "Paris" in ran.stdout else f"no Paris in {ran.stdout!r}"))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve())
    sys.exit(1 if failed else 0)
