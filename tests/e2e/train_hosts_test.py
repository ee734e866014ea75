#!/usr/bin/env python3
"""Training in several processes, from outside: the same losses as one process, resume, lost processes, and hosts in network namespaces of their own."""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import e2e
import train_fixture

STEPS = 20
# A constant schedule, so that a run may be resumed with more steps. Adam divides by the size of gradients: with a tiny eps it turns the rounding of
# gradients that are almost zero into whole steps, and runs whose sums have another order part after a dozen steps.
RUN = {"steps": STEPS, "schedule": {"type": "constant", "warmup": 2}, "optimiser": {"lr": 0.003, "eps": 1e-5, "rows": {"eps": 1e-5}}}
ADDRESSES = ["10.213.77.1", "10.213.77.2"]  # of the test's own namespaces


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def finish(process, timeout=180):
    """(exit code, stderr) of a process that should end by itself."""
    try:
        return process.wait(timeout), process.communicate()[1]
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"did not end within {timeout} s: {process.communicate()[1][-500:]}") from None


def wait_for_step(out, step, process, timeout=180):
    """Returns once log.jsonl holds that step."""
    end = time.time() + timeout
    while time.time() < end:
        if (out / "log.jsonl").exists() and step in train_fixture.losses(out)[0]:
            return
        if process.poll() is not None:
            raise AssertionError(f"ended early: {process.communicate()[1][-500:]}")
        time.sleep(0.02)
    raise AssertionError(f"step {step} did not come within {timeout} s")


