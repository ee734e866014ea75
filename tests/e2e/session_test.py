"""Sessions kept between runs: --session FILE, --session-store DIR, `mneme sessions`, and what can go wrong with them."""
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import e2e

MODELS = e2e.TOP / "tests" / "data" / "models"
LLAMA = MODELS / "llama.gguf"
TEXT = " ".join(f"word{i}" for i in range(60))
TWO_MODELS = ("llama.gguf", "mistral")  # full attention, and windows that forget


class SessionTest(unittest.TestCase):
    def setUp(self):
        self.out = pathlib.Path(tempfile.mkdtemp(prefix="mneme session "))
        self.addCleanup(shutil.rmtree, self.out, ignore_errors=True)
        self.file = self.out / "a.session"
        self.env = {"MNEME_HOME": self.out / "home", "MNEME_CTX": "60000"}  # the tiny models were made for 128 tokens

    def generate(self, *arguments, model=LLAMA, **options):
        return e2e.mneme_json("generate", model, "--temp", "0", "--ignore-eos", "--quiet", *arguments, env=self.env, **options)

    def ids(self, text, model=LLAMA):
        return e2e.mneme_json("tokenize", model, text)["ids"]

    def refused(self, *arguments, code=1, model=LLAMA):
        ran = e2e.mneme("generate", model, "-n", "2", "--quiet", *arguments, env=self.env)
        self.assertEqual(ran.returncode, code, ran.stderr)
        self.assertEqual(ran.stderr.count("\n"), 1, ran.stderr)
        self.assertEqual(ran.stdout, "")
        return ran.stderr


