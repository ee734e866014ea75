"""Experts divided among processes by mpirun, from outside: the text of one process whatever the coding, bytes counted, processes that are killed,
stopped or disagree, and hosts in network namespaces of their own."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import e2e
import mpi
import train_fixture

MODELS = e2e.TOP / "tests" / "data" / "models"
PLUGIN = pathlib.Path(e2e.MNEME).parent / "libmneme_mpi.so"
ADDRESSES = ["10.213.78.1", "10.213.78.2"]  # of the test's own namespaces
PROMPT = ("--ids", "5,70,8,101,44,3,250,17,9,33,60,12", "-n", "24", "--temp", "0", "--ignore-eos")


@unittest.skipIf(mpi.missing(), mpi.missing())
@unittest.skipUnless(PLUGIN.exists(), "libmneme_mpi.so was not built: MPI is not installed (libopenmpi-dev)")
class UnderMpirun(unittest.TestCase):
    def setUp(self):
        self.top = pathlib.Path(tempfile.mkdtemp(prefix="mneme-ranks-"))
        self.addCleanup(shutil.rmtree, self.top, ignore_errors=True)

    def run_ranks(self, count, *arguments, timeout=120):
        return subprocess.run(mpi.mpirun("-n", count, e2e.MNEME, *arguments), capture_output=True, text=True, timeout=timeout, env=mpi.environment(),
                              stdin=subprocess.DEVNULL)

    def json_of(self, count, *arguments):
        ran = self.run_ranks(count, *arguments, "--json")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        return json.loads(ran.stdout)

    def start(self, *command):
        # What it says goes to a file: parts of mpirun that outlive it would hold a pipe open.
        with open(self.top / "said", "w") as said:
            process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, env=mpi.environment())
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.kill()
        process.wait()

    def long_run(self, count, *options, launcher=()):
        """A run of a minute, and {rank: pid} once it is under way."""
        text = self.top / "text.txt"
        train_fixture.write_text(text, 60000, 1)
        process = self.start(*mpi.mpirun(*launcher, "-n", count), e2e.MNEME, "perplexity", MODELS / "mixtral", text, "--ctx", 32, "--lost-after", 3, *options)
        end = time.time() + 30
        while time.time() < end and len(mpi.ranks_of(process.pid)) < count:
            time.sleep(0.05)
        time.sleep(3)
        self.assertIsNone(process.poll(), "it ended early")
        return process, mpi.ranks_of(process.pid)

    def finish(self, process, within):
        began = time.time()
        try:
            process.wait(within)
        except subprocess.TimeoutExpired:
            self.fail(f"it hangs: {(self.top / 'said').read_text()[-800:]}")
        said = (self.top / "said").read_text()
        self.assertNotEqual(process.returncode, 0, said)
        return said, time.time() - began


class Texts(UnderMpirun):
    def test_any_number_of_processes_and_any_coding_give_the_text_of_one(self):
        for model, options, codings in (("mixtral", ["--type", "q8_0"], {"auto": "int8", "float": "float"}),
                                        ("dots1", ["--type", "q8_0", "--activation", "spike"], {"auto": "spike", "float": "float"}),
                                        ("qwen2_moe", [], {"auto": "float"})):
            alone = e2e.mneme_json("generate", MODELS / model, *PROMPT, *options)
            self.assertNotIn("experts", alone)
            self.assertEqual(alone["generated_tokens"], 24)
            for count in (2, 4):
                for coding, used in codings.items():
                    with self.subTest(model=model, processes=count, coding=coding):
                        many = self.json_of(count, "generate", MODELS / model, *PROMPT, *options, "--expert-messages", coding)
                        self.assertEqual(many["text"], alone["text"])
                        traffic = many["experts"]
                        self.assertEqual((traffic["processes"], traffic["messages"]), (count, used))
                        self.assertEqual(traffic["tokens"], 12 + 23)
                        self.assertGreater(traffic["returned_bytes_per_token"], 0)
                        self.assertLess(traffic["experts_away"], 1)
                        self.assertEqual("entropy_bits" in traffic, used == "spike")

    def test_logits_are_equal_to_the_bit(self):
        arguments = ("logits", MODELS / "qwen3_moe", "--ids", "5,70,8,101", "--all", "--type", "q4_0", "--activation", "spike:k=1.5")
        self.assertEqual(self.json_of(3, *arguments), e2e.mneme_json(*arguments))

    def test_perplexity_is_equal_and_counts(self):
        text = self.top / "text.txt"
        train_fixture.write_text(text, 40, 1)
        arguments = ("perplexity", MODELS / "mixtral", text, "--ctx", "32", "--type", "q8_0", "--activation", "spike")
        many, alone = self.json_of(2, *arguments), e2e.mneme_json(*arguments)
        traffic = many.pop("experts")
        self.assertEqual(many, alone)
        self.assertLess(traffic["of_int8"], 0.75)  # of rows of 64 numbers, whose scales weigh less in int8
        self.assertAlmostEqual(traffic["coded_bits"], traffic["entropy_bits"], delta=0.5)
        self.assertGreater(traffic["silent"], 0.02)

    def test_words_say_what_travelled(self):
        ran = self.run_ranks(2, "generate", MODELS / "mixtral", *PROMPT, "--type", "q8_0", "--activation", "spike")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertRegex(ran.stderr, r"process 1 of 2 serves experts, [\d.]+ kB resident")
        self.assertRegex(ran.stderr, r"experts in 2 processes: a token sent .* of rows as spike \([\d.]+ % of int8's .* came back")
        self.assertRegex(ran.stderr, r"k/M 50.0 %: in a layer a token went to [\d.]+ of 1 other processes")
        self.assertRegex(ran.stderr, r"spike counts: [\d.]+ % silent, entropy [\d.]+ bits, sent in [\d.]+ bits a count")

    def test_one_process_of_mpirun_is_as_none(self):
        self.assertNotIn("experts", self.json_of(1, "generate", MODELS / "mixtral", *PROMPT))


class Failures(UnderMpirun):
    def test_a_killed_process_ends_the_others_with_a_reason(self):
        process, ranks = self.long_run(3)
        os.kill(ranks[1], signal.SIGKILL)
        said, seconds = self.finish(process, 30)
        self.assertLess(seconds, 15)
        self.assertIn("signal 9", said)  # mpirun's own words
        end = time.time() + 10
        while time.time() < end and any(pathlib.Path(f"/proc/{pid}").exists() for pid in ranks.values()):
            time.sleep(0.1)
        self.assertFalse([pid for pid in ranks.values() if pathlib.Path(f"/proc/{pid}").exists()])

    def test_a_stopped_process_is_lost_without_the_launchers_help(self):
        process, ranks = self.long_run(3)
        os.kill(ranks[2], signal.SIGSTOP)
        said, _ = self.finish(process, 40)
        self.assertIn("process 2 of 3 was lost: no sign of life for 3 s", said)

    def test_processes_that_disagree_on_the_model_say_so(self):
        def both(*options):
            one = [e2e.MNEME, "generate", MODELS / "mixtral", *PROMPT]
            return subprocess.run(mpi.mpirun("-n", 1, *one, ":", "-n", 1, *options), capture_output=True, text=True, timeout=60, env=mpi.environment(), stdin=subprocess.DEVNULL)
        for second, about in (([e2e.MNEME, "generate", MODELS / "olmoe", *PROMPT], "the model"),
                              ([e2e.MNEME, "generate", MODELS / "mixtral", *PROMPT, "--type", "q8_0"], "--type"),
                              ([e2e.MNEME, "generate", MODELS / "mixtral", *PROMPT, "--activation", "int8"], "--activation"),
                              ([e2e.MNEME, "generate", MODELS / "mixtral", *PROMPT, "--expert-messages", "float"], "--expert-messages")):
            ran = both(*second)
            with self.subTest(about):
                self.assertNotEqual(ran.returncode, 0)
                self.assertEqual(ran.stdout, "")
                for begin in ("mneme: error: process 1 of 2 disagrees", "mneme: error: process 0 of 2 gave up: process 1 of 2 disagrees"):
                    self.assertRegex(ran.stderr, f"{begin} with process 0 on {about}")

    def test_an_error_of_one_is_said_by_all(self):
        ran = subprocess.run(mpi.mpirun("-n", 1, e2e.MNEME, "generate", MODELS / "mixtral", *PROMPT, ":", "-n", 1, e2e.MNEME, "generate", self.top / "gone.gguf", *PROMPT),
                             capture_output=True, text=True, timeout=60, env=mpi.environment(), stdin=subprocess.DEVNULL)
        self.assertNotEqual(ran.returncode, 0)
        self.assertRegex(ran.stderr, r"mneme: error: process 1 of 2 gave up: .*gone\.gguf")
        self.assertRegex(ran.stderr, r"mneme: error: (?!process).*gone\.gguf")

    def test_models_and_codings_that_do_not_fit_are_refused(self):
        for arguments, says in (((MODELS / "llama", *PROMPT), "has no experts that 2 processes could divide"),
                                ((MODELS / "mixtral", *PROMPT, "--activation", "float", "--expert-messages", "spike"), "would change the text; use --expert-messages float"),
                                ((MODELS / "mixtral", "--ids", "1,99999"), "99999"),
                                # Before the model is looked at.
                                ((self.top / "gone.gguf", *PROMPT, "--experts", "mmap"), "are held in memory; leave out --experts mmap")):
            ran = self.run_ranks(2, "generate", *arguments)
            with self.subTest(says):
                self.assertNotEqual(ran.returncode, 0)
                self.assertEqual(ran.stdout, "")
                self.assertIn(says, ran.stderr)

    def test_without_the_library_it_says_how_to_get_it(self):
        program = self.top / "mneme"
        shutil.copy2(e2e.MNEME, program)
        ran = subprocess.run([program, "generate", MODELS / "mixtral", *PROMPT], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                             env=mpi.environment() | {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"})
        self.assertEqual(ran.returncode, 1)
        self.assertRegex(ran.stderr, r"^mneme: error: this is one of 2 processes of mpirun, but libmneme_mpi\.so.*libopenmpi-dev")


class Hosts(UnderMpirun):
    def setUp(self):
        super().setUp()
        self.hosts = mpi.TwoHosts(self, self.top, ADDRESSES)

    def command(self, *arguments):
        return [str(w) for w in (*self.hosts.command(), e2e.MNEME, *arguments)]

    def test_two_hosts_give_the_text_of_one(self):
        arguments = ("generate", MODELS / "dots1", *PROMPT, "--type", "q8_0", "--activation", "spike", "--json")
        ran = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=120, env=mpi.environment(), stdin=subprocess.DEVNULL)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual(json.loads(ran.stdout)["text"], e2e.mneme_json(*arguments[:-1])["text"])
        self.assertGreater(self.hosts.bytes_sent(), 35 * json.loads(ran.stdout)["experts"]["sent_bytes_per_token"])

    def test_a_pulled_cable_ends_the_run(self):
        text = self.top / "text.txt"
        train_fixture.write_text(text, 60000, 1)
        process = self.start(*self.command("perplexity", MODELS / "mixtral", text, "--ctx", 32, "--lost-after", 3))
        time.sleep(6)
        self.assertIsNone(process.poll(), "it ended early")
        self.hosts.pull_the_cable()
        end = time.time() + 30  # mpirun itself waits for its own part on the second host; process 0 does not
        while time.time() < end and "process 1 of 2 was lost: no sign of life for 3 s" not in (self.top / "said").read_text():
            time.sleep(0.1)
        self.assertIn("process 1 of 2 was lost: no sign of life for 3 s", (self.top / "said").read_text())


if __name__ == "__main__":
    e2e.main()
