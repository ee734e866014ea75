#!/usr/bin/env python3
"""Runs every check of the repository in stages and counts single test cases. Called by test.sh.

  house    include rules, public headers, what the program links (tests/house/house_test.py)
  format   clang-format
  release  the release build with all unit and end-to-end tests, through ctest
  package  install into a temporary prefix, find_package from outside, examples
  asan     unit tests under clang's AddressSanitizer and UndefinedBehaviorSanitizer
  tsan     the threaded unit tests under ThreadSanitizer
  fuzz     each libFuzzer target for a short while, from its seed corpus (same build as asan)
  tidy     clang-tidy on files changed since the main branch (or in the last commit)

A stage that passed is remembered with a hash of all its inputs: sources, scripts, tool versions, processor, models.
As long as that hash stays the same the stage is not run again; the output says so and its counts still count.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

TOP = pathlib.Path(__file__).resolve().parent.parent
BUILD = TOP / "build"
STAMPS = BUILD / "check"
JOBS = os.cpu_count() or 1
FUZZ_SECONDS = 8
# Tests that use more than one thread, by the words their names carry.
THREADED = "*Thread*:*Concurren*:*Parallel*:*Barrier*:*Engine*:*Batch*:*Cancel*:*Peers*:*ExpertGroup*:*ExpertsOnDisk*:*Observer*"
THREADED_FOLDERS = ("core", "memory", "parallel", "engine")
SOURCE = re.compile(r"\.(cpp|h|cc|c)$")


class Counts:
    """Passed, failed and skipped cases of one stage; failures and skips carry their reason."""

    def __init__(self):
        self.passed, self.failed, self.skipped = 0, [], []

    def ok(self, number=1):
        self.passed += number

    def fail(self, name, why=""):
        self.failed.append((name, why))

    def skip(self, name, why):
        self.skipped.append((name, why))

    def text(self):
        return f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def run(command, log=None, **options):
    """Runs a command; output goes to `log` (a path) or is returned."""
    if log:
        with open(log, "w") as out:
            return subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **options)
    return subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, **options)


def tail(path, lines=40):
    return "\n".join(pathlib.Path(path).read_text(errors="replace").splitlines()[-lines:])


# ---- inputs ----------------------------------------------------------------------------------------------------


def repository_files():
    """Tracked and new files, ignored ones left out; every file of a tree that is not a git checkout."""
    listed = run(["git", "-C", str(TOP), "ls-files", "-co", "--exclude-standard", "-z"])
    if listed.returncode == 0:
        names = [n for n in listed.stdout.split("\0") if n]
    else:
        names = [str(p.relative_to(TOP)) for p in TOP.rglob("*") if p.is_file() and p.parts[len(TOP.parts)] != "build"]
    return sorted(n for n in set(names) if (TOP / n).is_file())


def environment_text():
    """What the result depends on besides the sources."""
    parts = []
    for tool in ("c++", "clang++-16", "clang-format-16", "cmake", "ninja"):
        if shutil.which(tool):
            parts.append(run([tool, "--version"]).stdout.splitlines()[0])
    packages = re.findall(r"^[a-z0-9][^#\s]*", "\n".join(p.read_text() for p in TOP.glob("scripts/packages.*")), re.M)
    parts.append(run(["dpkg-query", "-W", *packages]).stdout if shutil.which("dpkg-query") else "")
    cpu = pathlib.Path("/proc/cpuinfo").read_text()
    parts += sorted(set(re.findall(r"^(?:model name|flags|Features)\s*:.*", cpu, re.M)))
    for name in ("MNEME_TEST_MODEL", "MNEME_TEST_GEMMA", "MNEME_TEST_TOKENIZERS", "MNEME_ISA"):
        value = os.environ.get(name, "")
        size = os.path.getsize(value) if os.path.isfile(value) else ""
        parts.append(f"{name}={value}:{size}")
    return "\n".join(parts)


def input_hash(files, extra):
    digest = hashlib.sha256(extra.encode())
    for name in files:
        data = (TOP / name).read_bytes()
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


# ---- building and running --------------------------------------------------------------------------------------


def build_command(preset, targets):
    script = 'source "$1/scripts/lib.sh"; MNEME_PRESET=$2; shift 2; build_targets "$MNEME_PRESET" "$@"'
    return ["bash", "-c", script, "bash", str(TOP), preset, *targets]


due = set()  # stages that this run will not skip
ASAN_TARGETS = ["unit_tests", "fuzz_targets"]
background = None  # a build that goes on beside tests that mostly wait


def build_beside(preset, targets):
    """Starts a build with what the running tests leave of the processors. Nobody looks at its end:
    the stage that needs it builds again, finds it done or sees what went wrong."""
    global background
    with open(STAMPS / f"{preset}-beside.log", "w") as out:
        background = subprocess.Popen(["nice", "-n", "10", *build_command(preset, targets)], stdin=subprocess.DEVNULL, stdout=out,
                                      stderr=subprocess.STDOUT)


def build(preset, counts, targets=()):
    """Builds a preset; a failure is one failed case and returns None."""
    global background
    if background:
        background.wait()
        background = None
    log = STAMPS / f"{preset}-build.log"
    folder = BUILD / preset
    built = run(build_command(preset, targets), log=log)
    if built.returncode:
        counts.fail(f"{preset} build", tail(log))
        return None
    return folder


def read_gtest_xml(path, prefix, counts):
    for suite in xml.etree.ElementTree.parse(path).getroot():
        for case in suite:
            name = f"{prefix}{suite.get('name')}.{case.get('name')}"
            skipped = case.find("skipped")
            failures = case.findall("failure")
            if failures:
                counts.fail(name, failures[0].get("message", ""))
            elif skipped is not None:
                counts.skip(name, " ".join(skipped.get("message", "").split("\n")[1:]).strip() or "no reason given")
            elif case.get("status") == "run":
                counts.ok()


def run_gtests(binaries, prefix, counts, gtest_filter="*", environment=None, shards=JOBS):
    """Runs test programs in parallel shards and reads their XML reports."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="gtest-", dir=STAMPS))

    def one(job):
        binary, shard = job
        report, log = work / f"{binary.name}.{shard}.xml", work / f"{binary.name}.{shard}.log"
        env = dict(os.environ, GTEST_TOTAL_SHARDS=str(shards), GTEST_SHARD_INDEX=str(shard), **(environment or {}))
        command = [str(binary), f"--gtest_filter={gtest_filter}", f"--gtest_output=xml:{report}", "--gtest_brief=1"]
        try:
            code = run(command, log=log, env=env, cwd=work, timeout=1200).returncode
        except subprocess.TimeoutExpired:
            code = "timeout"
        return binary.name, report, log, code

    jobs = [(b, s) for b in binaries for s in range(shards)]
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for name, report, log, code in pool.map(one, jobs):
            before = len(counts.failed)
            if report.exists():
                read_gtest_xml(report, prefix, counts)
            if code != 0 and len(counts.failed) == before:
                counts.fail(f"{prefix}{name}", f"ended with {code}\n{tail(log)}")
            elif code != 0:
                print(tail(log, 80))
    shutil.rmtree(work)


