"""Frozen records that every layer shares. No I/O, no clock, no settings.

Times are UTC epoch seconds (int), as Slurm counts them; they become RFC 3339 on the wire and on pages.
Hostlists stay folded (`node[001-003]`) until a sink needs the names.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from msgspec import Struct


class State(str, Enum):
    """What CloudVision can be told about a job. A pending job is not told at all."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Identity(NamedTuple):
    """What tells one run from any other on a cluster.

    A requeued job keeps its id and gets a new submit time; a crash of slurmctld can hand an id out twice.
    """

    job_id: int
    submitted_at: int


class Run(Struct, frozen=True, gc=False):
    """One execution of a job as Slurm tells it; a requeue starts another.

    Attributes:
        job_id: Slurm's raw id; an array task and a heterogeneous component have their own.
        submitted_at: Epoch seconds.
        state: None when Slurm knows the run but says nothing that may be reported (pending, being configured).
        started_at: Epoch seconds; None when it never started.
        ended_at: Epoch seconds; None while it runs (what Slurm calls the end of a running job is its limit).
        nodes: Folded hostlist; empty when Slurm names none.
        completing: The job is over and its nodes are being cleaned: `nodes` may have shrunk.
        restarts: Slurm's restart count; None from accounting, which does not know.
    """

    job_id: int
    submitted_at: int
    state: State | None
    started_at: int | None
    ended_at: int | None
    partition: str
    nodes: str
    name: str
    completing: bool = False
    restarts: int | None = None

    @property
    def identity(self) -> Identity:
        """The pair that tells this run from every other."""
        return Identity(self.job_id, self.submitted_at)

    @property
    def is_live(self) -> bool:
        """Whether slurmctld said so, and not accounting."""
        return self.restarts is not None


class Observation(Struct, frozen=True):
    """All that Slurm said about jobs in one round.

    Attributes:
        at: Epoch seconds when asking began; every run that was live then is in `runs`.
        runs: Live ones and ended ones. One identity may stand here twice (live and accounting).
        present: Identities that exist although `runs` may not say their state: neither absent nor ended.
        earlier: For a job id, the submit times of the runs that accounting told of in this round.
        since: Ended runs with an end before this were not looked for.
        accounting: False when the cluster keeps none: ends are then seen in slurmctld alone.
        problems: What could not be read, a line each; the runs concerned count as present.
    """

    at: int
    runs: Sequence[Run]
    present: frozenset[Identity]
    earlier: Mapping[int, frozenset[int]]
    since: int
    accounting: bool
    problems: Sequence[str] = ()


class JobConfig(Struct, frozen=True, array_like=True, gc=False):
    """What a sink is to know about one run: absolute, so that it may be sent again.

    Attributes:
        key: `<job_id>@<cluster>`; `<job_id>.<n>@<cluster>` for the run after the n-th restart.
        inferred: The end was concluded from absence; accounting may still correct it.
    """

    key: str
    job_id: int
    submitted_at: int
    state: State
    started_at: int
    ended_at: int | None
    name: str
    partition: str
    nodes: str
    inferred: bool = False

    @property
    def identity(self) -> Identity:
        """The pair that tells this run from every other."""
        return Identity(self.job_id, self.submitted_at)


class Absence(NamedTuple):
    """How long a known thing was not to be seen.

    Attributes:
        rounds: Good observations in a row; 0 when it is to be seen.
        since: Epoch seconds of the first of them.
    """

    rounds: int = 0
    since: int = 0


SEEN = Absence()


class Known(NamedTuple):
    """A document as the store holds it, with what the plan needs to go on."""

    document: JobConfig
    absence: Absence = SEEN


class Change(NamedTuple):
    """One effect of a plan: this document is to stand in the sink under its key."""

    before: JobConfig | None
    after: JobConfig
    why: str


class Plan(Struct, frozen=True):
    """What a round decided. A value: it can be printed, compared, and it can refuse part of itself.

    Attributes:
        changes: To be written, in no order.
        absences: By key, where it changed: what was known and not to be seen, or is to be seen again.
        refused: Changes withheld by the share guard, with the reason in `refusal`.
        refusal: None when nothing was withheld; else one line that says why and what `--force` would do.
        unchanged: How many known, open documents are as they should be.
        problems: What the round could not read or decide, a line each.
    """

    changes: Sequence[Change] = ()
    absences: Mapping[str, Absence] = {}
    refused: Sequence[Change] = ()
    refusal: str | None = None
    unchanged: int = 0
    problems: Sequence[str] = ()


class Entry(NamedTuple):
    """One row of the outbox that is due.

    Attributes:
        version: Grows with every replacement; an answer counts only for the version it was sent for.
        attempts: How often it was tried in vain.
    """

    key: str
    version: int
    document: JobConfig
    attempts: int = 0


class Accepted(NamedTuple):
    """The sink took it."""


class Refused(NamedTuple):
    """The sink will never take this document. It is set aside for a person."""

    reason: str


class Deferred(NamedTuple):
    """The sink may take it later.

    Attributes:
        after_s: What the server asked for, in seconds; None leaves it to the back-off.
        everything: The reason concerns the server, not the document.
    """

    reason: str
    after_s: float | None = None
    everything: bool = False


Outcome = Accepted | Refused | Deferred


class Due(Struct, frozen=True):
    """What waits in the outbox of one sink.

    Attributes:
        pending: Entries not yet accepted, due or not.
        set_aside: Entries that a person must look at.
        oldest_s: Age of the oldest pending entry in seconds; 0 when there is none.
    """

    pending: int
    set_aside: int
    oldest_s: float


def utc(epoch: int) -> str:
    """RFC 3339 in UTC, as CloudVision takes it.

    >>> utc(0)
    '1970-01-01T00:00:00Z'
    """
    return dt.datetime.fromtimestamp(epoch, dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
