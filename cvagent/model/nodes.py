"""Nodes: their hardware as `cvagent/node/inventory.py` tells it, and as a sink is to be told."""

import base64
import binascii
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Annotated, NamedTuple

from msgspec import Meta, MsgspecError, Struct, json
from msgspec.structs import replace

SCHEMA = 1

# A report may come from a node itself, over the network: what is sent on must be what it looks like.
Mac = Annotated[str, Meta(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}\Z")]
_MAX_PORTS = 4096


class Interface(Struct, frozen=True):
    """One port of a NIC, or a virtual function of one.

    Attributes:
        name: None for a VF that has no interface here: it moved into another namespace.
        mac: The permanent one; lower case, colons. None for InfiniBand and where there is none.
        guid: InfiniBand's 20 bytes, which are no MAC.
        state: The kernel's operstate; `elsewhere` for a VF without a name.
        speed_mbps: None while the link is down, and where the driver does not know.
        pci: Address of the PCI function; None where it is none (USB, software).
        pci_path: From the root complex over every bridge down to the function itself; empty without one.
        numa_node: None where the firmware does not tell.
        kind: regular, pf (it has VFs) or vf.
        parent: Of a VF: the PCI address of its PF.
        rdma: Name of the RDMA device; None without one.
        bond: Name of the bond it is a member of; None without one.
    """

    name: str | None = None
    mac: Mac | None = None
    guid: str | None = None
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    state: str = "unknown"
    speed_mbps: int | None = None
    driver: str | None = None
    pci: str | None = None
    pci_path: tuple[str, ...] = ()
    numa_node: int | None = None
    kind: str = "regular"
    parent: str | None = None
    rdma: str | None = None
    bond: str | None = None


class Gpu(Struct, frozen=True):
    """One GPU.

    Attributes:
        index: Its place in PCI order.
        minor: N of /dev/nvidiaN, which may differ from the index and change between boots; None where unknown.
    """

    index: int
    pci: str
    pci_path: tuple[str, ...] = ()
    numa_node: int | None = None
    minor: int | None = None
    vendor: str | None = None


class Neighbour(Struct, frozen=True):
    """What the other end of a cable says of itself by LLDP."""

    interface: str
    switch: str
    port: str


class NodeFacts(Struct, frozen=True):
    """What one node's inventory said.

    Attributes:
        hostname: What the kernel calls the node.
        node: What Slurm calls it; None outside a job step.
        booted_at: Epoch seconds; None where unknown.
        collected_at: Epoch seconds, by the node's clock.
        gpus: In PCI order.
        problems: What could not be read, a line each.
    """

    schema: int
    hostname: str
    collected_at: int
    node: str | None = None
    boot_id: str | None = None
    booted_at: int | None = None
    interfaces: Annotated[tuple[Interface, ...], Meta(max_length=_MAX_PORTS)] = ()
    gpus: Annotated[tuple[Gpu, ...], Meta(max_length=_MAX_PORTS)] = ()
    lldp: tuple[Neighbour, ...] = ()
    problems: tuple[str, ...] = ()


class Delay(NamedTuple):
    """Why a node's facts are not as new as they should be.

    Attributes:
        since: Epoch seconds from which on they should have been.
    """

    reason: str
    since: int


class NodesSeen(Struct, frozen=True):
    """All that Slurm and the nodes said in one round.

    Attributes:
        at: Epoch seconds when asking began.
        facts: By node, for every node of the cluster: the newest there are; None when there never were any.
        delays: By node, for those that should have been asked and could not be.
    """

    at: int
    facts: Mapping[str, NodeFacts | None]
    delays: Mapping[str, Delay] = {}


class NodeInterface(NamedTuple):
    """One port as CloudVision is to know it."""

    name: str
    mac: str
    ips: tuple[str, ...]


class NodeConfig(Struct, frozen=True, array_like=True, tag="node"):
    """What a sink is to know about one node: absolute, so that it may be sent again.

    Attributes:
        key: The string that stands for the node in JobConfig.nodes too.
        interfaces: Never empty.
        ended_at: Epoch seconds at which the node was found to be gone from Slurm: it is to be deleted. None as a rule.
    """

    key: str
    hostname: str
    interfaces: tuple[NodeInterface, ...]
    ended_at: int | None = None

    @property
    def word(self) -> str:
        """Its state in a word."""
        return "GONE" if self.ended_at else "PRESENT"

    def __str__(self) -> str:
        """One line for people."""
        return ", ".join(f"{interface.name} {interface.mac}" for interface in self.interfaces)

    @property
    def identity(self) -> str:
        """What tells this node from any other."""
        return self.key

    @property
    def inferred(self) -> bool:
        """A node that is gone is not asked about any more."""
        return False


def node_key(node: str, cluster: str, *, with_cluster: bool) -> str:
    """The string that stands for a node in CloudVision, wherever it is named.

    >>> node_key("n1", "lab", with_cluster=False), node_key("n1", "lab", with_cluster=True)
    ('n1', 'n1@lab')
    """
    return f"{node}@{cluster}" if with_cluster else node


_FACTS = json.Decoder(NodeFacts)
_MAX_LINE = 4 << 20
_PIECE = re.compile(r"cvagent-inventory (\S+) ([0-9]+/[0-9]+) ([A-Za-z0-9+/=]+)")


def node_facts(line: str | bytes) -> NodeFacts:
    """Read the inventory's line of JSON; fields that are not known here are passed over.

    Raises:
        ValueError: It is not such a line, or of a schema that is not known here.

    >>> node_facts('{"schema": 1, "hostname": "n1", "collected_at": 7, "colour": "red"}').hostname
    'n1'
    """
    try:
        facts = _FACTS.decode(line)
    except (MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(f"no inventory of a node: {error}") from None
    if facts.schema != SCHEMA:
        raise ValueError(f"an inventory of schema {facts.schema}, where {SCHEMA} is understood")
    return facts


def remembering(facts: NodeFacts, before: NodeFacts | None) -> NodeFacts:
    """The facts, with name and MAC of each VF that moved into another namespace since `before`."""
    known = {port.pci: port for port in (before.interfaces if before else ()) if port.pci and port.name and port.mac}
    ports = tuple(
        replace(port, name=known[port.pci].name, mac=known[port.pci].mac)
        if port.name is None and port.pci in known
        else port
        for port in facts.interfaces
    )
    return replace(facts, interfaces=ports)


def joined(lines: Iterable[str]) -> dict[str, bytes]:
    """The inventories that `inventory.py --pieces` printed on several nodes, by node, each for `node_facts`.

    Lines of others, which a node's login messages may be, are passed over; so is a node of which a piece is missing
    or that cannot be unpacked: to the caller it is a node that gave no answer.
    """
    pieces: dict[str, dict[str, str]] = defaultdict(dict)
    for line in lines:
        found = _PIECE.fullmatch(line.strip())
        if found:
            pieces[found[1]][found[2]] = found[3]
    unpacked = ((node, _unpacked(parts)) for node, parts in pieces.items())
    return {node: line for node, line in unpacked if line is not None}


def _unpacked(parts: dict[str, str]) -> bytes | None:
    packed = "".join(parts.get(f"{number}/{len(parts)}", "!") for number in range(1, len(parts) + 1))
    unpacking = zlib.decompressobj()
    try:
        line = unpacking.decompress(base64.b64decode(packed, validate=True), _MAX_LINE)
    except (binascii.Error, zlib.error):
        return None
    return line if unpacking.eof else None
