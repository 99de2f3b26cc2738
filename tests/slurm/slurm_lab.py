"""A real Slurm for tests: the lab of lab/slurm, held from outside its namespaces."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ClusterShell.NodeSet import NodeSet
from waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ROOT / "lab" / "slurm"
FOLDERS = Path("/var/tmp/cvagent-lab")  # noqa: S108 - a unix socket's path must be short, and users must reach it
RUNNING_STATES = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING")
UP_LIMIT_S = 110
COMMAND_LIMIT_S = 60
ASK = {"TZ": "UTC", "LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"}


@dataclass(frozen=True)
class Run:
    """One run of a job as slurmdbd knows it. Times in epoch seconds; None is not yet, or never."""

    job_id: str
    submitted_at: int
    state: str
    started_at: int | None
    ended_at: int | None
    nodes: tuple[str, ...]


class Lab:
    """One lab. Settings are those of lab/README.md without their `LAB_`, in lower case: `cred_expire=5`."""

    def __init__(self, folder: Path, *, nodes: int = 4, mode: str = "netns", **settings) -> None:
        self.folder = folder
        self.nodes = nodes
        self.mode = mode
        self.settings = {f"LAB_{name.upper()}": str(value) for name, value in settings.items()}

    @property
    def bin_dir(self) -> Path:
        """Slurm's commands, for CVAGENT_SLURM_BIN_DIR."""
        return self.folder / "bin"

    def start(self) -> "Lab":
        """Starts what is not running; again after a test broke something."""
        self._lab("up", str(self.nodes), "--mode", self.mode)
        return self

    def stop(self) -> None:
        """Ends it and removes its folder, with what tests put there."""
        self._lab("down", "--wipe")
        shutil.rmtree(self.folder, ignore_errors=True)

    def daemon(self, action: str, name: str) -> None:
        """stop, start, kill, freeze, thaw or restart; slurmctld, slurmdbd or mariadbd."""
        self._lab("daemon", action, name)

    def node(self, action: str, name: str) -> None:
        """kill, stop, cut, join or start a node."""
        self._lab("node", action, name)

    def hook(self, name: str, script: str) -> None:
        """Replaces prologslurmctld, epilogslurmctld, prolog or epilog."""
        fresh = self.folder / "hooks" / f"{name}.new"
        fresh.write_text(script)
        fresh.chmod(0o755)
        fresh.rename(self.folder / "hooks" / name)

    def slurm(self, command: str, *arguments: str, check: bool = True) -> str:
        """Runs one of Slurm's commands from outside, as the agent does, and returns what it printed."""
        done = subprocess.run(
            [self.bin_dir / command, *arguments],
            env={**os.environ, **ASK},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_LIMIT_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command} {arguments}: {done.returncode}, {done.stderr}"
        return done.stdout

    def run(self, *command: str | bytes, user: str = "root", node: str | None = None, stdin: str = "") -> str:
        """Runs a command inside the lab, on the controller or a node, and returns what it printed."""
        place = ["-u", user] if user != "root" else []
        place += ["-n", node] if node else []
        done = subprocess.run(
            [self.folder / "enter", *place, *command],
            input=stdin,
            env={**os.environ, **ASK},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.returncode}, {done.stderr}"
        return done.stdout

    def submit(self, *options: str | bytes, script: str = "sleep 300", user: str = "alice") -> str:
        """Submits a batch job with the lines of a shell script, and returns its id (of an array: the array's)."""
        said = self.run(
            "sbatch", "--parsable", "--output=/dev/null", *options, user=user, stdin=f"#!/bin/sh\n{script}\n"
        )
        return said.strip().partition(";")[0]

    def cancel(self, job_id: str) -> None:
        """Cancels a job."""
        self.slurm("scancel", job_id)

    def state(self, job_id: str) -> str:
        """What slurmctld calls it now: `RUNNING`; empty for one it does not know (any more)."""
        return self.slurm("squeue", "-h", "-a", "-t", "all", "-j", job_id, "-o", "%T", check=False).strip()

    def wait_for(self, job_id: str, *states: str, limit_s: float = 60) -> None:
        """Waits until slurmctld says one of these states."""
        wait_until(lambda: self.state(job_id) in states, limit_s, f"job {job_id} in {states}: {self.state(job_id)}")

    def truth(self, job_id: str) -> list[Run]:
        """Every run of a job, the oldest first, from slurmdbd."""
        fields = "JobIDRaw,Submit,State,Start,End,NodeList,Partition"
        said = self.slurm("sacct", "-n", "-X", "-D", "-P", "-j", job_id, "-o", fields)
        # Without a partition it is what slurmdbd makes up from a step whose job it has not heard of yet: one node.
        lines = [line for line in said.splitlines() if not line.endswith("|")]
        return sorted((_run(line) for line in lines), key=lambda run: run.submitted_at)

    def wait_for_end(self, job_id: str, *, runs: int = 1, limit_s: float = 90) -> list[Run]:
        """Waits until slurmdbd knows this many runs of the job, all ended, and returns them."""

        def ended() -> list[Run]:
            known = self.truth(job_id)
            over = all(run.ended_at and run.state not in RUNNING_STATES for run in known)
            return known if over and len(known) >= runs else []

        return wait_until(ended, limit_s, f"the end of job {job_id}")

    def _lab(self, *arguments: str) -> None:
        settings = {name: value for name, value in os.environ.items() if not name.startswith("LAB")}
        done = subprocess.run(
            [sys.executable, COMMAND, *arguments],
            env={**settings, **self.settings, "LAB": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=UP_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"lab/slurm {arguments}: {done.stderr}{done.stdout}"


def why_not(*, accounting: bool = True) -> str | None:
    """Why no lab can run on this machine, or None."""
    arguments = ["check"] if accounting else ["check", "--no-accounting"]
    done = subprocess.run([sys.executable, COMMAND, *arguments], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else None


def folder_of_ours(number: int) -> Path:
    """A folder whose name says which process it belongs to, unmistakably."""
    return FOLDERS / f"tests-{os.getpid()}-{_started(os.getpid())}-{number}"


def wipe_leftovers() -> None:
    """Ends the labs of test sessions that were killed. The lab checks that its pid file names its own process."""
    for folder in FOLDERS.glob("tests-*-*-*"):
        _, pid, started, _ = folder.name.split("-")
        if _started(int(pid)) != started:
            Lab(folder).stop()


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def _run(line: str) -> Run:
    job_id, submitted, state, started, ended, nodes, _partition = line.split("|")
    return Run(
        job_id=job_id,
        submitted_at=int(submitted),
        state=state.partition(" ")[0],
        started_at=_time(started),
        ended_at=_time(ended),
        nodes=() if nodes == "None assigned" else tuple(NodeSet(nodes, resolver=None)),
    )


def _time(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
