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


# Slurm's words for a job's state and what CloudVision can be told; None: the run exists, with nothing to tell (yet).
SLURM_STATES: dict[str, State | None] = {
    "RUNNING": State.RUNNING,
    "SUSPENDED": State.RUNNING,
    "STOPPED": State.RUNNING,
    "SIGNALING": State.RUNNING,
    "STAGE_OUT": State.RUNNING,
    "COMPLETING": State.RUNNING,
    "COMPLETED": State.COMPLETED,
    "FAILED": State.FAILED,
    "NODE_FAIL": State.FAILED,
    "BOOT_FAIL": State.FAILED,
    "OUT_OF_MEMORY": State.FAILED,
    "DEADLINE": State.FAILED,
    "TIMEOUT": State.FAILED,
    "PREEMPTED": State.FAILED,
    "LAUNCH_FAILED": State.FAILED,
    "CANCELLED": State.CANCELLED,
    "REVOKED": State.CANCELLED,
    "REQUEUED": State.CANCELLED,
    "PENDING": None,
    "CONFIGURING": None,
    "RESIZING": None,
    "SPECIAL_EXIT": None,
    "REQUEUE_HOLD": None,
    "REQUEUE_FED": None,
    "RESV_DEL_HOLD": None,
    "POWER_UP_NODE": None,
}
OVER = frozenset(word for word, state in SLURM_STATES.items() if state not in {None, State.RUNNING})


class Run(Struct, frozen=True, gc=False):
    """One execution of a job as Slurm tells it; a requeue starts another.

    Attributes:
        identity: Slurm's raw job id (an array task and a heterogeneous component have their own) and submit time.
        word: Slurm's word for the state, one of SLURM_STATES as a rule.
        started_at: Epoch seconds; None when it never started.
        ended_at: Epoch seconds; None unless it is over (what Slurm calls the end of a running job is its limit).
        partition: Its name.
        nodes: Folded hostlist; empty when Slurm names none. It shrinks while a job is COMPLETING.
        name: The job's name: any bytes a user likes.
        restarts: Slurm's restart count; None from accounting, which does not know.
    """

    identity: Identity
    word: str
    started_at: int | None
    ended_at: int | None
    partition: str
    nodes: str
    name: str
    restarts: int | None = None


class Observation(Struct, frozen=True):
    """All that Slurm said about jobs in one round.

    Attributes:
        at: Epoch seconds when asking began.
        live: Runs that slurmctld holds, running or ended a short while ago; pending ones are left out.
        accounted: Runs that accounting told of: those that ended since `since`, and those asked for by id.
        earlier: For a job id, the submit times of the runs that accounting told of.
        since: Ended runs with an end before this were not looked for.
        accounting: False when the cluster keeps none: ends are then seen in slurmctld alone.
    """

    at: int
    live: Mapping[Identity, Run]
    accounted: Mapping[Identity, Run]
    earlier: Mapping[int, frozenset[int]]
    since: int
    accounting: bool


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


class Absence(Struct, frozen=True, gc=False):
    """How long a known thing was not to be seen.

    Attributes:
        rounds: Good observations in a row; 0 when it is to be seen.
        since: Epoch seconds of the first of them.
    """

    rounds: int = 0
    since: int = 0


SEEN = Absence()


class Known(Struct, frozen=True, gc=False):
    """A document as the store holds it, with what the plan needs to go on."""

    document: JobConfig
    absence: Absence = SEEN

    @property
    def is_open(self) -> bool:
        """Whether Slurm is still to be asked about it: it runs, or its end was inferred."""
        return self.document.ended_at is None or self.document.inferred


class Change(NamedTuple):
    """One effect of a plan: this document is to stand in the sink under its key.

    Attributes:
        why: new, changed, ended, or lost (its end was inferred).
    """

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


class Ask(Struct, frozen=True):
    """What a round asks of a source.

    Attributes:
        now: Epoch seconds.
        since: Ended runs are looked for from here on (overlap included).
        known: What the store holds: open runs must each be found or be said to be absent; all others are new.
        cold: The store knows nothing of this cluster: look at all that was there since `since`.
    """

    now: int
    since: int
    known: Mapping[Identity, Known]
    cold: bool


class Row(NamedTuple):
    """One document of a sink as the store holds it, for pages and the command line.

    Attributes:
        status: pending, accepted or set_aside.
        changed_at: Epoch seconds at which the document was last replaced.
        due_at: Epoch seconds before which it is not tried again; 0 when at once.
        accepted_at: Epoch seconds; None when the sink never took this document.
    """

    document: JobConfig
    status: str
    attempts: int
    changed_at: float
    due_at: float
    accepted_at: float | None
    error: str | None


class Health(Struct):
    """How one flow or sink is doing. Times are epoch seconds; 0.0 means never.

    Attributes:
        error: The last error since the last success; None when all is well.
        detail: What a person should know although all is well (no accounting, a refused plan).
        paused_until: 0.0 when it does not wait.
        stale_after_s: Without a success for this long it is not ready; 0.0 when age says nothing.
    """

    last_success: float = 0.0
    last_error_at: float = 0.0
    error: str | None = None
    detail: str | None = None
    paused_until: float = 0.0
    stale_after_s: float = 0.0


def utc(epoch: int) -> str:
    """RFC 3339 in UTC, as CloudVision takes it.

    >>> utc(0)
    '1970-01-01T00:00:00Z'
    """
    return dt.datetime.fromtimestamp(epoch, dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
