"""Our own fakes, one per port. The outbox has none: the real one runs in memory.

`FakeSlurm` stands behind the runner, so that commands and parsing stay the real ones.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Lock
from typing import NamedTuple

from cvagent.errors import CommandFailed, CvagentError
from cvagent.model import (
    Accepted,
    Ask,
    Deferred,
    Entry,
    Identity,
    JobConfig,
    Known,
    NodeConfig,
    NodeFacts,
    NodeInterface,
    NodesSeen,
    Observation,
    Outcome,
    Plan,
    Run,
    State,
)
from cvagent.model.nodes import Interface

_YEAR_S = 365 * 86_400


class FakeClock:
    """A `ports.Clock` that goes only when told to."""

    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self.at = now

    def now(self) -> float:
        return self.at

    def forward(self, seconds: float) -> None:
        self.at += seconds


class FakeSource:
    """A `ports.Source` that answers what it was given: observations, or errors to raise. The last one stays."""

    def __init__(self, *answers: Observation | CvagentError) -> None:
        self.answers = list(answers)
        self.asked: list[Ask] = []

    def observe(self, ask: Ask) -> Observation:
        self.asked.append(ask)
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if isinstance(answer, CvagentError):
            raise answer
        return answer


class FakeSink:
    """A `ports.Sink` that keeps documents by key, as CloudVision's Set does.

    Attributes:
        held: What stands there.
        history: Every document that was taken, in order.
        down: While set, every entry gets this outcome and nothing is taken.
        outcomes: By key, what the next deliveries say; what is not named is accepted.
        lost: Keys that are taken once, while the answer is lost on the way.
        closed: Once set, what is left of a delivery is deferred.
        meanwhile: Called once while the next entry is under way.
    """

    def __init__(self, name: str = "cloudvision_jobs") -> None:
        self.name = name
        self.held: dict[str, JobConfig] = {}
        self.history: list[JobConfig] = []
        self.calls: list[list[str]] = []
        self.down: Deferred | None = None
        self.outcomes: dict[str, list[Outcome]] = {}
        self.lost: set[str] = set()
        self.closed = False
        self.meanwhile: Callable[[], object] | None = None

    def deliver(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, Outcome]]:
        self.calls.append([entry.key for entry in entries])
        for entry in entries:
            answer = self._answer(entry)
            meanwhile, self.meanwhile = self.meanwhile, None
            if meanwhile:
                meanwhile()
            yield entry, answer

    def close(self) -> None:
        self.closed = True

    def _answer(self, entry: Entry) -> Outcome:
        if self.closed:
            return Deferred("the agent stops", everything=True)
        if self.down:
            return self.down
        if planned := self.outcomes.get(entry.key):
            outcome = planned.pop(0)
            if not isinstance(outcome, Accepted):
                return outcome
        self.held[entry.key] = entry.document
        self.history.append(entry.document)
        if entry.key in self.lost:
            self.lost.discard(entry.key)
            return Deferred("no answer")
        return Accepted()


class FakeObserver:
    """A `ports.Observer` that writes down what it hears."""

    def __init__(self) -> None:
        self.rounds: list[Plan] = []
        self.skipped: list[Exception] = []
        self.outcomes: list[Outcome] = []
        self.pauses: list[tuple[str, float]] = []
        self.sinks: list[str] = []

    def round_done(self, flow: str, seconds: float, plan: Plan, at: float) -> None:  # noqa: ARG002
        self.rounds.append(plan)

    def round_skipped(self, flow: str, error: Exception, at: float) -> None:  # noqa: ARG002
        self.skipped.append(error)

    def delivered(self, sink: str, outcome: Outcome, at: float) -> None:  # noqa: ARG002
        self.outcomes.append(outcome)
        self.sinks.append(sink)

    def paused(self, sink: str, reason: str, until: float, at: float) -> None:  # noqa: ARG002
        self.pauses.append((reason, until))


class Record(NamedTuple):
    """A job as squeue or sacct would print it; times are epoch seconds."""

    job_id: int
    state: str
    submitted_at: int
    started_at: int | None = None
    ended_at: int | None = None
    nodes: str = ""
    name: str = "train"
    partition: str = "batch"
    restarts: int = 0
    sharing: str = "OK"


class FakeSlurm:
    """A `clients.runner.Runner` that answers squeue, sacct and scontrol in the form they were asked for.

    Attributes:
        live: What slurmctld holds, pending jobs too.
        accounted: What slurmdbd holds.
        broken: By program, the reason it fails with, or the bytes it prints instead of an answer.
        commands: Every command that was run.
        parts: By job id what it holds of each node, as scontrol says it: `Nodes=n1 CPU_IDs=0 Mem=1 GRES=nic:1(IDX:0)`.
        sizes: By node its CPUs and its GRES, in scontrol's words.
        after_squeue: Called once squeue has answered: what happens between two questions of one round.
    """

    def __init__(self, live: Iterable[Record] = (), accounted: Iterable[Record] = (), *, accounting: bool = True):
        self.live = list(live)
        self.accounted = list(accounted)
        self.accounting = accounting
        self.broken: dict[str, str | bytes] = {}
        self.commands: list[list[str]] = []
        self.parts: dict[int, str] = {}
        self.sizes: dict[str, tuple[int, str]] = {}
        self.after_squeue: Callable[[], None] | None = None
        self._lock = Lock()

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> bytes:  # noqa: ARG002
        with self._lock:
            self.commands.append(list(command))
        broken = self.broken.get(command[0])
        if isinstance(broken, bytes):
            return broken
        if broken:
            raise CommandFailed(command[0], broken, 1)
        return {"scontrol": self._scontrol, "squeue": self._squeue, "sacct": self._sacct}[command[0]](command)

    def stop(self) -> None: ...

    def asked(self, program: str) -> list[list[str]]:
        return [command for command in self.commands if command[0] == program]

    def _scontrol(self, command: Sequence[str]) -> bytes:
        answers = {
            ("scontrol", "-a", "-d", "-o", "show", "job"): self._parts,
            ("scontrol", "-a", "-o", "show", "node"): self._sizes,
            ("scontrol", "show", "config"): self._config,
        }
        return answers[tuple(command)]()

    def _parts(self) -> bytes:
        lines = [
            f"JobId={job.job_id} JobName={job.name} CoreSpec=* JOB_GRES=(null)   {held} MinCPUsNode=1 Power= \n"
            for job in self.live
            if (held := self.parts.get(job.job_id))
        ]
        return "".join(lines or ["No jobs in the system\n"]).encode()

    def _sizes(self) -> bytes:
        lines = (
            f"NodeName={node} Arch=x86_64 CPUTot={cpus} CPULoad=0.01 Gres={gres} NodeAddr={node}"
            for node, (cpus, gres) in self.sizes.items()
        )
        return "".join(f"{line}\n" for line in lines).encode()

    def _config(self) -> bytes:
        storage = "slurmdbd" if self.accounting else "none"
        lines = {
            "AccountingStorageType": f"accounting_storage/{storage}",
            "ClusterName": "lab",
            "MinJobAge": "300 sec",
            "PrivateData": "none",
            "SLURM_VERSION": "22.05.8",
        }
        text = "Configuration data as of 2026-03-01T10:30:00\n"
        return (text + "".join(f"{name:<24}= {value}\n" for name, value in lines.items())).encode()

    def _squeue(self, command: Sequence[str]) -> bytes:
        states = _option(command, "-t").split(",")
        columns = [column.partition(":")[::2] for column in _option(command, "-O").split(",")]
        answer = b"".join(
            b"".join(_printed(_SQUEUE[name](job)) + suffix.encode() for name, suffix in columns) + b"\n"
            for job in self.live
            if job.state in states
        )
        if self.after_squeue:
            self.after_squeue()
        return answer

    def _sacct(self, command: Sequence[str]) -> bytes:
        if not self.accounting:
            raise CommandFailed("sacct", "Slurm accounting storage is disabled", 1)
        mark = next(word for word in command if word.startswith("--delimiter=")).partition("=")[2].encode()
        columns = _option(command, "-o").split(",")
        return b"".join(
            b"".join(_printed(_SACCT[name](job)) + mark for name in columns) + b"\n"
            for job in self.accounted
            if _is_asked(job, command)
        )


def _option(command: Sequence[str], name: str) -> str:
    return command[command.index(name) + 1]


def _is_asked(job: Record, command: Sequence[str]) -> bool:
    since = int(_option(command, "-S").removeprefix("uts"))
    if "-j" in command:
        return str(job.job_id) in _option(command, "-j").split(",")
    until = int(_option(command, "-E").removeprefix("uts"))
    if "-s" not in command:
        return job.submitted_at <= until and (job.ended_at is None or job.ended_at >= since)
    ended = job.ended_at is not None and since <= job.ended_at <= until
    return ended and job.state.partition(" ")[0] in _option(command, "-s").split(",")


def _printed(text: object) -> bytes:
    return str(text).encode(errors="surrogateescape")


# squeue calls the limit of a running job its end.
_SQUEUE = {
    "JobID": lambda job: job.job_id,
    "State": lambda job: job.state,
    "SubmitTime": lambda job: job.submitted_at,
    "StartTime": lambda job: job.started_at or "N/A",
    "EndTime": lambda job: job.ended_at or (job.started_at + _YEAR_S if job.started_at else "N/A"),
    "RestartCnt": lambda job: job.restarts,
    "OverSubscribe": lambda job: job.sharing,
    "Partition": lambda job: job.partition,
    "NodeList": lambda job: job.nodes,
    "Name": lambda job: job.name,
}
_SACCT = {
    "JobIDRaw": lambda job: job.job_id,
    "State": lambda job: job.state,
    "Submit": lambda job: job.submitted_at,
    "Start": lambda job: job.started_at or "Unknown",
    "End": lambda job: job.ended_at or "Unknown",
    "Partition": lambda job: job.partition,
    "NodeList": lambda job: job.nodes or "None assigned",
    "JobName": lambda job: job.name,
}


def a_document(key: str = "1@lab", **changes: object) -> JobConfig:
    """A running job, as a sink would be told."""
    job_id = int(key.partition("@")[0].partition(".")[0])
    fields = {
        "key": key,
        "job_id": job_id,
        "submitted_at": 100,
        "state": State.RUNNING,
        "started_at": 110,
        "ended_at": None,
        "name": "train",
        "partition": "batch",
        "nodes": "node[1-2]",
    }
    return JobConfig(**(fields | changes))  # type: ignore[arg-type]


def an_observation(at: int, live: Iterable[Run] = (), accounted: Iterable[Run] = (), **fields: object) -> Observation:
    """What Slurm said; each accounted run counts as earlier for the others of its job."""
    told = {run.identity: run for run in accounted}
    earlier: dict[int, tuple[int, ...]] = {}
    for job_id, submitted_at in told:
        earlier[job_id] = (*earlier.get(job_id, ()), submitted_at)
    given = {"since": 0, "accounting": True, "earlier": earlier} | fields
    return Observation(at=at, live={run.identity: run for run in live}, accounted=told, **given)  # type: ignore[arg-type]


def known_of(*documents: JobConfig) -> dict[Identity, Known]:
    """What the store would hold of them."""
    return {document.identity: Known(document) for document in documents}


def a_node(key: str = "n1", ended_at: int | None = None) -> NodeConfig:
    """A node with one port, as a sink would be told."""
    return NodeConfig(key, key, (NodeInterface("ens1f0", "0c:42:a1:00:00:01", ("10.88.1.1",)),), ended_at)


def node_facts_of(name: str, *ports: Interface, **fields: object) -> NodeFacts:
    """What a node's inventory would say."""
    given = {"schema": 1, "hostname": name, "node": name, "collected_at": 100, "interfaces": ports} | fields
    return NodeFacts(**given)  # type: ignore[arg-type]


def nodes_seen(at: int = 100, **facts: NodeFacts | None) -> NodesSeen:
    """What one round saw; None is a node that never told anything."""
    return NodesSeen(at, facts)


def nodes_known(*documents: NodeConfig) -> dict[str, Known]:
    """What the store would hold of them."""
    return {document.key: Known(document) for document in documents}
