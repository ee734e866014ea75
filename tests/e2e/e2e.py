"""What the end-to-end tests share: they run the mneme program from outside, as a person or a script would.

A test is a file NAME_test.py with unittest classes that ends with `e2e.main()`. Each case is reported on stdout as
`CASE pass|fail|skip NAME: reason`, which test.sh counts. The environment gives MNEME_BIN (the program), and where they
could be fetched MNEME_TEST_MODEL and MNEME_TEST_GEMMA (real models).
"""
import json
import os
import pathlib
import subprocess
import sys
import unittest

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
# Where spikes take the event-driven way depends on the processor (src/simd/isa.h); expectations do not.
os.environ.setdefault("MNEME_GAPS", "cheap")
MNEME = os.environ.get("MNEME_BIN", str(TOP / "build/release/bin/mneme"))


def mneme(*arguments, stdin=None, timeout=120, env=None, cwd=None):
    """Runs the program; returns CompletedProcess with text output. `env` adds to the environment; None removes."""
    merged = dict(os.environ)
    for key, value in (env or {}).items():
        merged.pop(key, None)
        if value is not None:
            merged[key] = str(value)
    source = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run([MNEME, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, env=merged, cwd=cwd, **source)


def mneme_json(*arguments, **options):
    """Runs a verb with --json and parses what it prints; raises if it failed."""
    ran = mneme(*arguments, "--json", **options)
    if ran.returncode:
        raise AssertionError(f"mneme {' '.join(map(str, arguments))}: exit {ran.returncode}: {ran.stderr.strip()}")
    return json.loads(ran.stdout)


def real_model(variable="MNEME_TEST_MODEL"):
    """Path of a real model, or skips the test with the reason."""
    path = os.environ.get(variable, "")
    if not os.path.isfile(path):
        raise unittest.SkipTest(f"{variable} names no model (its pip package could not be fetched, or the test was started by hand)")
    return path


class _Reporter(unittest.TestResult):
    def _say(self, verdict, test, reason=""):
        name = test.id().removeprefix("__main__.").replace(" ", "_")
        print(f"CASE {verdict} {name}" + (f": {' '.join(reason.split())}" if reason else ""), flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self._say("pass", test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._say("skip", test, reason)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        print(self.failures[-1][1])
        self._say("fail", test, str(error[1])[:400])

    def addError(self, test, error):
        super().addError(test, error)
        print(self.errors[-1][1])
        self._say("fail", test, str(error[1])[:400])

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error:
            print(f"{subtest}: {error[1]}")
            self._say("fail", test, f"{subtest}: {error[1]}"[:400])


def main():
    """Runs the cases of the calling file; names on the command line choose some of them."""
    module = sys.modules["__main__"]
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromNames(sys.argv[1:], module) if len(sys.argv) > 1 else loader.loadTestsFromModule(module)
    result = _Reporter()
    suite.run(result)
    if not result.testsRun and not result.skipped:
        print("no test was run", file=sys.stderr)
        sys.exit(1)
    if len(result.skipped) == result.testsRun:
        sys.exit(77)  # ctest then says Skipped instead of Passed
    sys.exit(0 if result.wasSuccessful() else 1)