CASE = re.compile(r"^CASE (pass|fail|skip) (\S+)(?:: (.*))?$", re.M)


def read_ctest_junit(path, counts):
    """One case per ctest test; a script that reports `CASE pass|fail|skip NAME: reason` counts case by case."""
    for case in xml.etree.ElementTree.parse(path).getroot():
        name, output = case.get("name"), case.findtext("system-out") or ""
        inner = CASE.findall(output)
        for verdict, inner_name, reason in inner:
            full = f"{name}.{inner_name}"
            if verdict == "pass":
                counts.ok()
            elif verdict == "skip":
                counts.skip(full, reason)
            else:
                counts.fail(full, reason or output[-3000:])
        if inner and (case.get("status") == "run" or any(v == "fail" for v, _, _ in inner)):
            continue
        if case.find("skipped") is not None or "[  SKIPPED ]" in output:
            reason = re.search(r":\d+: Skipped\n(.*)", output)
            counts.skip(name, reason.group(1) if reason else case.find("skipped").get("message", "no reason given"))
        elif case.get("status") == "run":
            counts.ok()
        else:
            counts.fail(name, output[-3000:])


# ---- the stages ------------------------------------------------------------------------------------------------


def stage_house(files, counts):
    ran = run([sys.executable, str(TOP / "tests/house/house_test.py")])
    report_script("house", ran, counts)


def report_script(prefix, ran, counts):
    cases = CASE.findall(ran.stdout)
    for verdict, name, reason in cases:
        if verdict == "pass":
            counts.ok()
        elif verdict == "skip":
            counts.skip(f"{prefix}.{name}", reason)
        else:
            counts.fail(f"{prefix}.{name}", reason)
    if ran.returncode and not counts.failed:
        counts.fail(prefix, (ran.stdout + ran.stderr)[-3000:])


def stage_format(files, counts):
    sources = [f for f in files if SOURCE.search(f)]
    ran = run(["clang-format-16", "--dry-run", "--Werror", *sources], cwd=TOP)
    if ran.returncode:
        counts.fail("clang-format", "\n".join(sorted(set(re.findall(r"^(\S+?):\d+", ran.stderr, re.M)))) or ran.stderr[-500:])
    else:
        counts.ok()


