"""What `cvagent explain` finds out, as records that print as text and as JSON alike. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from msgspec import Struct

from cvagent.clients.hostlist import unfold
from cvagent.model import JobConfig, NodeConfig, NodeFacts, NodeInterface, Row, utc
from cvagent.model.holdings import Holding, How, Link, Sharing


class Delivery(Struct, frozen=True):
    """How CloudVision's knowledge of a document stands. Times in UTC.

    Attributes:
        status: accepted, pending or set_aside.
        accepted_at: When CloudVision took this document; None when it did not (yet).
        changed_at: When the document became what it is.
        tries: In vain, since then.
    """

    status: str
    accepted_at: str | None
    changed_at: str
    tries: int
    error: str | None


class JobStory(Struct, frozen=True):
    """One run, from Slurm's job to MACs.

    Attributes:
        end_inferred: The end was concluded from absence.
        told_by: nodes or interfaces.
        macs: What CloudVision was told; none when it was told nodes.
        interfaces: By node, what CloudVision was told of it, where it was told nodes; None: nothing (yet).
    """

    key: str
    name: str
    partition: str
    state: str
    started_at: str
    ended_at: str | None
    end_inferred: bool
    nodes: tuple[str, ...]
    sharing: Sharing
    told_by: str
    macs: tuple[str, ...]
    holdings: tuple[Holding, ...]
    interfaces: Mapping[str, tuple[NodeInterface, ...] | None]
    cloudvision: Delivery


class Claim(Struct, frozen=True):
    """A run that has, or may have, an interface or a part of a node.

    Attributes:
        sure: exact, inferred or unresolved.
        why: How that is known, or why not.
    """

    key: str
    name: str
    partition: str
    state: str
    started_at: str
    ended_at: str | None
    node: str
    sure: How
    why: str


class NodeStory(Struct, frozen=True):
    """One node: what it said, what CloudVision was told of it, and who holds it.

    Attributes:
        read_at: When its inventory was read; None when it never was, as far as the store knows.
    """

    node: str
    state: str | None
    interfaces: tuple[NodeInterface, ...]
    cloudvision: Delivery | None
    read_at: str | None
    facts: NodeFacts | None
    jobs: tuple[Claim, ...]


class MacStory(Struct, frozen=True):
    """One MAC: whose it is, and who holds it.

    Attributes:
        ports: Node and interface, as CloudVision was told.
    """

    mac: str
    at: str
    ports: tuple[tuple[str, str], ...]
    jobs: tuple[Claim, ...]


def job_stories(jobs: Iterable[Row], nodes: Mapping[str, Row], job_id: int) -> list[JobStory]:
    """Every run of a job that the store knows, the oldest first; `nodes` by the node's name in Slurm."""
    rows = ((row, job) for row in jobs if isinstance(job := row.document, JobConfig) and job.job_id == job_id)
    return [_job_story(row, job, nodes) for row, job in sorted(rows, key=lambda found: found[1].submitted_at)]


def node_story(
    node: str, jobs: Iterable[Row], nodes: Mapping[str, Row], said: tuple[NodeFacts, float] | None
) -> NodeStory | None:
    """What is known of a node; None when nothing is, be it as a node or as a job's."""
    row = nodes.get(node)
    claims = tuple(claim for job in _running(jobs, None) for claim in _claims_on(job, node))
    if row is None and said is None and not claims:
        return None
    return NodeStory(
        node=node,
        state=row.document.word if row else None,
        interfaces=_interfaces(row) or (),
        cloudvision=_delivery(row) if row else None,
        read_at=utc(int(said[1])) if said else None,
        facts=said[0] if said else None,
        jobs=claims,
    )


def mac_story(mac: str, jobs: Sequence[Row], nodes: Mapping[str, Row], at: int | None, now: int) -> MacStory | None:
    """Whose an interface is and which runs held it `at` that time, or now; None when nobody ever told of it."""
    ports = [(node, port.name) for node, row in nodes.items() for port in _interfaces(row) or () if port.mac == mac]
    told = [job for row in jobs if isinstance(job := row.document, JobConfig) and mac in job.macs]
    if not ports and not told:
        return None
    claims = [claim for job in _running(jobs, at) for claim in _claims_to(job, mac, [node for node, _ in ports])]
    return MacStory(mac, utc(now if at is None else at), tuple(ports), tuple(claims))