class FileTest(SessionTest):
    def test_going_on_equals_one_run(self):
        for name in TWO_MODELS + ("mixers/hybrid",):
            model = MODELS / name
            if not model.exists():
                continue
            with self.subTest(name):
                self.file.unlink(missing_ok=True)
                ids = [3 + i % 40 for i in range(90)]
                text = lambda part: ",".join(map(str, part))
                for kv in ("f16", "int8"):
                    whole = self.generate("--ids", text(ids), "-n", "8", "--kv", kv, model=model)
                    self.generate("--ids", text(ids[:50]), "-n", "0", "--session", self.file, "--kv", kv, model=model)
                    before = self.file.read_bytes()
                    for _ in range(2):
                        rest = self.generate("--ids", text(ids[50:]), "-n", "8", "--session", self.file, "--no-save", "--kv", kv, model=model)
                        self.assertEqual(rest["text"], whole["text"])
                        self.assertEqual(rest["prompt_tokens"], 40)
                    self.assertEqual(self.file.read_bytes(), before)
                    self.generate("--ids", text(ids[50:]), "-n", "2", "--session", self.file, "--kv", kv, model=model)
                    self.assertNotEqual(self.file.read_bytes(), before)
                    self.file.unlink()

    def test_another_model_or_other_options_are_refused(self):
        self.generate("-p", TEXT, "-n", "0", "--session", self.file)
        good = self.file.read_bytes()
        for options, word in ((("--kv", "f32"), "f16"), (("--activation", "float"), "another model"), (("--ctx", "20"), "20")):
            message = self.refused("-p", "more", "--session", self.file, *options)
            self.assertIn(word, message)
            self.assertIn("a.session", message)
        self.assertIn("another model", self.refused("-p", "more", "--session", self.file, model=MODELS / "qwen2"))
        self.assertIn("another model", self.refused("-p", "more", "--session", self.file, "--type", "q8_0", model=MODELS / "llama"))
        self.assertEqual(self.file.read_bytes(), good)

    def test_damaged_files_are_refused(self):
        self.generate("-p", TEXT, "-n", "0", "--session", self.file)
        good = self.file.read_bytes()
        for size in (0, 5, 15, 40, 200, len(good) // 2, len(good) - 1):
            self.file.write_bytes(good[:size])
            self.refused("-p", "more", "--session", self.file)
            self.assertEqual(self.file.stat().st_size, size)
        for at in (3, 9, 13, 30, 300, len(good) // 2, len(good) - 30, len(good) - 1):
            self.file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1:])
            self.refused("-p", "more", "--session", self.file)
        self.file.write_bytes(good + b"x")
        self.refused("-p", "more", "--session", self.file)
        self.assertIn("no such file", self.refused("-p", "more", "--session", self.out / "other", "--no-save"))
        self.assertIn("no folder", self.refused("-p", "more", "--session", "/nowhere/at/all"))
        self.refused("-p", "more", "--no-save", code=2)
        self.refused("-p", "more", "--session", self.out)

    def test_a_full_disk_keeps_the_answer_and_the_old_file(self):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

        def run():
            return subprocess.run([e2e.MNEME, "generate", LLAMA, "-p", TEXT, "-n", "4", "--quiet", "--session", self.file, "--temp", "0"],
                                  capture_output=True, text=True, preexec_fn=limit, env={**os.environ, **{k: str(v) for k, v in self.env.items()}})
        ran = run()
        self.assertEqual(ran.returncode, 1)
        self.assertGreater(len(ran.stdout), 1)
        self.assertEqual(ran.stderr.count("\n"), 1, ran.stderr)
        self.assertIn("no file was left", ran.stderr)
        self.assertEqual(list(self.out.glob("a.session*")), [])
        self.generate("-p", TEXT, "-n", "0", "--session", self.file)
        good = self.file.read_bytes()
        self.assertGreater(len(good), 20_000)
        ran = run()
        self.assertEqual(ran.returncode, 1)
        self.assertIn("the old file is as it was", ran.stderr)
        self.assertEqual(self.file.read_bytes(), good)
        self.assertEqual(len(list(self.out.glob("a.session*"))), 1)

    def test_an_interrupted_reading_goes_on(self):
        ids = self.out / "ids.txt"
        many = [3 + i * i % 90 for i in range(40000)]
        ids.write_text(",".join(map(str, many)))
        command = [e2e.MNEME, "generate", str(LLAMA), "--ids", f"@{ids}", "-n", "3", "--temp", "0", "--ignore-eos", "--ctx", "50000",
                   "--session", str(self.file), "--json", "--chunk", "64"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
        if process.returncode == 0:
            self.skipTest("the machine reads 40,000 tokens before it can be interrupted")
        self.assertEqual(process.returncode, 130, err)
        self.assertRegex(err, r"\d+ of 40000 prompt tokens are read and kept")
        self.assertEqual(out, "")
        self.assertIn("interrupted", self.refused("--ids", "5,6,7", "--ctx", "50000", "--session", self.file))
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertRegex(ran.stderr, r"40000 prompt tokens, \d+ of them kept")
        self.file.unlink()
        straight = subprocess.run(command, capture_output=True, text=True, timeout=300)
        self.assertEqual(json.loads(ran.stdout)["text"], json.loads(straight.stdout)["text"])

    def test_a_text_that_begins_with_a_token_of_the_models_goes_on_too(self):
        """The begin-of-text token belongs to the prompt, also when its rest is read in a second sitting."""
        model = self.out / "model"
        shutil.copytree(LLAMA.parent / "llama", model)
        tokenizer = json.loads((model / "tokenizer.json").read_text())
        first = tokenizer["added_tokens"][0]
        tokenizer["post_processor"] = {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": first["content"], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {first["content"]: {"id": first["content"], "ids": [first["id"]], "tokens": [first["content"]]}}}
        (model / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.assertEqual(self.ids("hello", model)[0], first["id"])
        prompt = self.out / "prompt.txt"
        prompt.write_text(" ".join(f"word{i * i}" for i in range(4000)))
        command = [e2e.MNEME, "generate", str(model), "-p", f"@{prompt}", "-n", "3", "--temp", "0", "--ignore-eos", "--ctx", "200000",
                   "--session", str(self.file), "--json", "--chunk", "64"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stderr.readline()
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=120)[1]
        if process.returncode == 0:
            self.skipTest("the machine reads the prompt before it can be interrupted")
        self.assertEqual(process.returncode, 130, err)
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertRegex(ran.stderr, r"prompt tokens, \d+ of them kept")

    def test_an_interrupted_chat_goes_on(self):
        """Ctrl-C while `mneme run` reads a long prompt: what was read is kept and said, exit code 130, and the same prompt goes on."""
        prompt = self.out / "prompt.txt"
        prompt.write_text(" ".join(f"word{i * i}" for i in range(4000)))
        command = [e2e.MNEME, "run", str(LLAMA), "-p", f"@{prompt}", "-n", "3", "--temp", "0", "--ctx", "200000", "--session", str(self.file),
                   "--chunk", "64"]
        environment = {**os.environ, **{k: str(v) for k, v in self.env.items()}}

        def interrupted():
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
            first = process.stderr.readline()  # the model is loaded; Ctrl-C is taken up soon after
            time.sleep(1.0)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
            if process.returncode == 0:
                self.skipTest("the machine reads the prompt before it can be interrupted")
            self.assertEqual((process.returncode, out), (130, ""), err)
            told = re.search(r"interrupted: (\d+) of (\d+) prompt tokens are read and kept in (\S.*a\.session); the same prompt goes on", first + err)
            self.assertIsNotNone(told, err)
            return int(told[1]), int(told[2])
        read, total = interrupted()
        self.assertGreater(read, 0)
        self.assertLess(read, total)
        again, total_again = interrupted()
        self.assertEqual(total_again, total)
        self.assertGreater(again, read)
        # The user's turn is not part of the saved chat: another prompt starts a chat of its own.
        other = e2e.mneme("run", LLAMA, "-p", "Hello there", "-n", "3", "--temp", "0", "--ctx", "200000", "--session", self.file, "--no-save",
                          env=self.env)
        self.assertEqual(other.returncode, 0, other.stderr)
        fresh = e2e.mneme("run", LLAMA, "-p", "Hello there", "-n", "3", "--temp", "0", "--ctx", "200000", "--quiet", env=self.env)
        self.assertEqual(other.stdout, fresh.stdout)
        # Read to its end, the answer is that of a straight run.
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        kept = int(re.search(r"prompt tokens, (\d+) of them kept", ran.stderr)[1])
        self.assertEqual(kept, again)
        straight = subprocess.run([part for part in command if part not in ("--session", str(self.file))], capture_output=True, text=True,
                                  timeout=300, env=environment)
        self.assertEqual(ran.stdout, straight.stdout)


class StoreTest(SessionTest):
    def setUp(self):
        super().setUp()
        self.store = self.out / "store"

    def kept(self, *arguments):
        """Tokens that a run took from the store, and its text."""
        ran = e2e.mneme("generate", *arguments, "--temp", "0", "--ignore-eos", "-n", "4", "--session-store", self.store, env=self.env)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        words = ran.stderr.split(" of them kept")[0].split()
        return (int(words[-1]) if " of them kept" in ran.stderr else 0), ran.stdout

    def sessions(self, *arguments):
        return e2e.mneme_json("sessions", *arguments, "--session-store", self.store, env=self.env)

    def test_the_longest_beginning_is_taken_up(self):
        for name in TWO_MODELS:
            with self.subTest(name):
                model = MODELS / name
                count = lambda text: len(self.ids(text, model))
                self.assertEqual(self.kept(model, "-p", TEXT)[0], 0)
                held, again = self.kept(model, "-p", TEXT)
                self.assertEqual(held, count(TEXT) - 1)
                self.assertGreaterEqual(self.kept(model, "-p", TEXT + " and more")[0], count(TEXT) - 1)
                fresh = e2e.mneme("generate", model, "-p", TEXT, "--temp", "0", "--ignore-eos", "-n", "4", "--quiet", env=self.env).stdout
                self.assertEqual(again, fresh)
                self.assertLess(self.kept(model, "-p", "Other words")[0], 3)

    def test_other_models_and_options_have_their_own(self):
        self.kept(LLAMA, "-p", TEXT)
        self.assertEqual(self.kept(MODELS / "qwen2", "-p", TEXT)[0], 0)
        self.assertEqual(self.kept(LLAMA, "-p", TEXT, "--kv", "f32")[0], 0)
        self.assertGreater(self.kept(LLAMA, "-p", TEXT)[0], 0)

    def test_full_attention_needs_one_file_for_a_text_and_its_beginnings(self):
        for text in (TEXT, TEXT + " one two", TEXT + " one two three"):
            self.kept(LLAMA, "-p", text)
        longest = max(self.sessions(), key=lambda s: s["tokens"])
        self.assertGreaterEqual(longest["tokens"], len(self.ids(TEXT + " one two three")))
        self.assertLessEqual(len(self.sessions()), 3)

    def test_the_budget_holds_and_the_oldest_go(self):
        self.kept(LLAMA, "-p", "first " + TEXT)
        size = self.sessions()[0]["bytes"]
        budget = ("--session-budget", str(2 * size + size // 2))
        for word in ("second", "third", "fourth"):
            time.sleep(0.02)
            self.kept(LLAMA, "-p", f"{word} {TEXT}", *budget)
        kept = self.sessions()
        self.assertEqual(len(kept), 2)
        self.assertLessEqual(sum(s["bytes"] for s in kept), 2 * size + size // 2)
        self.assertGreater(self.kept(LLAMA, "-p", f"fourth {TEXT}", *budget)[0], 20)
        self.assertLess(self.kept(LLAMA, "-p", f"first {TEXT}", *budget)[0], 20)
        self.kept(LLAMA, "-p", "tiny " + TEXT, "--session-budget", "10")  # nothing fits: nothing is stored

    def test_damaged_files_cost_a_reading_and_are_removed(self):
        self.kept(LLAMA, "-p", TEXT)
        file, = self.store.iterdir()
        data = file.read_bytes()
        file.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
        (self.store / "junk.session").write_bytes(b"no session at all")
        self.assertEqual(self.kept(LLAMA, "-p", TEXT)[0], 0)
        self.assertGreater(self.kept(LLAMA, "-p", TEXT)[0], 20)

    def test_a_full_disk_costs_no_answer(self):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

        windows = MODELS / "mistral"  # forgets, so that its state is stored before the answer too
        command = [e2e.MNEME, "generate", windows, "-p", TEXT, "-n", "4", "--temp", "0", "--ignore-eos", "--quiet"]
        answer = subprocess.run(command, capture_output=True, text=True).stdout
        ran = subprocess.run([*command, "--session-store", self.store], capture_output=True, text=True, preexec_fn=limit)
        self.assertEqual((ran.returncode, ran.stdout), (1, answer))
        self.assertIn("note: what was read so far is not stored", ran.stderr)
        self.assertEqual([path for path in self.store.iterdir() if path.stat().st_size > 0], [])

    def test_list_rm_clear(self):
        self.assertEqual(self.sessions("list"), [])
        for word in ("one", "two", "three"):
            self.kept(LLAMA, "-p", f"{word} {TEXT}")
            time.sleep(0.02)
        kept = self.sessions()
        self.assertEqual(len(kept), 3)
        self.assertEqual(sorted((s["used"] for s in kept), reverse=True), [s["used"] for s in kept])
        text = e2e.mneme("sessions", "--session-store", self.store, env=self.env).stdout
        self.assertEqual(len(text.splitlines()), 4)
        self.assertEqual(self.sessions("rm", kept[1]["name"][:12])["removed"], 1)
        self.assertEqual({s["name"] for s in self.sessions()}, {kept[0]["name"], kept[2]["name"]})
        ran = e2e.mneme("sessions", "rm", "nothing", "--session-store", self.store, env=self.env)
        self.assertEqual((ran.returncode, ran.stderr.count("\n")), (1, 1))
        self.assertEqual(self.sessions("clear")["removed"], 2)
        self.assertEqual(list(self.store.iterdir()), [])

    def test_auto_is_below_the_cache(self):
        e2e.mneme_json("generate", LLAMA, "-p", TEXT, "-n", "1", "--session-store", "auto", env=self.env)
        self.assertEqual(len(list((self.out / "home" / "cache" / "sessions").iterdir())), 1)
        self.assertEqual(len(e2e.mneme_json("sessions", env=self.env)), 1)


class ChatTest(SessionTest):
    def test_a_chat_goes_on_without_reading_its_history(self):
        model = e2e.real_model()

        def ask(text, *more):
            ran = e2e.mneme("run", model, "-p", text, "--temp", "0", "-n", "24", *more, env=self.env)
            self.assertEqual(ran.returncode, 0, ran.stderr)
            return ran
        ask("Name three colours. " * 30, "--session", self.file)
        second = ask("Which is the brightest?", "--session", self.file)
        self.assertRegex(second.stderr, r"tokens and 2 messages are taken up")
        total, kept = map(int, re.search(r"(\d+) prompt tokens, (\d+) of them kept", second.stderr).groups())
        self.assertGreater(kept, 150)
        self.assertLess(total - kept, 40)
        # The store does the same for the beginning of a conversation.
        store = ("--session-store", self.out / "store")
        ask("Name three colours. " * 30, *store)
        again = ask("Name three colours. " * 30, *store)
        total, kept = map(int, re.search(r"(\d+) prompt tokens, (\d+) of them kept", again.stderr).groups())
        self.assertEqual(kept, total - 1)


if __name__ == "__main__":
    e2e.main()