def stage_release(files, counts):
    folder = build("release", counts)
    if not folder:
        return
    if "asan" in due:
        build_beside("asan", ASAN_TARGETS)
    report = STAMPS / "release.xml"
    report.unlink(missing_ok=True)
    run(["ctest", "-j", str(JOBS), "-LE", "one_process", "--output-junit", str(report), "--test-output-size-passed", "10000000",
         "--test-output-size-failed", "10000000"], log=STAMPS / "release-ctest.log", cwd=folder)
    if report.exists():
        read_ctest_junit(report, counts)
    else:
        counts.fail("ctest", tail(STAMPS / "release-ctest.log"))
    # ctest starts a process for each case; loading libtorch 300 times costs more than what the cases do.
    run_gtests(sorted(folder.glob("bin/train_tests")), "", counts, "-*DISABLED_*", shards=2 * JOBS)


def stage_package(files, counts):
    if not build("release", counts):
        return
    report_script("package", run([sys.executable, str(TOP / "tests/house/package_test.py"), str(BUILD / "release")]), counts)


def stage_asan(files, counts):
    folder = build("asan", counts, ASAN_TARGETS)
    if folder:
        run_gtests(sorted(folder.glob("bin/*_tests")), "asan.", counts,
                   environment={"ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1"})


def stage_tsan(files, counts):
    folder = build("tsan", counts, [f"{name}_tests" for name in THREADED_FOLDERS])
    if folder:
        run_gtests([folder / "bin" / f"{name}_tests" for name in THREADED_FOLDERS], "tsan.", counts, THREADED,
                   {"TSAN_OPTIONS": f"halt_on_error=0:suppressions={TOP}/tests/tsan.supp"}, shards=1)


def stage_fuzz(files, counts):
    folder = build("asan", counts, ASAN_TARGETS)
    if not folder:
        return
    targets = sorted(folder.glob("fuzz/*_fuzz"))
    if not targets:
        counts.fail("fuzz", "the preset asan built no fuzz target")

    def one(target):
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=STAMPS) as work:
            found = pathlib.Path(work) / "found"
            found.mkdir()
            seeds = [p for p in [TOP / "tests/fuzz/corpus" / target.name.removesuffix("_fuzz")] if p.is_dir()]
            ran = run([str(target), f"-max_total_time={FUZZ_SECONDS}", "-rss_limit_mb=4096", "-timeout=20", "-print_final_stats=1",
                       f"-artifact_prefix={STAMPS}/{target.name}-", str(found), *map(str, seeds)], cwd=work)
            return target.name, ran

    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for name, ran in pool.map(one, targets):
            units = re.search(r"number_of_executed_units:\s*(\d+)", ran.stderr)
            if ran.returncode:
                counts.fail(f"fuzz.{name}", ran.stderr[-3000:])
            else:
                counts.ok()
                print(f"    {name}: {units.group(1) if units else '?'} inputs in {FUZZ_SECONDS} s")


def changed_sources():
    """C++ files that differ from the main branch, or, on the main branch itself, from the commit before."""
    base = None
    for main in ("origin/main", "main"):
        found = run(["git", "-C", str(TOP), "merge-base", "HEAD", main])
        if found.returncode == 0:
            base = found.stdout.strip()
            break
    head = run(["git", "-C", str(TOP), "rev-parse", "HEAD"]).stdout.strip()
    if not base or base == head:
        base = "HEAD~1"
    diff = run(["git", "-C", str(TOP), "diff", "--name-only", "--diff-filter=d", base, "--", "src", "include", "tests", "examples"])
    return None if diff.returncode else [f for f in diff.stdout.split() if f.endswith(".cpp")]


def compile_commands(folder):
    """File -> command of a build folder. A file that is compiled in a group gets the group's command with its own name."""
    commands = {}
    for entry in json.loads((folder / "compile_commands.json").read_text()):
        file, command = entry["file"], entry["command"]
        commands[file] = command
        if "/Unity/unity_" in file:
            for name in re.findall(r'^#include "(.+)"', pathlib.Path(file).read_text(), re.M):
                commands.setdefault(name, command.replace(file, name))
    return commands


