"""`mneme train` under mpirun: the losses of one process, a killed rank, and two hosts in network namespaces."""
import os
import signal
import subprocess
import unittest

import e2e
import mpi
import train_fixture
import train_hosts_test as hosts

ADDRESSES = ["10.213.80.1", "10.213.80.2"]  # of the test's own namespaces


@unittest.skipIf(mpi.missing(), mpi.missing())
class TrainUnderMpirun(hosts.Runs):
    def launch(self, command, *arguments, **variables):
        process = subprocess.Popen([*command, e2e.MNEME, "train", str(self.config), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, env=mpi.environment() | {"MASTER_PORT": str(hosts.free_port())} | variables)
        self.processes.append(process)
        return process

    def test_processes_of_mpirun_give_the_losses_of_one(self):
        one = self.train("one")
        code, said = hosts.finish(self.launch(mpi.mpirun("-n", 2), "--out", self.top / "two"))
        self.assertEqual(code, 0, said)
        self.assert_close(train_fixture.losses(self.top / "two"), one)

    def test_a_killed_rank_ends_the_run_and_resume_goes_on(self):
        out = self.top / "out"
        process = self.launch(mpi.mpirun("-n", 2), "--out", out, "--steps", 4000)
        hosts.wait_for_step(out, 12, process)
        ranks = mpi.ranks_of(process.pid)
        self.assertEqual(sorted(ranks), [0, 1])
        os.kill(ranks[1], signal.SIGKILL)
        code, said = hosts.finish(process, 40)
        self.assertNotEqual(code, 0)
        self.assertIn("signal 9", said)  # mpirun names the rank
        self.assertRegex(said, r"process 1 of 2 was lost at step \d+|--resume goes on")
        self.assertFalse([pid for pid in ranks.values() if hosts.running(pid)])
        code, said = hosts.finish(self.launch(mpi.mpirun("-n", 2), "--out", out, "--resume", "--steps", 4000 if not (out / "latest").exists() else
                                              int((out / "latest").read_text().strip().rpartition("-")[2]) + 4))
        self.assertEqual(code, 0, said)

    def test_two_hosts_train_as_one_process(self):
        two = mpi.TwoHosts(self, self.top, ADDRESSES)
        one = self.train("one")
        code, said = hosts.finish(self.launch([*two.command()[:-2], "-x", "MASTER_ADDR", "-x", "MASTER_PORT", "-n", "2"], "--out", self.top / "two", MASTER_ADDR=ADDRESSES[0]))
        self.assertEqual(code, 0, said)
        self.assert_close(train_fixture.losses(self.top / "two"), one)
        self.assertGreater(two.bytes_sent(), 100_000)


if __name__ == "__main__":
    e2e.main()
