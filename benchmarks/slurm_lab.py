"""A real Slurm to measure against, and jobs in it."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.measure import ROOT, scratch, wait_until
from cvagent.clients.runner import NativeRunner

_FOLDER = Path("/var/tmp/cvagent-lab")  # noqa: S108 - a unix socket's path must be short
_LAB = ROOT / "lab" / "slurm"
_RPC = re.compile(r"^\s+([A-Z_]+)\s+\( *\d+\) count:(\d+)", re.MULTILINE)
_SUBMIT = "seq {jobs} | xargs -P 4 -I% sbatch -Q {hold} -A proj-a -J train-% -o /dev/null job"


class Lab:
    """A lab of two nodes that is up. Its jobs are alice's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin_dir = folder / "bin"
        self._enter = folder / "enter"
        self.home = folder / "home" / "alice"
        (self.home / "job").write_text("#!/bin/sh\ntrue\n")

    def say(self, command: str, *arguments: str) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run([self.bin_dir / command, *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    def hold(self, jobs: int) -> None:
        """Submit so many jobs that stay pending, each with a record of its own in slurmctld."""
        self._as_alice(_SUBMIT.format(jobs=jobs, hold="--hold"))

    def submit(self, script: str) -> str:
        """Submit one job; its id."""
        (self.home / "one").write_text(script)
        return self._as_alice("sbatch --parsable -A proj-a -o /dev/null one").strip()

    def set_hook(self, name: str, script: Path) -> None:
        """Have slurmctld run this one from now on: prologslurmctld, epilogslurmctld."""
        fresh = self.folder / "hooks" / f"{name}.new"
        fresh.symlink_to(script)
        fresh.rename(self.folder / "hooks" / name)

    def pass_through(self, jobs: int) -> None:
        """Submit so many jobs that begin and end at once, and wait for the last."""
        self._as_alice(f"sbatch -Q -A proj-a -o /dev/null --array=1-{jobs} job")
        wait_until(lambda: not self.say("squeue", "-h", "-t", "PD,R,CG"), 120, "end of the jobs")

    def rpcs(self) -> dict[str, int]:
        """How many requests slurmctld has answered, by type."""
        by_type = self.say("sdiag").partition("by message type")[2].partition("by user")[0]
        return {name: int(count) for name, count in _RPC.findall(by_type)}

    def slurmctld(self) -> psutil.Process:
        """Its process: the one in the lab's namespaces."""
        ours = subprocess.run(
            [self._enter, "readlink", "/proc/self/ns/pid"], capture_output=True, text=True, check=True
        )
        return next(
            process
            for process in psutil.process_iter()
            if process.name() == "slurmctld"
            and str(Path(f"/proc/{process.pid}/ns/pid").readlink()) == ours.stdout.strip()
        )

    def _as_alice(self, script: str) -> str:
        words = [self._enter, "-u", "alice", "sh", "-c", script]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout


class RealSlurm(NativeRunner):
    """A `clients.runner.Runner` for the lab's commands, and the machine's clock."""

    cpu_s = 0.0

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab.bin_dir)

    def now(self) -> float:
        """See `ports.Clock`."""
        return time.time()


@contextmanager
def real_slurm(nodes: int = 2) -> Iterator[Lab]:
    """A lab for one measurement; wiped after it."""
    folder = _FOLDER / f"bench-{os.getpid()}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LAB", "SLURM"))}
    # Hundreds of slurmds on a few cores answer late.
    patience_s = 30 if nodes == 2 else 100
    lab = {"LAB": str(folder), "LAB_CPUS": "200", "LAB_GPUS": "0", "LAB_MESSAGE_TIMEOUT": str(patience_s)}
    # slurmdbd as slow to answer as where people have it.
    lab |= {"LAB_QUICK_ACK": "0"}

    def call(*arguments: str) -> None:
        subprocess.run([sys.executable, _LAB, *arguments], env=kept | lab, check=True, stdout=subprocess.DEVNULL)

    try:
        call("up", str(nodes), "--mode", "multi")
        yield Lab(folder)
    finally:
        call("down", "--wipe")
        shutil.rmtree(folder, ignore_errors=True)


def slurm_version() -> str:
    """As squeue says it, which even for that wants a configuration; `none` without Slurm."""
    with scratch() as folder:
        conf = folder / "slurm.conf"
        conf.write_text("ClusterName=none\nSlurmctldHost=none\n")
        try:
            done = subprocess.run(
                ["squeue", "--version"], env={**os.environ, "SLURM_CONF": str(conf)}, capture_output=True, check=True
            )
        except FileNotFoundError:
            return "none"
    return done.stdout.decode().split()[-1]
