"""What a run holds on each of its nodes, and which interfaces belong to that."""

from collections.abc import Mapping
from enum import Enum

from msgspec import Struct

# Device indices by the GRES's name, types left out; None: it holds some, and Slurm does not tell which.
Held = Mapping[str, tuple[int, ...] | None]


class Sharing(str, Enum):
    """Whether a run has its nodes to itself, and so what a sink is told. Decided once: Set clears no field.

    OWN: it has, and its nodes are told. INTERFACES: it need not, and its interfaces are told. SHARED: it may not, and
    its nodes are told, as no more is known. UNKNOWN: it was over when it was first seen; its nodes are told.
    """

    OWN = "own"
    INTERFACES = "interfaces"
    SHARED = "shared"
    UNKNOWN = "unknown"


class How(str, Enum):
    """How sure it is which interfaces belong to a run on a node."""

    EXACT = "exact"
    INFERRED = "inferred"
    UNRESOLVED = "unresolved"


class Nearness(str, Enum):
    """Where the paths of a GPU and its port part."""

    SWITCH = "same switch"
    ROOT_PORT = "same root port"
    NUMA_NODE = "same NUMA node"
    OTHER = "other"


class Port(Struct, frozen=True, array_like=True, gc=False):
    """An interface as it was when it was given to a run.

    Attributes:
        name: None for a VF that had moved into another namespace.
        mac: None for InfiniBand, which has a guid instead.
    """

    name: str | None
    mac: str | None
    guid: str | None
    pci: str | None


class Link(Struct, frozen=True, array_like=True, gc=False):
    """How one thing that a run holds led to interfaces.

    Attributes:
        gres: gpu (a share of one counts as the GPU), nic, or node for a whole node.
        index: Slurm's; None for a whole node.
        gpu: PCI address; None unless it is one.
        nearness: None unless it is a GPU.
        ports: A port with its VFs, or several.
    """

    gres: str
    index: int | None
    gpu: str | None
    nearness: Nearness | None
    ports: tuple[Port, ...]


class Holding(Struct, frozen=True, array_like=True, gc=False):
    """Which interfaces belong to a run on one node.

    Attributes:
        node: Its name; a hostlist where Slurm told nothing about any of several nodes.
        reason: Why they cannot be told; empty when they can.
    """

    node: str
    how: How
    links: tuple[Link, ...] = ()
    reason: str = ""

    @property
    def macs(self) -> tuple[str, ...]:
        """Each once; none when they cannot be told."""
        if self.how is How.UNRESOLVED:
            return ()
        return tuple(dict.fromkeys(port.mac for link in self.links for port in link.ports if port.mac))


class Grant(Struct, frozen=True):
    """What Slurm granted to a run on one node.

    Attributes:
        whole: It holds every CPU that jobs can have, so that there is no other job.
        counted: How many of a GRES Slurm counts on the node, by name.
    """

    held: Held
    whole: bool = False
    counted: Mapping[str, int] = {}


class Allocation(Struct, frozen=True):
    """What Slurm granted to a run, as it was told while the run went on.

    Attributes:
        at: Epoch seconds at which it was asked for.
        grants: By node.
        doubt: Why nothing of it is believed; empty when it is.
    """

    at: int
    grants: Mapping[str, Grant] = {}
    doubt: str = ""
