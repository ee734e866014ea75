"""`mneme pull`, `list` and `rm` against a Hub on the loopback interface that cuts, lies, stalls and redirects."""
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import e2e
import hub as fake

REPO = "ann/tiny-GGUF"
NAME = "tiny-Q4_K_M.gguf"
PATH = f"/{REPO}/resolve/main/{NAME}"


def content(size, seed=1):
    return b"GGUF" + random.Random(seed).randbytes(size - 4)


class PullTest(unittest.TestCase):
    def setUp(self):
        self.hub = fake.Hub()
        self.addCleanup(self.hub.close)
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="mneme pull "))
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        self.data = content(300_000)
        self.hub.repositories[REPO] = {"README.md": fake.File(b"# hello", lfs=False), NAME: fake.File(self.data)}
        self.target = self.home / "models" / REPO / NAME
        self.part = self.target.with_name(NAME + ".part")
        self.env = {"MNEME_HOME": self.home, "HF_ENDPOINT": self.hub.endpoint, "HF_TOKEN": None}

    def pull(self, reference=f"hf:{REPO}", *options, **more):
        if "--retries" not in options:
            options += ("--retries", "3")
        return e2e.mneme("pull", reference, *options, env={**self.env, **more.pop("env", {})}, **more)

    def assertPulled(self, ran, data=None, target=None):
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual((target or self.target).read_bytes(), data or self.data)
        self.assertEqual(sorted(p.name for p in self.home.rglob("*") if ".part" in p.name), [])

    def assertFailed(self, ran, *words):
        self.assertEqual(ran.returncode, 1, ran.stdout + ran.stderr)
        for word in words:
            self.assertIn(word, ran.stderr)
        errors = [line for line in ran.stderr.splitlines() if "error:" in line]
        self.assertEqual(len(errors), 1, ran.stderr)
        self.assertFalse(self.target.exists())

    # -- the ordinary way ------------------------------------------------------------------------------------------

    def test_fetches_verifies_lists_and_removes(self):
        ran = self.pull("hf:" + REPO, "--json")
        self.assertPulled(ran)
        self.assertEqual(json.loads(ran.stdout)["path"], str(self.target))
        self.assertIn("SHA-256 verified", ran.stderr)
        models = json.loads(e2e.mneme("list", "--json", env=self.env).stdout)
        self.assertEqual(models, [{"name": f"{REPO}/tiny-Q4_K_M", "path": str(self.target), "type": "gguf", "bytes": len(self.data)}])
        self.assertEqual(e2e.mneme("rm", "tiny-Q4_K_M", env=self.env).returncode, 0)
        self.assertEqual(json.loads(e2e.mneme("list", "--json", env=self.env).stdout), [])
        self.assertEqual(list((self.home / "models").iterdir()), [])

    def test_second_pull_transfers_nothing(self):
        self.assertPulled(self.pull())
        before = len(self.hub.ranges(NAME))
        ran = self.pull()
        self.assertPulled(ran)
        self.assertIn("already there", ran.stderr)
        self.assertEqual(len(self.hub.ranges(NAME)), before)

    def test_changed_file_is_fetched_again(self):
        self.assertPulled(self.pull())
        self.data = content(300_000, seed=2)
        self.hub.repositories[REPO][NAME] = fake.File(self.data)
        self.assertPulled(self.pull())

    def test_bytes_rate_and_end_are_shown(self):
        ran = self.pull()
        self.assertRegex(ran.stderr, r"tiny-Q4_K_M\.gguf: 300 kB in [\d.]+ s \(.*/s\)")

    def test_progress_bar_shows_time_left_on_a_terminal(self):
        self.hub.behaviour[PATH] = [fake.slowly(30, 0.1)]
        env = {**os.environ, **{k: str(v) for k, v in self.env.items() if v is not None}, "TERM": "xterm", "COLUMNS": "100"}
        quoted = f"'{e2e.MNEME}' pull hf:{REPO}"
        ran = subprocess.run(["script", "-qec", quoted, "/dev/null"], env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        self.assertEqual(ran.returncode, 0, ran.stdout)
        self.assertRegex(ran.stdout, r"kB/s")
        self.assertRegex(ran.stdout, r"\d:\d\d")

    def test_endpoint_option_beats_the_environment(self):
        self.assertPulled(self.pull(f"hf:{REPO}", "--endpoint", self.hub.endpoint + "/", env={"HF_ENDPOINT": "http://127.0.0.1:1"}))

    def test_revision_is_asked_for(self):
        self.assertPulled(self.pull(f"hf:{REPO}", "--revision", "v1.0"))
        self.assertIn(f"/{REPO}/resolve/v1.0/{NAME}", [path for path, _, _ in self.hub.requests])

    # -- choosing --------------------------------------------------------------------------------------------------

    def test_prefers_q4_k_m_and_takes_a_part_of_a_name(self):
        files = self.hub.repositories[REPO]
        for kind, seed in (("F16", 3), ("Q8_0", 4), ("Q2_K", 5)):
            files[f"tiny-{kind}.gguf"] = fake.File(content(5000, seed))
        files["mmproj-tiny-Q4_K_M.gguf"] = fake.File(content(5000, 6))
        self.assertPulled(self.pull())
        self.assertPulled(self.pull(f"hf:{REPO}:q8_0"), files["tiny-Q8_0.gguf"].data, self.target.with_name("tiny-Q8_0.gguf"))
        self.assertPulled(self.pull(f"hf:{REPO}:tiny-F16.gguf"), files["tiny-F16.gguf"].data, self.target.with_name("tiny-F16.gguf"))

    def test_ambiguous_and_absent_files_are_named(self):
        self.hub.repositories[REPO]["tiny-Q4_K_S.gguf"] = fake.File(content(5000, 3))
        self.assertFailed(self.pull(f"hf:{REPO}:Q4_K"), "fits more than one", "tiny-Q4_K_S.gguf")
        self.assertFailed(self.pull(f"hf:{REPO}:Q6_K"), 'no GGUF file "Q6_K"', NAME)

    def test_split_file_comes_whole(self):
        parts = {f"big-0000{i}-of-00003.gguf": fake.File(content(20_000, i)) for i in (1, 2, 3)}
        self.hub.repositories["ann/big"] = parts
        ran = self.pull("hf:ann/big", "--json")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        for name, file in parts.items():
            self.assertEqual((self.home / "models/ann/big" / name).read_bytes(), file.data)
        listed = json.loads(e2e.mneme("list", "--json", env=self.env).stdout)
        self.assertEqual([(m["name"], m["bytes"]) for m in listed], [("ann/big/big", 60_000)])
        self.assertEqual(e2e.mneme("rm", "ann/big/big", env=self.env).returncode, 0)
        self.assertFalse((self.home / "models/ann").exists())

    def test_safetensors_folder_comes_with_its_texts(self):
        files = {"config.json": fake.File(b'{"a":1}', lfs=False), "tokenizer.json": fake.File(b"{}", lfs=False),
                 "model.safetensors": fake.File(content(50_000)), "pytorch_model.bin": fake.File(content(50_000)),
                 "onnx/model.onnx": fake.File(content(1000))}
        self.hub.repositories["ann/folder"] = files
        ran = self.pull("hf:ann/folder", "--json")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        folder = self.home / "models/ann/folder"
        self.assertEqual(sorted(p.name for p in folder.iterdir()), ["config.json", "model.safetensors", "tokenizer.json"])
        self.assertEqual(json.loads(ran.stdout)["type"], "huggingface")
        # config.json makes a folder a model, so it comes last
        order = [path.rsplit("/", 1)[1] for path, _, _ in self.hub.requests if "/resolve/" in path]
        self.assertEqual(order[-1], "config.json")

    def test_torch_shards_come_where_there_are_no_safetensors(self):
        names = ["config.json", "merges.txt", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin",
                 "pytorch_model.bin.index.json", "tokenizer_config.json", "vocab.json"]
        self.hub.repositories["ann/torch"] = {name: fake.File(content(9000, i)) for i, name in enumerate(names)} | {
            "optimizer.bin": fake.File(content(100)), "pytorch_model.bin": fake.File(content(100))}
        ran = self.pull("hf:ann/torch", "--json")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual(sorted(p.name for p in (self.home / "models/ann/torch").iterdir()), names)

    def test_repository_without_a_model(self):
        self.hub.repositories["ann/none"] = {"README.md": fake.File(b"x", lfs=False)}
        self.assertFailed(self.pull("hf:ann/none"), "holds no model that Mneme reads")

    def test_wrong_usage(self):
        for reference in ("tiny", "hf:tiny", "hf:/x", "hf:a/b/c", "hf:../x", "hf:a/b:"):
            with self.subTest(reference):
                self.assertEqual(self.pull(reference).returncode, 2)
        self.assertEqual(self.hub.requests, [])

    # -- cut connections -------------------------------------------------------------------------------------------

    def test_cut_connection_goes_on_where_it_stopped(self):
        self.hub.behaviour[PATH] = [fake.cut_after(100_000), fake.cut_after(50_000), fake.cut_after(1)]
        self.assertPulled(self.pull())
        self.assertEqual(self.hub.ranges(NAME), [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"])

    def test_many_cuts_are_no_reason_to_give_up_while_bytes_come(self):
        self.hub.behaviour[PATH] = [fake.cut_after(20_000)] * 14
        self.assertPulled(self.pull())

    def test_giving_up_keeps_the_part_and_the_next_run_goes_on(self):
        self.hub.behaviour[PATH] = [fake.cut_after(100_000)] + [fake.cut_after(0)] * 10
        ran = self.pull(f"hf:{REPO}", "--retries", "1")
        self.assertFailed(ran, "run the same command again")
        self.assertEqual(self.part.read_bytes(), self.data[:100_000])
        self.hub.behaviour.clear()
        self.hub.requests.clear()
        self.assertPulled(self.pull())
        self.assertEqual(self.hub.ranges(NAME), ["bytes=100000-"])

    def test_interrupt_leaves_a_part_that_is_resumed(self):
        for wait in (fake.slowly(100, 0.1), fake.hang_after(120_000, 20)):
            with self.subTest(wait):
                shutil.rmtree(self.home / "models", ignore_errors=True)
                self.hub.requests.clear()
                self.hub.behaviour[PATH] = [wait]
                env = {**os.environ, **{k: str(v) for k, v in self.env.items() if v is not None}}
                child = subprocess.Popen([e2e.MNEME, "pull", f"hf:{REPO}"], env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                for _ in range(200):
                    if self.part.exists() and self.part.stat().st_size >= 2000:
                        break
                    time.sleep(0.05)
                child.send_signal(signal.SIGINT)
                started = time.monotonic()
                _, errors = child.communicate(timeout=10)
                self.assertLess(time.monotonic() - started, 2)
                self.assertEqual(child.returncode, 130, errors)
                self.assertFalse(self.target.exists())
                size = self.part.stat().st_size
                self.assertEqual(self.part.read_bytes(), self.data[:size])
                self.hub.behaviour.clear()
                self.hub.requests.clear()
                self.assertPulled(self.pull())
                self.assertEqual(self.hub.ranges(NAME), [f"bytes={size}-"])

    def test_killed_process_leaves_a_part_that_is_resumed(self):
        self.hub.behaviour[PATH] = [fake.hang_after(120_000, 20)]
        env = {**os.environ, **{k: str(v) for k, v in self.env.items() if v is not None}}
        child = subprocess.Popen([e2e.MNEME, "pull", f"hf:{REPO}"], env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while not (self.part.exists() and self.part.stat().st_size == 120_000):
            time.sleep(0.05)
        child.kill()
        child.wait()
        self.hub.behaviour.clear()
        self.assertPulled(self.pull())
        self.assertEqual(self.hub.ranges(NAME)[-1], "bytes=120000-")

    def test_stalled_connection_counts_as_cut(self):
        self.hub.behaviour[PATH] = [fake.hang_after(100_000, 30)]
        self.assertPulled(self.pull(f"hf:{REPO}", "--timeout", "0.5"))
        self.assertEqual(self.hub.ranges(NAME), [None, "bytes=100000-"])

    def test_slow_host_is_waited_for(self):
        self.hub.behaviour[PATH] = [fake.slowly(20, 0.15)]
        self.assertPulled(self.pull(f"hf:{REPO}", "--timeout", "1"))
        self.assertEqual(self.hub.ranges(NAME), [None])

    def test_cut_chunked_answer_is_noticed(self):
        self.hub.list_details = False
        self.hub.behaviour[PATH] = [fake.chunked(stop_after=100_000)]
        self.assertPulled(self.pull())
        self.assertEqual(len(self.hub.ranges(NAME)), 2)

    def test_cut_listing_is_fetched_again(self):
        self.hub.behaviour[f"/api/models/{REPO}"] = [lambda h, f: setattr(h, "close_connection", True)]
        self.assertPulled(self.pull())

    # -- hosts with habits -----------------------------------------------------------------------------------------

    def test_host_that_ignores_ranges_starts_over(self):
        self.hub.behaviour[PATH] = [fake.cut_after(100_000), fake.ignore_range]
        self.assertPulled(self.pull())

    def test_chunked_without_length(self):
        self.hub.list_details = False
        self.hub.behaviour[PATH] = [fake.chunked()]
        self.assertPulled(self.pull())

    def test_neither_length_nor_hash_is_refused(self):
        self.hub.list_details = False
        self.hub.behaviour[PATH] = [fake.until_close]
        self.assertFailed(self.pull(), "neither length nor hash")

    def test_etag_alone_is_enough_to_resume(self):
        self.hub.list_details = False
        self.hub.repositories[REPO][NAME] = fake.File(self.data, lfs=False)
        self.hub.behaviour[PATH] = [fake.cut_after(100_000)]
        self.assertPulled(self.pull())
        self.assertEqual(self.hub.ranges(NAME), [None, "bytes=100000-"])

    def test_content_that_changes_between_attempts_is_not_mixed(self):
        self.hub.list_details = False
        self.hub.repositories[REPO][NAME] = fake.File(self.data, lfs=False)
        other = content(300_000, seed=9)

        def change(handler, file):
            fake.cut_after(100_000)(handler, file)
            self.hub.repositories[REPO][NAME] = fake.File(other, lfs=False)

        self.hub.behaviour[PATH] = [change]
        self.assertPulled(self.pull(), other)

    def test_part_of_unknown_origin_is_not_used(self):
        self.part.parent.mkdir(parents=True)
        self.part.write_bytes(bytes(1000))
        self.assertPulled(self.pull())
        self.assertEqual(self.hub.ranges(NAME), [None])

    def test_complete_part_needs_no_transfer(self):
        self.part.parent.mkdir(parents=True)
        self.part.write_bytes(self.data)
        self.part.with_name(NAME + ".part.json").write_text(json.dumps({"identity": self.hub.repositories[REPO][NAME].sha256}))
        self.assertPulled(self.pull())
        self.assertEqual(self.hub.ranges(NAME), [])

    def test_range_beyond_the_end_ends_or_restarts(self):
        self.hub.list_details = False  # the size is not known beforehand, so the host answers 416
        for part in (self.data, self.data + b"more"):
            with self.subTest(len(part)):
                shutil.rmtree(self.home / "models", ignore_errors=True)
                self.part.parent.mkdir(parents=True)
                self.part.write_bytes(part)
                self.part.with_name(NAME + ".part.json").write_text(json.dumps({"identity": self.hub.repositories[REPO][NAME].sha256}))
                self.assertPulled(self.pull())

    def test_busy_host_is_asked_again(self):
        self.hub.behaviour[PATH] = [fake.status(503), fake.status(429, Retry_After="0"), fake.status(500)]
        self.hub.behaviour[f"/api/models/{REPO}"] = [fake.status(502)]
        self.assertPulled(self.pull())

    def test_host_that_stays_busy_ends_in_one_line(self):
        self.hub.behaviour[PATH] = [fake.status(503)] * 20
        self.assertFailed(self.pull(f"hf:{REPO}", "--retries", "1"), "status 503")

    def test_unreachable_host(self):
        self.assertFailed(self.pull(f"hf:{REPO}", "--retries", "0", env={"HF_ENDPOINT": "http://127.0.0.1:1"}), "cannot be reached")

    def test_absent_and_forbidden_repositories(self):
        self.assertFailed(self.pull("hf:ann/absent"), "no such repository")
        self.hub.behaviour[f"/api/models/{REPO}"] = [fake.status(401)]
        self.assertFailed(self.pull(), "HF_TOKEN")
        self.hub.behaviour[PATH] = [fake.status(403)]
        self.assertFailed(self.pull(), "HF_TOKEN")
        self.hub.behaviour[PATH] = [fake.status(404)]
        self.assertFailed(self.pull(), "no such file")

    def test_answer_that_is_no_listing(self):
        for body in (b"<html>", b"[1,2]", b'{"siblings": 3}', b'{"siblings": [{"rfilename": 5}, 7]}', b"[" * 10_000):
            with self.subTest(body[:30]):
                self.hub.behaviour[f"/api/models/{REPO}"] = [lambda h, f, body=body: fake.answer(h, 200, body)]
                self.assertFailed(self.pull())

    # -- redirects and tokens --------------------------------------------------------------------------------------

    def test_redirects_are_followed_and_the_linked_hash_is_checked(self):
        self.hub.list_details = False
        linked = {"X_Linked_Etag": f'"{self.hub.repositories[REPO][NAME].sha256}"', "X_Linked_Size": str(len(self.data))}
        self.hub.behaviour[PATH] = [fake.redirect("/elsewhere" + PATH + "?signature=a%2Bb", **linked), fake.redirect("/elsewhere" + PATH, **linked)]
        self.hub.behaviour["/elsewhere" + PATH] = [fake.cut_after(100_000)]
        ran = self.pull()
        self.assertPulled(ran)
        self.assertIn("SHA-256 verified", ran.stderr)

    def test_endless_redirects_end(self):
        self.hub.behaviour[PATH] = [fake.redirect(PATH)] * 100
        self.assertFailed(self.pull(), "redirects more than 8 times")

    def test_redirect_to_nowhere(self):
        for location in ("", "ftp://x/y", "http://", "http://a b/"):
            with self.subTest(location):
                self.hub.behaviour[PATH] = [fake.redirect(location)]
                self.assertFailed(self.pull())

    def test_token_goes_to_its_own_host_only(self):
        second = fake.Hub()
        self.addCleanup(second.close)
        second.repositories = self.hub.repositories
        self.hub.behaviour[PATH] = [fake.redirect(second.endpoint + PATH)]
        self.assertPulled(self.pull(env={"HF_TOKEN": "secret"}))
        self.assertEqual({auth for _, _, auth in self.hub.requests}, {"Bearer secret"})
        self.assertEqual({auth for _, _, auth in second.requests}, {None})

    # -- wrong content and hostile hosts ---------------------------------------------------------------------------

    def test_wrong_content_is_refused_and_removed(self):
        self.hub.behaviour[PATH] = [fake.other_bytes]
        self.assertFailed(self.pull(), "SHA-256")
        self.assertFalse(self.part.exists())

    def test_wrong_rest_of_a_resumed_part_is_fetched_once_more(self):
        self.part.parent.mkdir(parents=True)
        self.part.write_bytes(bytes(1000))  # damaged on the disk
        self.part.with_name(NAME + ".part.json").write_text(json.dumps({"identity": self.hub.repositories[REPO][NAME].sha256}))
        self.assertPulled(self.pull())
        self.assertEqual(self.hub.ranges(NAME), ["bytes=1000-", None])

    def test_size_that_differs_from_the_listing_is_refused(self):
        def longer(handler, file):
            fake.answer(handler, 200, file.data + b"x")

        self.hub.behaviour[PATH] = [longer]
        self.assertFailed(self.pull(), "lists 300000 bytes")

    def test_hostile_names_are_refused(self):
        outside = self.home.parent / "mneme-escaped.gguf"
        for name in ("../../../../mneme-escaped.gguf", "/tmp/mneme-escaped.gguf", "a/../../b.gguf", "a//b.gguf", ".hidden.gguf", "a\\b.gguf",
                     "x\x1b[2J.gguf", "C:x.gguf", "n" * 300 + ".gguf"):
            with self.subTest(name):
                self.hub.repositories["ann/bad"] = {name: fake.File(content(100))}
                self.assertFailed(self.pull("hf:ann/bad"), "refused")
                self.assertFalse(outside.exists())

    def test_link_in_place_of_the_part_is_not_followed(self):
        victim = self.home / "victim"
        victim.write_text("mine")
        self.part.parent.mkdir(parents=True)
        self.part.symlink_to(victim)
        self.assertFailed(self.pull())
        self.assertEqual(victim.read_text(), "mine")

    # -- the disk --------------------------------------------------------------------------------------------------

    def test_full_disk(self):
        small = self.home / "small"
        small.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(small)], capture_output=True, text=True)
        if mounted.returncode:
            self.skipTest(f"a small file system cannot be mounted here ({mounted.stderr.strip()})")
        self.addCleanup(subprocess.run, ["umount", str(small)])
        self.assertFailed(self.pull(env={"MNEME_HOME": small}), "has only", "free")
        self.hub.list_details = False
        self.hub.behaviour[PATH] = [fake.chunked()]  # no length: the disk runs full while writing
        self.assertFailed(self.pull(env={"MNEME_HOME": small}), "No space left")
        self.assertEqual([p for p in small.rglob("*") if p.is_file()], [])

    def test_store_that_cannot_be_written(self):
        blocked = self.home / "file"
        blocked.write_text("")
        self.assertFailed(self.pull(env={"MNEME_HOME": blocked}), "cannot make the folder")

    def test_two_at_once(self):
        self.hub.behaviour[PATH] = [fake.slowly(10, 0.2)]
        env = {**os.environ, **{k: str(v) for k, v in self.env.items() if v is not None}}
        first = subprocess.Popen([e2e.MNEME, "pull", f"hf:{REPO}"], env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        while not self.part.exists():
            time.sleep(0.02)
        second = self.pull()
        first.communicate(timeout=30)
        self.assertEqual(first.returncode, 0)
        self.assertEqual(second.returncode, 1)
        self.assertIn("another process", second.stderr)
        self.assertEqual(self.target.read_bytes(), self.data)


class StoreTest(unittest.TestCase):
    def setUp(self):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="mneme store "))
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        self.models = self.home / "models"
        for name in ("a/x/model-Q4_0.gguf", "b/x/model-Q4_0.gguf", "b/x/other.gguf", "top.gguf"):
            (self.models / name).parent.mkdir(parents=True, exist_ok=True)
            (self.models / name).write_bytes(b"1234")

    def mneme(self, *arguments):
        return e2e.mneme(*arguments, env={"MNEME_HOME": self.home})

    def names(self):
        return [m["name"] for m in json.loads(self.mneme("list", "--json").stdout)]

    def test_list_shows_names_sorted(self):
        self.assertEqual(self.names(), ["a/x/model-Q4_0", "b/x/model-Q4_0", "b/x/other", "top"])
        self.assertIn("a/x/model-Q4_0", self.mneme("list").stdout)

    def test_unfinished_downloads_are_not_listed(self):
        (self.models / "y.gguf.part").write_bytes(b"1")
        self.assertNotIn("y", " ".join(self.names()).replace("x/", ""))

    def test_empty_store(self):
        ran = e2e.mneme("list", "--json", env={"MNEME_HOME": self.home / "absent"})
        self.assertEqual((ran.returncode, json.loads(ran.stdout)), (0, []))

    def test_rm_needs_an_unambiguous_name(self):
        ran = self.mneme("rm", "model-Q4_0")
        self.assertEqual(ran.returncode, 1)
        self.assertIn("a/x/model-Q4_0", ran.stderr)
        self.assertEqual(len(self.names()), 4)

    def test_rm_suggests_the_nearest_name(self):
        ran = self.mneme("rm", "toq")
        self.assertEqual(ran.returncode, 1)
        self.assertIn("did you mean top", ran.stderr)

    def test_rm_deletes_nothing_if_one_name_is_wrong(self):
        self.assertEqual(self.mneme("rm", "top", "absent").returncode, 1)
        self.assertEqual(len(self.names()), 4)

    def test_rm_takes_no_paths(self):
        outside = self.home / "outside.gguf"
        outside.write_bytes(b"1")
        for name in (str(outside), "../outside", "../outside.gguf", "..", ".", "/", "", "b"):
            with self.subTest(name):
                self.assertNotEqual(self.mneme("rm", name).returncode, 0)
        self.assertTrue(outside.exists())
        self.assertEqual(len(self.names()), 4)

    def test_rm_leaves_other_models_of_the_folder(self):
        self.assertEqual(self.mneme("rm", "b/x/model-Q4_0", "top").returncode, 0)
        self.assertEqual(self.names(), ["a/x/model-Q4_0", "b/x/other"])

    def test_rm_of_a_link_leaves_what_it_points_to(self):
        outside = self.home / "outside.gguf"
        outside.write_bytes(b"1")
        (self.models / "link.gguf").symlink_to(outside)
        self.assertEqual(self.mneme("rm", "link").returncode, 0)
        self.assertTrue(outside.exists())
        self.assertNotIn("link", self.names())

    def test_store_follows_xdg_where_mneme_home_is_not_set(self):
        env = {"MNEME_HOME": None, "XDG_DATA_HOME": self.home / "xdg"}
        (self.home / "xdg/mneme/models").mkdir(parents=True)
        (self.home / "xdg/mneme/models/here.gguf").write_bytes(b"1")
        self.assertEqual([m["name"] for m in json.loads(e2e.mneme("list", "--json", env=env).stdout)], ["here"])


if __name__ == "__main__":
    e2e.main()