def as_json(value: Any) -> Any:
    """What a program is to read, with every field by its name."""
    if isinstance(value, Struct):
        return {name: as_json(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, NodeInterface):
        return as_json(value._asdict())
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {name: as_json(item) for name, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, tuple | list) else value


def _job_story(row: Row, job: JobConfig, nodes: Mapping[str, Row]) -> JobStory:
    names = unfold(job.nodes)
    by_nodes = () if job.macs else names
    return JobStory(
        key=job.key,
        name=job.name,
        partition=job.partition,
        state=job.word,
        started_at=utc(job.started_at),
        ended_at=utc(job.ended_at) if job.ended_at else None,
        end_inferred=job.inferred,
        nodes=names,
        sharing=job.sharing,
        told_by="interfaces" if job.macs else "nodes",
        macs=job.macs,
        holdings=job.holdings,
        interfaces={node: _interfaces(nodes.get(node)) for node in by_nodes},
        cloudvision=_delivery(row),
    )


def _delivery(row: Row) -> Delivery:
    accepted_at = utc(int(row.accepted_at)) if row.accepted_at else None
    return Delivery(row.status, accepted_at, utc(int(row.changed_at)), row.attempts, row.error)


def _interfaces(row: Row | None) -> tuple[NodeInterface, ...] | None:
    return row.document.interfaces if row and isinstance(row.document, NodeConfig) else None


def _running(rows: Iterable[Row], at: int | None) -> Iterator[JobConfig]:
    """Runs that were under way then; None is now."""
    for row in rows:
        job = row.document
        if isinstance(job, JobConfig) and _is_under_way(job, at):
            yield job


def _is_under_way(job: JobConfig, at: int | None) -> bool:
    if at is None:
        return job.ended_at is None
    return job.started_at <= at and (job.ended_at is None or at < job.ended_at)


def _claims_on(job: JobConfig, node: str) -> Iterator[Claim]:
    if node not in unfold(job.nodes):
        return
    holding = next((holding for holding in job.holdings if holding.node == node), None)
    if holding and holding.links:
        what = ", ".join(thing(link) for link in holding.links)
        yield _claim(job, node, holding.how, what)
    else:
        yield _claim(job, node, *_of_node(job, node))


def _claims_to(job: JobConfig, mac: str, nodes: Iterable[str]) -> Iterator[Claim]:
    if not job.macs:
        names = unfold(job.nodes)
        yield from (_claim(job, node, *_of_node(job, node)) for node in nodes if node in names)
        return
    for holding in job.holdings:
        for link in holding.links:
            if mac in {port.mac for port in link.ports}:
                near = f", {link.nearness.value}" if link.nearness else ""
                yield _claim(job, holding.node, holding.how, f"{thing(link)}{near}")


def thing(link: Link) -> str:
    """What a run holds, in words."""
    if link.gres == "node":
        return "the whole node"
    return f"{link.gres.upper()} {link.index}" + (f" at {link.gpu}" if link.gpu else "")


def _of_node(job: JobConfig, node: str) -> tuple[How, str]:
    """How sure it is that a run told by its nodes has any one interface of a node, and why."""
    if job.sharing is Sharing.OWN:
        return How.EXACT, "it has the node to itself"
    reasons = [holding.reason for holding in job.holdings if holding.reason and holding.node in {node, job.nodes}]
    why = reasons or [holding.reason for holding in job.holdings if holding.reason] or ["nobody asked what it held"]
    return How.UNRESOLVED, f"it may share the node: {why[0]}"


def _claim(job: JobConfig, node: str, how: How, why: str) -> Claim:
    ended_at = utc(job.ended_at) if job.ended_at else None
    return Claim(job.key, job.name, job.partition, job.word, utc(job.started_at), ended_at, node, how, why)
