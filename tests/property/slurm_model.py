"""Slurm as it behaves, in small: slurmctld's jobs, slurmdbd's records that come late but in order, and the truth.

Its answers are printed by `fakes.FakeSlurm`, so that the real commands and the real parsing read them.
"""

from collections.abc import Iterator
from typing import NamedTuple

from fakes import FakeClock, FakeSlurm, Record

from cvagent.model import State
from cvagent.push.jobs import job_key

# Rows reach slurmdbd at most so late, counted from the end of an outage if there was one.
LATE_S = 500
_TOLD = {
    "COMPLETED": State.COMPLETED,
    "FAILED": State.FAILED,
    "TIMEOUT": State.FAILED,
    "OUT_OF_MEMORY": State.FAILED,
    "NODE_FAIL": State.FAILED,
    "PREEMPTED": State.FAILED,
    "CANCELLED": State.CANCELLED,
    "REQUEUED": State.CANCELLED,
}
FINAL = sorted(_TOLD.keys() - {"REQUEUED"})


class Execution:
    """One run of a job, from its submission on."""

    def __init__(self, job_id: int, submitted_at: int, restarts: int) -> None:
        self.job_id = job_id
        self.submitted_at = submitted_at
        self.restarts = restarts
        self.state = "PENDING"
        self.started_at: int | None = None
        self.ended_at: int | None = None
        self.nodes = ""
        self.final = ""
        self.runaway = False
        # A resize opens another record.
        self.record_submitted_at = submitted_at
        self.record_started_at: int | None = None

    def live(self) -> Record:
        nodes = "" if self.state == "COMPLETING" else self.nodes
        return Record(
            self.job_id, self.state, self.submitted_at, self.started_at, self.ended_at, nodes, restarts=self.restarts
        )

    def row(self, state: str = "") -> Record:
        word = state or self.final or self.state
        by = " by 20003" if word == "CANCELLED" else ""
        return Record(
            self.job_id, word + by, self.record_submitted_at, self.record_started_at, self.ended_at, self.nodes
        )


class Truth(NamedTuple):
    """What the sink is to hold for a run."""

    state: State
    job_id: int
    submitted_at: int
    started_at: int
    ended_at: int | None
    nodes: str


class SlurmModel:
    """A cluster whose time is the test's.

    Args:
        min_job_age_s: How long slurmctld keeps an ended job.
    """

    def __init__(self, clock: FakeClock, min_job_age_s: int) -> None:
        self.commands = FakeSlurm()
        self.history: list[Execution] = []
        self._clock = clock
        self._min_job_age_s = min_job_age_s
        self._held: list[Execution] = []
        self._rows: dict[tuple[int, int], Record] = {}
        self._late: list[tuple[float, Record]] = []
        self._next_id = 1
        self._reachable_since = clock.now()

    def submit(self) -> None:
        job = Execution(self._next_id, self._now(), restarts=0)
        self._next_id = max([self._next_id, *(held.job_id for held in self.history)]) + 1
        self._enter(job)

    def start(self, job: Execution, nodes: int) -> None:
        job.state, job.nodes = "RUNNING", f"node[1-{nodes}]"
        job.started_at = job.record_started_at = self._now()
        self._account(job.row())

    def suspend_or_resume(self, job: Execution) -> None:
        job.state = "RUNNING" if job.state == "SUSPENDED" else "SUSPENDED"
        self._account(job.row())

    def resize(self, job: Execution, nodes: int) -> None:
        now = self._now()
        self._account(job.row("RESIZING")._replace(ended_at=now))
        job.record_submitted_at = job.record_started_at = now
        job.nodes = f"node[1-{nodes}]"
        self._account(job.row())

    def end(self, job: Execution, final: str, *, completing: bool) -> None:
        job.ended_at, job.final = self._now(), final
        job.state = "COMPLETING" if completing else final
        self._account(job.row())

    def clean(self, job: Execution) -> None:
        job.state = job.final

    def cancel_pending(self, job: Execution) -> None:
        job.ended_at, job.final = self._now(), "CANCELLED"
        job.state = "CANCELLED"
        self._account(job.row())

    def requeue(self, job: Execution, final: str) -> None:
        """The job waits again, under a new submit time; REQUEUED, NODE_FAIL or PREEMPTED stands for the run before."""
        self.end(job, final, completing=False)
        self._held.remove(job)
        self._enter(Execution(job.job_id, self._now(), job.restarts + 1))

    def crash(self, job: Execution) -> None:
        """Slurmctld forgets the last job; slurmdbd does not, and the next job gets its id."""
        self.account_late_rows(len(self._late))
        self._held.remove(job)
        job.runaway = True
        self._next_id = job.job_id

    def account_late_rows(self, count: int) -> None:
        for _, row in self._late[:count]:
            self._rows[row.job_id, row.submitted_at] = row
        del self._late[:count]
        self.print()

    def database_down(self) -> None:
        self.commands.broken["sacct"] = "Connection refused"

    def database_up(self) -> None:
        if self.commands.broken.pop("sacct", None):
            self._reachable_since = self._clock.now()

    def account_what_is_due(self, *, outages_forgiven: bool = True) -> None:
        """Rows are never later than LATE_S; without forgiveness an outage does not count."""
        if "sacct" not in self.commands.broken:
            since = self._reachable_since if outages_forgiven else 0.0
            due = sum(max(at, since) <= self._clock.now() - LATE_S for at, _ in self._late)
            self.account_late_rows(due)

    def forward(self, seconds: int) -> None:
        self._clock.forward(seconds)
        kept_since = self._clock.now() - self._min_job_age_s
        self._held = [
            job for job in self._held if job.ended_at is None or job.state == "COMPLETING" or job.ended_at >= kept_since
        ]
        self.account_what_is_due()
        self.print()

    def held(self, *states: str) -> list[Execution]:
        return [job for job in self._held if job.state in states]

    def is_last(self, job: Execution) -> bool:
        return not job.restarts and job.job_id == self._next_id - 1

    def print(self) -> None:
        self.commands.live = [job.live() for job in self._held]
        self.commands.accounted = list(self._rows.values())

    def truth(self) -> Iterator[tuple[str, Truth | None]]:
        """By key, what a sink is to hold; None where Slurm itself does not know the end: then any end will do."""
        for run in self.history:
            if run.started_at is None:
                continue
            earlier = [
                other for other in self.history if other.job_id == run.job_id and other.submitted_at < run.submitted_at
            ]
            key = job_key(run.job_id, len(earlier), "lab")
            state = _TOLD[run.final] if run.final else State.RUNNING
            told = Truth(state, run.job_id, run.submitted_at, run.started_at, run.ended_at, run.nodes)
            yield key, None if run.runaway else told

    def _enter(self, job: Execution) -> None:
        self.history.append(job)
        self._held.append(job)
        self._account(job.row())

    def _account(self, row: Record) -> None:
        self._late.append((self._clock.now(), row))
        self.print()

    def _now(self) -> int:
        """A second of its own for each event: Slurm cannot tell apart what happens to one job in one second."""
        self._clock.forward(1)
        return int(self._clock.now())