def stage_tidy(files, counts):
    """One case per changed file. A file that passed is remembered by its content and all headers."""
    changed = changed_sources()
    if changed is None:
        counts.skip("clang-tidy", "no git history to compare with")
        return
    if not build("release", counts):
        return
    compiled = compile_commands(BUILD / "release")
    changed = [f for f in changed if str(TOP / f) in compiled]
    # clang 16 takes libtorch 1.13's IValue for an incomplete type under C++20, and stops there.
    torch = [f for f in changed if "/torch/" in compiled[str(TOP / f)]]
    if torch:
        counts.skip("clang-tidy", f"clang 16 cannot read the headers of libtorch 1.13, which {len(torch)} of the changed files include")
    changed = [f for f in changed if f not in torch]
    # clang cannot read GCC's precompiled headers; without them it also finds what a file forgot to include. Nor does it know all of GCC's options.
    database = STAMPS / "tidy"
    database.mkdir(exist_ok=True)
    precompiled = re.compile(r" -Winvalid-pch| -fpch-preprocess| -fno-tree-reassoc| -include \S+cmake_pch\S+")
    (database / "compile_commands.json").write_text(json.dumps(
        [{"directory": str(BUILD / "release"), "file": f, "command": precompiled.sub("", c)} for f, c in compiled.items()]))
    headers = input_hash([f for f in files if f.endswith(".h")] + [".clang-tidy"], "")
    memory = STAMPS / "tidy-passed.json"
    passed = set(json.loads(memory.read_text())) if memory.exists() else set()

    def one(name):
        key = input_hash([name], headers)
        if key in passed:
            return name, key, None
        return name, key, run(["clang-tidy-16", "-p", str(database), "--quiet",
                               "--extra-arg=-Wno-unknown-warning-option",  # the compile commands are GCC's
                               str(TOP / name)], cwd=TOP)

    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for name, key, ran in pool.map(one, changed):
            if ran is None or ran.returncode == 0:
                counts.ok()
                passed.add(key)
            else:
                counts.fail(f"clang-tidy {name}", ran.stdout[-3000:])
    memory.write_text(json.dumps(sorted(passed)))


STAGES = {"house": stage_house, "format": stage_format, "release": stage_release, "package": stage_package,
          "asan": stage_asan, "tsan": stage_tsan, "fuzz": stage_fuzz, "tidy": stage_tidy}


# ---- running them ----------------------------------------------------------------------------------------------


def stage_inputs(stage, files, environment):
    """The hash that stands for everything a stage's result depends on."""
    if stage == "house":
        chosen = files
    elif stage == "format":
        chosen = [f for f in files if SOURCE.search(f) or f == ".clang-format"]
    else:
        chosen = [f for f in files if not f.endswith(".md") and f != "LICENSE"]
    extra = environment
    if stage == "tidy":
        extra += "\n".join(changed_sources() or [])
    return input_hash(sorted(set(chosen) | {"scripts/check.py"}), stage + "\n" + extra)


def remembered(stage, key):
    stamp = STAMPS / f"{stage}.json"
    try:
        saved = json.loads(stamp.read_text())
    except (OSError, ValueError):
        return None
    return saved if saved.get("key") == key else None


def main():
    parser = argparse.ArgumentParser(prog="test.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="run also what passed before and has not changed")
    parser.add_argument("--only", default="", help="stages to run, separated by commas")
    args = parser.parse_args()
    chosen = [s for s in args.only.split(",") if s] or list(STAGES)
    for stage in chosen:
        if stage not in STAGES:
            parser.error(f"no stage {stage!r}; there are {', '.join(STAGES)}")

    STAMPS.mkdir(parents=True, exist_ok=True)
    files, environment = repository_files(), environment_text()
    keys = {stage: stage_inputs(stage, files, environment) for stage in chosen}
    due.update(s for s in chosen if args.all or not remembered(s, keys[s]))
    passed = failed = skipped = 0
    began = time.monotonic()
    for stage in chosen:
        key = keys[stage]
        saved = None if stage in due else remembered(stage, key)
        counts = Counts()
        if saved:
            counts.passed, counts.skipped = saved["passed"], [tuple(s) for s in saved["skipped"]]
            print(f"== {stage}: unchanged since it passed on {saved['when']} ({saved['seconds']:.0f} s): {counts.text()}")
        else:
            print(f"== {stage}", flush=True)
            start = time.monotonic()
            STAGES[stage](files, counts)
            seconds = time.monotonic() - start
            print(f"   {stage}: {counts.text()} in {seconds:.0f} s")
            if stage != "tidy" and not counts.passed + len(counts.failed) + len(counts.skipped):
                counts.fail(stage, "ran no test")
            unchanged = stage_inputs(stage, repository_files(), environment) == key
            if not counts.failed and unchanged:
                (STAMPS / f"{stage}.json").write_text(json.dumps(
                    {"key": key, "passed": counts.passed, "skipped": counts.skipped, "seconds": seconds,
                     "when": time.strftime("%Y-%m-%d %H:%M")}))
        for name, why in counts.skipped:
            print(f"   skipped {name}: {why}")
        for name, why in counts.failed:
            print(f"   FAILED {name}\n" + "\n".join("      " + line for line in why.splitlines()))
        sys.stdout.flush()
        passed, failed, skipped = passed + counts.passed, failed + len(counts.failed), skipped + len(counts.skipped)
    print(f"total {time.monotonic() - began:.0f} s")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
