"""Jobs: as Slurm tells them, and as a sink is to be told."""

import datetime as dt
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from msgspec import Struct

from cvagent.model.holdings import Allocation, Holding, Sharing
from cvagent.model.nodes import NodeFacts


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
        exclusive: Whether it was to have its nodes to itself; None from accounting, which does not know.
    """

    identity: Identity
    word: str
    started_at: int | None
    ended_at: int | None
    partition: str
    nodes: str
    name: str
    restarts: int | None = None
    exclusive: bool | None = None


class Observation(Struct, frozen=True):
    """All that Slurm said about jobs in one round.

    Attributes:
        at: Epoch seconds when asking began.
        live: Runs that slurmctld holds, running or ended a short while ago; pending ones are left out.
        accounted: Runs that accounting told of: those that ended since `since`, and those asked for by id.
        earlier: For a job id, the submit times of the runs that accounting told of, ascending.
        since: Ended runs with an end before this were not looked for.
        accounting: False when the cluster keeps none: ends are then seen in slurmctld alone.
        unfinished: Runs that accounting has half a record of so far: they are not lost, and not told yet.
        allocations: What runs that may share nodes hold there, as far as it was asked for.
        facts: By node, what those nodes said of their interfaces; a node that never told any is left out.
    """

    at: int
    live: Mapping[Identity, Run]
    accounted: Mapping[Identity, Run]
    earlier: Mapping[int, tuple[int, ...]]
    since: int
    accounting: bool
    unfinished: frozenset[Identity] = frozenset()
    allocations: Mapping[Identity, Allocation] = {}
    facts: Mapping[str, NodeFacts] = {}


class JobConfig(Struct, frozen=True, array_like=True, gc=False, tag="job"):
    """What a sink is to know about one run: absolute, so that it may be sent again.

    Attributes:
        key: `<job_id>@<cluster>`; `<job_id>.<n>@<cluster>` for the run after the n-th restart.
        inferred: The end was concluded from absence; accounting may still correct it.
        holdings: Node by node, how its interfaces were found, or why not; none for a run that was not asked about.
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
    sharing: Sharing = Sharing.UNKNOWN
    holdings: tuple[Holding, ...] = ()

    @property
    def macs(self) -> tuple[str, ...]:
        """What is to be told in place of the nodes, each once; none when the nodes are to be told."""
        if self.sharing is not Sharing.INTERFACES:
            return ()
        return tuple(dict.fromkeys(mac for holding in self.holdings for mac in holding.macs))

    @property
    def word(self) -> str:
        """Its state in a word."""
        return self.state.value

    def __str__(self) -> str:
        """One line for people; what cannot be printed in a name is replaced."""
        name = "".join(letter if letter.isprintable() else "\ufffd" for letter in f"{self.name}@{self.partition}")
        span = f"from {utc(self.started_at)}" + (f" to {utc(self.ended_at)}" if self.ended_at else "")
        notes = {Sharing.INTERFACES: f"  {len(self.macs)} interfaces", Sharing.SHARED: "  (shared nodes)"}
        inferred = "  (end inferred)" if self.inferred else ""
        return f"{name[:40]}  {self.nodes[:60]}{notes.get(self.sharing, '')}  {span}{inferred}"

    @property
    def identity(self) -> Identity:
        """The pair that tells this run from every other."""
        return Identity(self.job_id, self.submitted_at)


def utc(epoch: int) -> str:
    """RFC 3339 in UTC, as CloudVision takes it.

    >>> utc(0)
    '1970-01-01T00:00:00Z'
    """
    return dt.datetime.fromtimestamp(epoch, dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
