"""A cluster made of text: prints what squeue and sacct would, at a cost that can be taken off."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cvagent.clients.slurm import FIELD

ROUND_S = 30
MIN_JOB_AGE_S = 300
_NODES = 1000
CONFIG = b"""\
AccountingStorageType   = accounting_storage/slurmdbd
ClusterName             = bench
MinJobAge               = 300 sec
SLURM_VERSION           = 22.05.8
"""


class Job(NamedTuple):
    """Times in epoch seconds; `ended_at` is None while it runs."""

    job_id: int
    submitted_at: int
    ended_at: int | None = None

    @property
    def nodes(self) -> str:
        """Four nodes in a row."""
        first = self.job_id * 4 % _NODES
        return f"node[{first:04}-{first + 3:04}]"

    def line(self) -> str:
        """As squeue prints it, up to the mark."""
        state, end = ("COMPLETED", self.ended_at) if self.ended_at else ("RUNNING", self.submitted_at + 86_400)
        times = (self.submitted_at, self.submitted_at + 5, end)
        return FIELD.join(map(str, (self.job_id, state, *times, 0, "NO", "batch", self.nodes, self.name)))

    def row(self, mark: str) -> str:
        """As sacct prints it."""
        state, end = ("COMPLETED", self.ended_at) if self.ended_at else ("RUNNING", "Unknown")
        fields = (self.job_id, state, self.submitted_at, self.submitted_at + 5, end, "batch", self.nodes, self.name)
        return "".join(f"{field}{mark}" for field in fields) + "\n"

    @property
    def name(self) -> str:
        """Users run the same again and again."""
        return f"train-{self.job_id % 97}"


class Replay:
    """A `clients.runner.Runner`, and the clock of its cluster.

    Args:
        live: How many jobs run.
        ended: How many more ended before, evenly over `over_s` seconds.

    Attributes:
        cpu_s: CPU seconds spent on printing: the replay's own cost.
    """

    def __init__(self, live: int, ended: int = 0, over_s: int = 0) -> None:
        self.at = 1_800_000_000
        self.cpu_s = 0.0
        self._next_id = 1
        self._running: deque[Job] = deque()
        self._lines: dict[int, str] = {}
        self._ended: deque[Job] = deque()
        self._held: deque[Job] = deque()
        for number in range(ended):
            self._ended.append(self._new()._replace(ended_at=self.at - over_s + number * over_s // ended))
        for _ in range(live):
            self._begin()

    def now(self) -> float:
        """See `ports.Clock`."""
        return float(self.at)

    def turn_over(self, jobs: int) -> None:
        """A round later, so many jobs ended and as many others began."""
        self.at += ROUND_S
        for _ in range(jobs):
            job = self._running.popleft()._replace(ended_at=self.at - ROUND_S // 2)
            self._ended.append(job)
            self._held.append(job)
            self._lines[job.job_id] = job.line()
            self._begin()
        while self._held and (self._held[0].ended_at or 0) < self.at - MIN_JOB_AGE_S:
            del self._lines[self._held.popleft().job_id]

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> bytes:  # noqa: ARG002
        """See `clients.runner.Runner`."""
        began = time.process_time()
        answer = {"scontrol": self._scontrol, "squeue": self._squeue, "sacct": self._sacct}[command[0]](command)
        self.cpu_s += time.process_time() - began
        return answer

    def stop(self) -> None:
        """See `clients.runner.Runner`."""

    def _new(self) -> Job:
        job = Job(self._next_id, self.at - 3600)
        self._next_id += 1
        return job

    def _begin(self) -> None:
        job = self._new()
        self._running.append(job)
        self._lines[job.job_id] = job.line()

    def _scontrol(self, _command: Sequence[str]) -> bytes:
        return CONFIG

    def _squeue(self, command: Sequence[str]) -> bytes:
        mark = command[-1].rpartition(":")[2] + "\n"
        return "".join([line + mark for line in self._lines.values()]).encode()

    def _sacct(self, command: Sequence[str]) -> bytes:
        mark = next(word for word in command if word.startswith("--delimiter=")).partition("=")[2]
        if "-j" in command:
            asked = set(map(int, command[command.index("-j") + 1].split(",")))
            rows = [job.row(mark) for job in (*self._ended, *self._running) if job.job_id in asked]
        else:
            since = int(command[command.index("-S") + 1].removeprefix("uts"))
            ended = [job.row(mark) for job in self._ended if (job.ended_at or 0) >= since]
            rows = ended if "-s" in command else [*ended, *(job.row(mark) for job in self._running)]
        return "".join(rows).encode()
