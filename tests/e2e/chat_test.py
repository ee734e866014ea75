"""`mneme run`: one answer, and a conversation on a pseudo-terminal."""
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import tempfile
import time
import unittest

import e2e


class Terminal:
    """The program with a pseudo-terminal as stdin and stderr, and a pipe as stdout, so that the answer can be told apart."""

    def __init__(self, *arguments, env):
        self.shown = ""  # what the person sees
        self.answers = b""  # what goes to stdout
        read_end, write_end = os.pipe()
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.dup2(write_end, 1)
            os.close(read_end)
            os.environ.update({key: str(value) for key, value in env.items()})
            os.environ["TERM"] = "xterm"
            os.execv(e2e.MNEME, [e2e.MNEME, *map(str, arguments)])
        os.close(write_end)
        self.out = read_end
        self.status = None

    def _pump(self, seconds):
        ready, _, _ = select.select([fd for fd in (self.master, self.out) if fd is not None], [], [], seconds)
        for fd in ready:
            try:
                data = os.read(fd, 65536)
            except OSError:
                data = b""
            if fd == self.master:
                if data:
                    self.shown += data.decode("utf-8", "replace")
                else:
                    self.master = None
            elif data:
                self.answers += data
            else:
                os.close(self.out)
                self.out = None

    def wait_for(self, condition, what, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end or (self.master is None and self.out is None):
                raise AssertionError(f"never saw {what}; shown: {self.shown!r}, answers: {self.answers!r}")
            self._pump(0.2)

    def wait_prompt(self, seconds=60):
        """Until a prompt is drawn that nothing has been typed after."""
        mark = self.mark
        self.wait_for(lambda: re.search(r"> $", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown[mark:])), "the prompt", seconds)

    mark = 0

    def type(self, text):
        self.mark = len(self.shown)
        os.write(self.master, text.encode())

    def line(self, text):
        self.type(text + "\r")

    def exit_code(self, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
                return os.waitstatus_to_exitcode(status)
            if self.master is not None or self.out is not None:
                self._pump(0.1)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.status = -1
        raise AssertionError(f"still running; shown: {self.shown!r}")

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        for fd in (self.master, self.out):
            if fd is not None:
                os.close(fd)


class OneAnswerTest(unittest.TestCase):
    def setUp(self):
        self.model = e2e.real_model()

    def test_answers_and_says_how_fast(self):
        ran = e2e.mneme("run", self.model, "-p", "What is the capital of France?", "--temp", "0", "-n", "40")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertGreater(len(ran.stdout.strip()), 10)
        self.assertNotIn("<|im_", ran.stdout)
        self.assertRegex(ran.stderr, r"thread.* resident, .* mapped, .* on disk")
        self.assertIn("tokens/s", ran.stderr)

    def test_json(self):
        answer = e2e.mneme_json("run", "--model", self.model, "-p", "What is the capital of France?", "--temp", "0", "-n", "40")
        self.assertEqual(sorted(answer), ["generated_tokens", "prompt_tokens", "stop", "text", "tokens_per_second", "ttft_ms"])
        plain = e2e.mneme("run", self.model, "-p", "What is the capital of France?", "--temp", "0", "-n", "40", "--quiet")
        self.assertEqual(plain.stdout, answer["text"] + "\n")
        self.assertEqual(plain.stderr, "")
        self.assertIn(answer["stop"], ("end", "length"))
        self.assertLessEqual(answer["generated_tokens"], 40)
        self.assertGreater(answer["prompt_tokens"], 20)  # the template's own words are among them

    def test_standard_input_is_the_prompt(self):
        piped = e2e.mneme("run", self.model, "--temp", "0", "-n", "20", stdin="What is the capital of France?\n")
        given = e2e.mneme("run", self.model, "--temp", "0", "-n", "20", "-p", "What is the capital of France?")
        at = e2e.mneme("run", self.model, "--temp", "0", "-n", "20", "-p", "@-", stdin="What is the capital of France?")
        self.assertEqual(piped.returncode, 0, piped.stderr)
        self.assertEqual(piped.stdout, given.stdout)
        self.assertEqual(at.stdout, given.stdout)

    def test_system_message_changes_the_prompt(self):
        plain = e2e.mneme_json("run", self.model, "-p", "Hi", "-n", "1")
        told = e2e.mneme_json("run", self.model, "-p", "Hi", "-n", "1", "--system", "You are a pirate who speaks of the sea. " * 5)
        self.assertGreater(told["prompt_tokens"], plain["prompt_tokens"] + 20)


class UsageTest(unittest.TestCase):
    def assertUsage(self, ran, words):
        self.assertEqual(ran.returncode, 2, ran.stderr)
        self.assertEqual(len(ran.stderr.splitlines()), 1, ran.stderr)
        self.assertIn(words, ran.stderr)
        self.assertEqual(ran.stdout, "")

    def test_empty_input_is_wrong_usage(self):
        self.assertUsage(e2e.mneme("run", "x.gguf", stdin=""), "standard input is empty")
        self.assertUsage(e2e.mneme("run", "x.gguf", stdin="\n"), "standard input is empty")
        self.assertUsage(e2e.mneme("run", "x.gguf", "-p", ""), "the prompt is empty")

    def test_the_model_is_given_once(self):
        self.assertUsage(e2e.mneme("run", "x.gguf", "--model", "y.gguf", "-p", "Hi"), "given twice")

    def test_a_missing_model_is_one_line(self):
        ran = e2e.mneme("run", "/nowhere/x.gguf", "-p", "Hi")
        self.assertEqual(ran.returncode, 1)
        self.assertEqual(len(ran.stderr.splitlines()), 1, ran.stderr)
        self.assertIn("/nowhere/x.gguf", ran.stderr)

    def test_the_default_model_is_missing(self):
        with tempfile.TemporaryDirectory() as home:
            ran = e2e.mneme("run", "-p", "Hi", env={"MNEME_HOME": home})
        self.assertEqual(ran.returncode, 1)
        self.assertIn("./run.sh", ran.stderr)


class ConversationTest(unittest.TestCase):
    def setUp(self):
        self.model = e2e.real_model()
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="mneme chat "))
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)

    def start(self, *arguments):
        terminal = Terminal("run", self.model, *(arguments or ("--temp", "0", "-n", "48")), env={"MNEME_HOME": self.home})
        self.addCleanup(terminal.close)
        terminal.wait_prompt()
        return terminal

    def test_a_conversation(self):
        terminal = self.start()
        self.assertIn("resident", terminal.shown)
        terminal.line("What is the capital of France?")
        terminal.wait_prompt()
        first = terminal.answers.decode()
        self.assertGreater(len(first.strip()), 10)
        terminal.line("And of Italy?")
        terminal.wait_prompt()
        self.assertGreater(len(terminal.answers.decode()), len(first) + 10)
        terminal.line("/stats")
        terminal.wait_prompt()
        kept = int(re.search(r"prompt tokens, (\d+) of them kept", terminal.shown).group(1))
        self.assertGreater(kept, 20)  # the first turn was not read again
        saved = self.home / "talk.json"
        terminal.line(f"/save {saved}")
        terminal.wait_prompt()
        messages = json.loads(saved.read_text())["messages"]
        self.assertEqual([m["role"] for m in messages], ["user", "assistant", "user", "assistant"])
        self.assertEqual([messages[0]["content"], messages[2]["content"]], ["What is the capital of France?", "And of Italy?"])
        self.assertEqual(f"{messages[1]['content']}\n{messages[3]['content']}\n", terminal.answers.decode())
        terminal.line("/reset")
        terminal.wait_prompt()
        terminal.line(f"/load {saved}")
        terminal.wait_prompt()
        self.assertIn("loaded 4 messages", terminal.shown)
        terminal.line("/quit")
        self.assertEqual(terminal.exit_code(), 0)
        # The next conversation has the history of this one.
        history = (self.home / "state" / "chat_history").read_text().splitlines()
        self.assertEqual(history[:2], ["What is the capital of France?", "And of Italy?"])
        again = self.start()
        again.type("\x1b[A")  # arrow up
        again.wait_for(lambda: "/quit" in again.shown[again.mark:], "the last entry")
        again.type("\x15\x04")  # clear the line, then the end of input
        self.assertEqual(again.exit_code(), 0)

    def test_the_answer_equals_one_without_kept_state(self):
        terminal = self.start()
        terminal.line("Name three colours.")
        terminal.wait_prompt()
        terminal.line("Which is the brightest?")
        terminal.wait_prompt()
        saved = self.home / "a.json"
        terminal.line(f"/save {saved}")
        terminal.wait_prompt()
        terminal.line("/quit")
        self.assertEqual(terminal.exit_code(), 0)
        first = json.loads(saved.read_text())["messages"]
        # A fresh process that loads the first turn and asks the second reads everything anew.
        start = self.home / "start.json"
        start.write_text(json.dumps(first[:2]))
        fresh = self.start()
        fresh.line(f"/load {start}")
        fresh.wait_prompt()
        fresh.line("Which is the brightest?")
        fresh.wait_prompt()
        fresh.line(f"/save {self.home / 'b.json'}")
        fresh.wait_prompt()
        self.assertEqual(json.loads((self.home / "b.json").read_text())["messages"][2]["content"], first[2]["content"])
        self.assertEqual(json.loads((self.home / "b.json").read_text())["messages"][3]["content"][:40], first[3]["content"][:40])

    def test_several_lines_make_one_turn(self):
        terminal = self.start()
        for line in ('"""', "What is the capital", "of France?", '"""'):
            terminal.line(line)
            time.sleep(0.3)
        terminal.wait_prompt()
        once = e2e.mneme("run", self.model, "--temp", "0", "-n", "48", "-p", "What is the capital\nof France?")
        self.assertEqual(terminal.answers.decode(), once.stdout)

    def test_ctrl_c_stops_the_answer_and_twice_leaves(self):
        terminal = self.start("-n", "4000", "--temp", "1.5", "--top-k", "0")
        terminal.line("Write a very long story about a ship.")
        terminal.wait_for(lambda: len(terminal.answers) > 20, "the beginning of the answer")
        terminal.type("\x03")
        terminal.wait_prompt(seconds=10)
        terminal.line("/stats")
        terminal.wait_prompt()
        self.assertIn("stop: cancelled", terminal.shown)
        terminal.type("\x03")
        terminal.wait_for(lambda: "Ctrl-C again" in terminal.shown, "the hint")
        terminal.wait_prompt()
        terminal.type("\x03")
        self.assertEqual(terminal.exit_code(), 130)

    def test_an_unknown_command_is_explained(self):
        terminal = self.start()
        terminal.line("/hlep")
        terminal.wait_prompt()
        self.assertIn("no command /hlep", terminal.shown)
        self.assertIn("/help", terminal.shown)
        terminal.line("/quit")
        self.assertEqual(terminal.exit_code(), 0)


if __name__ == "__main__":
    e2e.main()
