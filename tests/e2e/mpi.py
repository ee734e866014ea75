"""What tests that run the program under mpirun share: its command line, the environment, who was started, and two hosts in network namespaces."""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import unittest


def missing():
    """Why mpirun cannot be used here, or ""."""
    return "" if shutil.which("mpirun") else "there is no mpirun (openmpi-bin)"


def environment():
    """Nothing of a launcher that the test itself may run under; Open MPI does not free everything at its end."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_", "PMI_"))}
    return kept | {"ASAN_OPTIONS": "detect_leaks=0:" + os.environ.get("ASAN_OPTIONS", "")}


def mpirun(*words):
    """A command line. Processes may be more than cores, and the test may be root in a container."""
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", *map(str, words)]


def ranks_of(pid):
    """{rank: pid} of the processes that mpirun `pid` started."""
    out = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for variable in variables:
            if parent == pid and variable.startswith(b"OMPI_COMM_WORLD_RANK="):
                out[int(variable.partition(b"=")[2])] = int(entry.name)
    return out


def ip(*words):
    ran = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20)
    if ran.returncode:
        raise OSError(f"ip {' '.join(words)}: {ran.stderr.strip()}")


class TwoHosts:
    """Two hosts that see each other over one cable only; skips the test where they cannot be made. mpirun reaches the second as it reaches others by ssh: by
    a program that gets a host and a command; here it enters the namespace."""

    def __init__(self, test, folder, addresses):
        if not shutil.which("ip") or not shutil.which("unshare"):
            raise unittest.SkipTest("there is no ip or unshare command (iproute2, util-linux)")
        self.addresses = addresses
        self.names = [f"mneme-ranks-{os.getpid()}-{i}" for i in (0, 1)]
        try:
            for name in self.names:
                ip("netns", "add", name)
                test.addCleanup(self.remove, name)
            ip("link", "add", "cable", "netns", self.names[0], "type", "veth", "peer", "name", "cable", "netns", self.names[1])
            for name, address in zip(self.names, addresses):
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "addr", "add", f"{address}/30", "dev", "cable")
                ip("-n", name, "link", "set", "cable", "up")
        except OSError as error:
            raise unittest.SkipTest(f"network namespaces cannot be made here: {error}") from None
        self.agent = pathlib.Path(folder) / "agent.sh"
        self.agent.write_text(f"#!/bin/sh\nshift\nexec ip netns exec {self.names[1]} unshare --uts sh -c \"hostname mneme-host-1; $*\"\n")
        self.agent.chmod(0o755)

    def command(self, *words):
        """One process on each host."""
        hosts = ",".join(f"{a}:1" for a in self.addresses)
        return ["ip", "netns", "exec", self.names[0], "unshare", "--uts", "sh", "-c", 'hostname mneme-host-0; exec "$@"', "sh",
                *mpirun("--mca", "plm_rsh_agent", self.agent, "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "cable", "--mca", "oob_tcp_if_include", "cable",
                        "--host", hosts, "-n", 2, *words)]

    @staticmethod
    def remove(name):
        """With what still runs there: nobody tells the second host's part of mpirun that it is over when the cable is out."""
        for pid in subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split():
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def pull_the_cable(self):
        ip("-n", self.names[1], "link", "set", "cable", "down")

    def bytes_sent(self):
        return int(subprocess.run(["ip", "netns", "exec", self.names[0], "cat", "/sys/class/net/cable/statistics/tx_bytes"], capture_output=True, text=True, check=True).stdout)
