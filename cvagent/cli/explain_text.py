"""The stories of `cvagent explain` in words. What users and switches wrote is made printable."""

from collections.abc import Iterable, Iterator, Sequence

from cvagent.cli.explain_stories import Claim, Delivery, JobStory, MacStory, NodeStory, thing
from cvagent.clients.slurm_nodes import folded
from cvagent.model import NodeFacts, NodeInterface
from cvagent.model.holdings import Holding, How, Link, Port, Sharing
from cvagent.model.nodes import Interface

_SHOWN_NODES = 16
_LONGEST = 80
_WHY = {
    Sharing.OWN: "its nodes, as it has them to itself",
    Sharing.INTERFACES: "its interfaces, as it may share a node",
    Sharing.SHARED: "its nodes, though it may share them: which interfaces are its own is not known",
    Sharing.UNKNOWN: "its nodes: nobody asked whether it shared them",
}
_SURE = {
    How.EXACT: "exact",
    How.INFERRED: "inferred from the PCI tree: the nearest port of each GPU",
    How.UNRESOLVED: "not known",
}


def job_lines(story: JobStory) -> Iterator[str]:
    """A run: what Slurm says, what CloudVision was told, and what lies between."""
    yield f"{story.key}  {printable(story.name)}@{printable(story.partition)}"
    inferred = " (the end is inferred: Slurm no longer knows it)" if story.end_inferred else ""
    yield f"  state        {story.state} {_span(story.started_at, story.ended_at)}{inferred}"
    yield f"  nodes        {folded(story.nodes)}"
    yield f"  told by      {_WHY[story.sharing]}"
    yield f"  CloudVision  {_stands(story.cloudvision)}"
    for holding in story.holdings:
        yield from _holding(holding)
    for node in list(story.interfaces)[:_SHOWN_NODES]:
        ports = story.interfaces[node]
        yield f"  {node}: CloudVision was told {_count(ports or (), 'interface')} of it"
        yield from (f"    {_told(port)}" for port in ports or ())
    if len(story.interfaces) > _SHOWN_NODES:
        yield f"  ... and {len(story.interfaces) - _SHOWN_NODES} nodes more (--json shows all)"


def node_lines(story: NodeStory) -> Iterator[str]:
    """A node: what it said, what CloudVision was told, and who is there now."""
    yield printable(story.node)
    yield f"  CloudVision  {_stands(story.cloudvision) if story.cloudvision else 'was told nothing of it'}" + (
        "; it left Slurm, and is deleted" if story.state == "GONE" else ""
    )
    if story.facts:
        yield from _facts(story.facts, story.read_at or "")
    else:
        yield "  inventory    none: see CVAGENT_NODE_FACTS"
        yield from (f"    {_told(port)}" for port in story.interfaces)
    yield from _claims("now", story.jobs)


def mac_lines(story: MacStory) -> Iterator[str]:
    """A MAC: whose it is, and who held it then."""
    yield story.mac
    for node, name in story.ports:
        yield f"  port         {printable(name)} of {node}"
    if not story.ports:
        yield "  port         no node has it (any more)"
    yield from _claims(story.at, story.jobs)


def printable(text: str) -> str:
    r"""The text on one line, with what would steer a terminal replaced, and cut.

    >>> printable("train\x1b[2J\n")
    'train\ufffd[2J\ufffd'
    """
    clean = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    return clean if len(clean) <= _LONGEST else f"{clean[:_LONGEST]}..."


def _span(began: str, ended: str | None) -> str:
    return f"from {began}" + (f" to {ended}" if ended else "")


def _stands(delivery: Delivery) -> str:
    if delivery.status == "accepted":
        return f"accepted this at {delivery.accepted_at}"
    tries = f"{delivery.tries} {'try' if delivery.tries == 1 else 'tries'} in vain"
    error = f": {printable(delivery.error)}" if delivery.error else ""
    if delivery.status == "pending":
        return f"has not accepted this yet: it is so since {delivery.changed_at}, {tries}{error}"
    return f"refused this, set aside after {tries}{error}"


def _holding(holding: Holding) -> Iterator[str]:
    why = f": {holding.reason}" if holding.reason else ""
    yield f"  {holding.node}: {_SURE[holding.how]}{why}"
    for link in holding.links:
        yield from _link(link)


def _link(link: Link) -> Iterator[str]:
    near = f" ({link.nearness.value})" if link.nearness else ""
    for port in link.ports:
        yield f"    {thing(link)} -> {_port(port)}{near}"


def _port(port: Port) -> str:
    name = printable(port.name) if port.name else "a VF without a name here"
    address = port.mac or (f"InfiniBand {port.guid}, which is no MAC" if port.guid else "no MAC")
    return f"{name}  {address}" + (f"  at {port.pci}" if port.pci else "")


def _told(port: NodeInterface) -> str:
    return "  ".join((printable(port.name), port.mac, *port.ips))


def _count(things: Sequence[object], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _facts(facts: NodeFacts, read_at: str) -> Iterator[str]:
    yield f"  inventory    read at {read_at}: {_count(facts.interfaces, 'interface')}, {_count(facts.gpus, 'GPU')}"
    cables = {neighbour.interface: neighbour for neighbour in facts.lldp}
    for port in facts.interfaces:
        cable = cables.get(port.name or "")
        beyond = f"  to {printable(cable.switch)} {printable(cable.port)}" if cable else ""
        yield f"    {_described(port)}{beyond}"
    for gpu in facts.gpus:
        minor = f", /dev/nvidia{gpu.minor}" if gpu.minor is not None and gpu.vendor == "nvidia" else ""
        numa = f", NUMA node {gpu.numa_node}" if gpu.numa_node is not None else ""
        yield f"    GPU {gpu.index} at {gpu.pci}{numa}{minor}"
    yield from (f"    not read: {printable(problem)}" for problem in facts.problems)


def _described(port: Interface) -> str:
    named = _port(Port(port.name, port.mac, port.guid, port.pci))
    speed = f"{port.speed_mbps} Mb/s" if port.speed_mbps else ""
    numa = f"NUMA node {port.numa_node}" if port.numa_node is not None else ""
    kind = "" if port.kind == "regular" else port.kind.upper()
    bond = f"in {printable(port.bond)}" if port.bond else ""
    rdma = printable(port.rdma or "")
    more = (numa, printable(port.state), speed, kind, rdma, bond, *port.ipv4, *port.ipv6)
    return "  ".join([named, *filter(None, more)])


def _claims(when: str, claims: Iterable[Claim]) -> Iterator[str]:
    found = list(claims)
    yield f"  {when}: " + ("held by" if found else "no job")
    for claim in found:
        name = f"{printable(claim.name)}@{printable(claim.partition)}"
        span = _span(claim.started_at, claim.ended_at)
        yield f"    {claim.key}  {name}  {claim.state} {span}"
        yield f"      {_SURE[claim.sure].partition(':')[0]}: {claim.why}"