def children_of(pid):
    return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Runs(unittest.TestCase):
    def setUp(self):
        if not train_fixture.available():
            self.skipTest("mneme-train was not built: libtorch is not installed")
        self.top = pathlib.Path(tempfile.mkdtemp(prefix="mneme-hosts-"))
        self.addCleanup(shutil.rmtree, self.top, ignore_errors=True)
        self.config = train_fixture.write_run(self.top, **RUN)
        self.processes = []
        self.addCleanup(self.end_all)

    def end_all(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
            process.stderr.close()

    def start(self, *arguments, **options):
        process = train_fixture.start(self.config, *arguments, **options)
        self.processes.append(process)
        return process

    def train(self, name, *arguments, **options):
        """A whole run into a folder of its own; its losses."""
        code, said = finish(self.start("--out", self.top / name, *arguments, **options))
        self.assertEqual(code, 0, said)
        return train_fixture.losses(self.top / name)

    def assert_close(self, many, one):
        """Only the order of sums may differ. Up to step 10 that is a matter of the last bits; later the memory's signed root, whose slope
        has no bound at zero, makes them grow."""
        self.assertEqual(many[0].keys(), one[0].keys())
        for step, (loss, norm) in one[0].items():
            tolerance = 1e-6 if step <= 10 else 2e-3
            self.assertLess(abs(many[0][step][0] / loss - 1), tolerance, f"loss of step {step}")
            self.assertLess(abs(many[0][step][1] / norm - 1), 20 * tolerance, f"gradient norm of step {step}")
        for step, loss in one[1].items():
            self.assertLess(abs(many[1][step] / loss - 1), 2e-3, f"validation at step {step}")


class Processes(Runs):
    def test_many_processes_give_the_losses_of_one(self):
        one = self.train("one")
        self.assertEqual(len(one[0]), STEPS)
        self.assertLess(one[0][STEPS][0], 0.9 * one[0][1][0])
        for n in (2, 4):
            many = self.train(f"{n}", "--processes", n)
            self.assert_close(many, one)
        self.assertEqual(self.train("again", "--processes", 4), many)  # to the bit

    def test_checkpoints_are_whole_and_resume_to_the_bit(self):
        whole = self.train("whole", "--processes", 2)
        self.train("parts", "--processes", 2, "--steps", 10)
        parts = self.train("parts", "--processes", 2, "--steps", STEPS, "--resume")
        self.assertEqual((parts[0], parts[1][STEPS]), (whole[0], whole[1][STEPS]))  # the part validates at its own end, too
        # The same files, memory table included; and another number of processes can go on from them.
        name = f"step-{STEPS:08d}"
        for file in ("model.safetensors", "facts.engram", "optimiser.safetensors"):
            self.assertEqual((self.top / "whole" / name / file).read_bytes(), (self.top / "parts" / name / file).read_bytes(), file)
        self.train("fewer", "--processes", 2, "--steps", 10)
        self.assert_close(self.train("fewer", "--resume"), whole)

    def test_a_killed_process_ends_the_run_and_resume_goes_on(self):
        out = self.top / "out"
        process = self.start("--out", out, "--processes", 3, "--steps", 4000)  # 8 sequences: 3 do not divide them
        code, said = finish(process)
        self.assertEqual((code, "cannot divide evenly" in said), (1, True), said)
        process = self.start("--out", out, "--processes", 2, "--steps", 4000)
        wait_for_step(out, 12, process)
        children = children_of(process.pid)
        self.assertEqual(len(children), 1)
        os.kill(children[0], signal.SIGKILL)
        began = time.time()
        code, said = finish(process, 30)
        self.assertLess(time.time() - began, 15)
        self.assertEqual(code, 1)
        self.assertRegex(said, r"process 1 of 2 was lost at step \d+: its connection closed; .*--resume")
        self.assertRegex(said, r"process 1 of 2 was ended by signal 9")
        self.assertFalse([c for c in children if running(c)])
        done = json.loads((out / (out / "latest").read_text().strip() / "state.json").read_text())["step"]
        self.assertGreaterEqual(done, 10)
        code, said = finish(self.start("--out", out, "--processes", 2, "--steps", done + 6, "--resume"))
        self.assertEqual(code, 0, said)
        self.assertEqual(max(train_fixture.losses(out)[0]), done + 6)

    def test_children_end_with_the_first_process(self):
        out = self.top / "out"
        process = self.start("--out", out, "--processes", 2, "--steps", 4000)
        wait_for_step(out, 3, process)
        children = children_of(process.pid)
        process.kill()
        end = time.time() + 10
        while time.time() < end and any(running(c) for c in children):
            time.sleep(0.05)
        self.assertFalse([c for c in children if running(c)])

    def test_an_interrupt_saves_first(self):
        out = self.top / "out"
        process = self.start("--out", out, "--processes", 2, "--steps", 4000)
        wait_for_step(out, 3, process)
        process.send_signal(signal.SIGINT)  # to the first alone
        code, said = finish(process, 30)
        self.assertEqual(code, 130, said)
        self.assertIn("--resume goes on", said)
        self.assertTrue((out / "latest").exists())


    def test_no_process_holds_a_whole_table(self):
        # 77 MB of rows and 176 MB of their optimiser's state: at the start, in training, for samples and while a checkpoint is written.
        model = train_fixture.MODEL | {"tables": {"facts": train_fixture.MODEL["tables"]["facts"] | {"head_dim": 64, "base_rows": [75011, 75013]}}}
        train_fixture.write_run(self.top, **(RUN | {"model": model, "steps": 2, "schedule": {"type": "constant", "warmup": 0}, "validate": None, "save": {"every": 0}, "samples": {"every": 2, "prompts": ["the"], "tokens": 3}}))
        peaks = []
        for n in (1, 2):
            process = self.start("--out", self.top / f"{n}", "--processes", n)
            said = process.stderr.read()
            _, status, used = os.wait4(process.pid, 0)  # the most of this process or of one that it has waited for
            process.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(process.returncode, 0, said)
            peaks.append(used.ru_maxrss >> 10)
        self.assertLess(peaks[1], peaks[0] - 40, "MiB")
        self.assert_close(train_fixture.losses(self.top / "2"), train_fixture.losses(self.top / "1"))
        samples = [[l["sample"] for l in train_fixture.log(self.top / name) if "sample" in l] for name in ("1", "2")]
        self.assertEqual(len(samples[0]), 1)
        self.assertEqual(samples[0], samples[1])
        for name in ("facts.engram", "optimiser.safetensors"):  # the order of sums moves the values, not the files' sizes
            self.assertEqual(*((self.top / n / "step-00000002" / name).stat().st_size for n in ("1", "2")))

    def test_a_table_of_a_checkpoint_reaches_all_parts(self):
        self.train("start", "--steps", 5)
        (self.top / "start/step-00000005").rename(self.top / "begin")
        self.config = train_fixture.write_run(self.top, **(RUN | {"model": "begin", "tokenizer": None, "steps": 4}))
        self.assert_close(self.train("two", "--processes", 2), self.train("one"))

    def test_where_it_stopped_being_a_number_is_said_by_the_first(self):
        config = {"optimiser": {"lr": 1e25, "clip": 0}, "schedule": {"type": "constant", "warmup": 0}}
        self.config = train_fixture.write_run(self.top, **(RUN | config))
        code, said = finish(self.start("--out", self.top / "out", "--processes", 2))
        self.assertEqual(code, 1)
        self.assertRegex(said, r"step \d+: the (loss|norm of the gradients) is not a finite number; it began in the (output of layer|logits|gradient)")


class Environments(Runs):
    def test_variables_of_launchers(self):
        port = free_port()
        one = self.train("one", "--steps", 5)
        for kind, extra in (({"rank": "RANK", "size": "WORLD_SIZE"}, {"MASTER_ADDR": "127.0.0.1"}),
                            ({"rank": "OMPI_COMM_WORLD_RANK", "size": "OMPI_COMM_WORLD_SIZE"}, {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"})):
            out = self.top / kind["rank"]
            processes = [self.start("--out", out, "--steps", 5, env=os.environ | extra | {kind["rank"]: str(rank), kind["size"]: "2", "MASTER_PORT": str(port)})
                         for rank in (0, 1)]
            for process in processes:
                code, said = finish(process)
                self.assertEqual(code, 0, said)
            self.assert_close(train_fixture.losses(out), one)

    def test_what_does_not_fit_is_said(self):
        port = free_port()
        hosts = ["--hosts", "127.0.0.1,127.0.0.1", "--port", port]
        for arguments, words in ((["--hosts", "127.0.0.1,127.0.0.1"], "--hosts needs --rank"),
                                 (["--rank", 1], "give --hosts"),
                                 ([*hosts, "--rank", 2], "there is no process 2 among 2"),
                                 (["--hosts", "192.0.2.1,192.0.2.2", "--rank", 0], "is no address of this machine"),
                                 (["--hosts", "no.such.host.invalid,127.0.0.1", "--rank", 1], "is no host"),
                                 ([*hosts, "--rank", 1, "--processes", 2], "give one of them"),
                                 ([*hosts, "--rank", 0, "--join-timeout", 1], "still misses process 1 of 2"),
                                 ([*hosts, "--rank", 1, "--join-timeout", 1], "could not join process 0")):
            code, said = finish(self.start("--out", self.top / "no", *arguments))
            self.assertEqual(code, 1, said)
            self.assertIn(words, said)
            self.assertEqual(len(said.strip().splitlines()), 1, said)
        first = self.start("--out", self.top / "yes", "--rank", 0, "--steps", 3, *hosts)
        for arguments, words in ((["--hosts", "127.0.0.1,127.0.0.1,127.0.0.1", "--port", port, "--rank", 2, "--steps", 3], "it was started for 2 processes, process 2 for 3"),
                                 ([*hosts, "--rank", 1, "--steps", 4], "version and config must be the same")):
            code, said = finish(self.start(*arguments))
            self.assertEqual((code, words in said), (1, True), said)
        second = self.start("--out", self.top / "other", "--rank", 1, "--steps", 3, *hosts)
        for process in (first, second):
            code, said = finish(process)
            self.assertEqual(code, 0, said)

    def test_another_model_is_refused(self):
        other = self.top / "elsewhere"
        other.mkdir()
        configs = [train_fixture.write_run(folder, **(RUN | {"model": "model.json"})) for folder in (self.top, other)]
        for folder, eps in ((self.top, 1e-6), (other, 1e-3)):
            (folder / "model.json").write_text(json.dumps(train_fixture.MODEL | {"norm": {"eps": eps}}))
        arguments = ["--hosts", "127.0.0.1,127.0.0.1", "--port", free_port()]
        processes = []
        for rank, config in enumerate(configs):
            self.config = config
            processes.append(self.start("--out", self.top / f"rank{rank}", "--rank", rank, *arguments))
        for process in processes:
            code, said = finish(process)
            self.assertEqual(code, 1)
            self.assertIn("the model of process 1 is not that of process 0", said)

    def test_other_data_is_refused(self):
        other = self.top / "elsewhere"
        other.mkdir()
        config = train_fixture.write_run(other, **RUN)
        with open(other / "train.txt", "a") as text:
            text.write("one more sentence that the first process does not have.\n")
        arguments = ["--hosts", "127.0.0.1,127.0.0.1", "--port", free_port()]
        first = self.start("--out", self.top / "a", "--rank", 0, *arguments)
        self.config = config
        second = self.start("--out", self.top / "b", "--rank", 1, *arguments)
        for process in (first, second):
            code, said = finish(process)
            self.assertEqual(code, 1)
            self.assertIn("the data or tokenizer of process 1 is not that of process 0", said)


def ip(*words):
    ran = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20)
    if ran.returncode:
        raise OSError(f"ip {' '.join(words)}: {ran.stderr.strip()}")


class Hosts(Runs):
    """Two hosts that see each other over one cable only, each with files of its own."""

    def setUp(self):
        super().setUp()
        if not shutil.which("ip"):
            self.skipTest("there is no ip command (iproute2)")
        self.names = [f"mneme-{os.getpid()}-{i}" for i in (0, 1)]
        try:
            for name in self.names:
                ip("netns", "add", name)
                self.addCleanup(subprocess.run, ["ip", "netns", "del", name], capture_output=True)
            ip("link", "add", "cable", "netns", self.names[0], "type", "veth", "peer", "name", "cable", "netns", self.names[1])
            for name, address in zip(self.names, ADDRESSES):
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "addr", "add", f"{address}/30", "dev", "cable")
                ip("-n", name, "link", "set", "cable", "up")
        except OSError as error:
            self.skipTest(f"network namespaces cannot be made here: {error}")

    def start_on(self, host, rank, *arguments):
        """One process in a namespace; `mneme train` becomes the trainer, and `ip netns exec` becomes mneme."""
        process = subprocess.Popen(["ip", "netns", "exec", self.names[host], e2e.MNEME, "train", str(self.config), "--out", str(self.top / f"host{host}"),
                                    "--hosts", ",".join(ADDRESSES), "--rank", str(rank), *map(str, arguments)],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def test_two_hosts_train_as_one_process(self):
        one = self.train("one")
        whole = [self.start_on(h, h) for h in (0, 1)]
        for process in whole:
            code, said = finish(process)
            self.assertEqual(code, 0, said)
        self.assert_close(train_fixture.losses(self.top / "host0"), one)
        self.assertFalse((self.top / "host1" / "latest").exists())  # process 0 alone saves

    def test_a_run_is_resumed_on_hosts_that_share_no_files(self):
        one = self.train("one")
        for steps in (7, STEPS):
            for process in [self.start_on(h, h, "--resume", "--steps", steps) for h in (0, 1)]:
                code, said = finish(process)
                self.assertEqual(code, 0, said)
        self.assert_close(train_fixture.losses(self.top / "host0"), one)

    def test_a_pulled_cable_ends_both(self):
        processes = [self.start_on(h, h, "--steps", 4000, "--lost-after", 3) for h in (0, 1)]
        wait_for_step(self.top / "host0", 6, processes[0])
        ip("-n", self.names[1], "link", "set", "cable", "down")
        for rank, process in enumerate(processes):
            code, said = finish(process, 30)
            self.assertEqual(code, 1)
            self.assertRegex(said, rf"process {1 - rank} of 2 was lost at step \d+: no sign of life for 3 s; .*--resume")

    def test_a_rank_on_the_wrong_host_is_said(self):
        process = self.start_on(1, 0)
        code, said = finish(process)
        self.assertEqual((code, "is no address of this machine" in said), (1, True), said)


if __name__ == "__main__":
    e2e.main()
