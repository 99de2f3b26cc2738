"""Decides which interfaces belong to what a job holds on a shared node.

`gres/nic` names NICs: exact. A GPU leads to the nearest port in the PCI tree: inferred, as NCCL and most sites
pair them. How it chooses:

- Candidates are ports with a MAC on PCI. Where some have an RDMA device, those alone: that is what GPUs talk over, and
  a management port does not become a GPU's for being near. A PF and its VFs are one port: who has it has all of them.
- Nearest is where the paths part last: same switch (the lower, the nearer), same root port, same NUMA node, other.
- GPUs with the same nearest cards share them out in PCI order, as many each, in rounds: first all get their first. What
  does not fill a round belongs to nobody. So distinct GPUs get distinct cards, and a GPU alone beside a card of two
  ports gets both. With fewer cards than GPUs the ports are shared out; with fewer ports they are taken in turn.
- Members of a bond come last: they are storage or management as a rule.
- A GPU with no port below its root port looks at its NUMA node, then anywhere; ports that are no nearer GPU's go first.

Neither link state nor speed counts: what belongs to a GPU must not change when a cable is pulled.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from functools import cached_property
from itertools import groupby

from msgspec import Struct
from msgspec.structs import replace

from cvagent.model.nodes import Gpu, Interface, NodeFacts

# Indices of these name GPUs; a share of a GPU leads where the whole one does.
_GPU_GRES = ("gpu", "shard", "mps")
# Length of what two PCI paths begin with: root complex, root port, then at least one bridge of a switch.
_ROOT_COMPLEX, _ROOT_PORT = 1, 2

Held = Mapping[str, tuple[int, ...] | None]


class How(str, Enum):
    """How sure it is which interfaces a job holds on a node."""

    EXACT = "exact"
    INFERRED = "inferred"
    UNRESOLVED = "unresolved"


class Nearness(str, Enum):
    """Where the paths of a GPU and its port part."""

    SWITCH = "same switch"
    ROOT_PORT = "same root port"
    NUMA_NODE = "same NUMA node"
    OTHER = "other"


class Link(Struct, frozen=True):
    """How one index led to interfaces.

    Attributes:
        gres: gpu or nic; shares of a GPU count as gpu.
        gpu: Its PCI address; None for a NIC.
        interfaces: A port with its VFs, or several; those without a MAC, too.
        nearness: None for a NIC.
    """

    gres: str
    index: int
    gpu: str | None
    interfaces: tuple[Interface, ...]
    nearness: Nearness | None


class Resolution(Struct, frozen=True):
    """Which interfaces belong to what a job holds on a node.

    Attributes:
        macs: Each once, never empty; None when they cannot be told.
        reason: Why not; None when they can.
    """

    how: How
    macs: tuple[str, ...] | None
    links: tuple[Link, ...] = ()
    reason: str | None = None


class _Port(Struct, frozen=True):
    """What a cable goes into: a PF or regular function with its VFs, or a VF whose PF is not to be seen."""

    function: Interface
    vfs: tuple[Interface, ...]

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        return (self.function, *self.vfs)

    @property
    def card(self) -> str:
        """PCI address without the function's number."""
        return (self.function.pci or "").rpartition(".")[0]


class Topology:
    """One node's ports, and which of them belong to each GPU.

    Args:
        facts: Of the interfaces that are wanted (`select`), no others.
    """

    def __init__(self, facts: NodeFacts) -> None:
        self.facts = facts
        self.ports = _ports(facts.interfaces)

    def resolve(self, held: Held, configured: Mapping[str, int] | None = None) -> Resolution:
        """Say which interfaces belong to these indices.

        Args:
            held: Indices by GRES name; None: it holds some, and Slurm does not tell which.
            configured: How many of a GRES Slurm counts on this node. Where the inventory counts otherwise, the indices
                mean something else (parts of GPUs, some of the NICs), and nothing is concluded from them.
        """
        if held.get("nic"):
            return self._exactly(held["nic"] or (), (configured or {}).get("nic", len(self.ports)))
        found = [held[name] for name in _GPU_GRES if name in held]
        indices = sorted({index for some in found for index in some or ()})
        if None in found:
            return _unresolved("Slurm does not tell which GPUs it holds")
        if not indices:
            return _unresolved("it holds no GPU, and no NIC that Slurm tells of")
        return self._inferred(indices, (configured or {}).get("gpu", len(self.facts.gpus)))

    def _exactly(self, indices: Sequence[int], configured: int) -> Resolution:
        if configured != len(self.ports):
            return _unresolved(f"Slurm counts {configured} NICs and the inventory {len(self.ports)}")
        if max(indices) >= configured:
            return _unresolved(f"Slurm tells of NIC {max(indices)} and the inventory of {configured} NICs")
        return _resolution(How.EXACT, [Link("nic", i, None, self.ports[i].interfaces, None) for i in indices])

    def _inferred(self, indices: Sequence[int], configured: int) -> Resolution:
        gpus = self.facts.gpus
        if configured != len(gpus):
            return _unresolved(f"Slurm counts {configured} GPUs and the inventory {len(gpus)}")
        if indices[-1] >= configured:
            return _unresolved(f"Slurm tells of GPU {indices[-1]} and the inventory of {configured} GPUs")
        return _resolution(How.INFERRED, [self._of_gpu[index] for index in indices])

    @cached_property
    def _of_gpu(self) -> list[Link]:
        """A link for each GPU, in Slurm's order."""
        gpus = sorted(self.facts.gpus, key=lambda gpu: _pci_order(gpu.pci))
        near = _nearest(gpus, _candidates(self.ports))
        owned = _shared_out(near)
        return [
            Link("gpu", index, gpu.pci, _interfaces(owned[gpu.pci]), _nearness(near[gpu.pci][0]))
            for index, gpu in enumerate(gpus)
        ]


class Topologies:
    """Topologies by node, kept while the node's facts stay the same."""

    def __init__(self) -> None:
        self._kept: dict[str, Topology] = {}

    def of(self, node: str, facts: NodeFacts) -> Topology:
        """The node's topology."""
        kept = self._kept.get(node)
        if kept is None or (kept.facts is not facts and kept.facts != facts):
            kept = self._kept[node] = Topology(facts)
        return kept


def select(facts: NodeFacts, name_filter: re.Pattern[str], kind: str = "all") -> NodeFacts:
    """The facts with wanted interfaces alone. A VF without a name goes by its PF's.

    Args:
        facts: As the node told them.
        name_filter: Found in the name of each wanted interface.
        kind: all, pf, vf or regular.
    """
    pfs = {interface.pci: interface.name for interface in facts.interfaces if interface.name and interface.pci}
    wanted = (
        interface
        for interface in facts.interfaces
        if kind in {"all", interface.kind}
        and name_filter.search(interface.name or pfs.get(interface.parent or "") or "")
    )
    return replace(facts, interfaces=tuple(wanted))


def whole_node(facts: NodeFacts) -> Resolution:
    """All interfaces, for a node that a job has to itself."""
    macs = _macs(facts.interfaces)
    return Resolution(How.EXACT, macs) if macs else _unresolved("no interface of this node has a MAC")


def _resolution(how: How, links: Sequence[Link]) -> Resolution:
    macs = _macs(interface for link in links for interface in link.interfaces)
    if not macs or not all(_is_known(link) for link in links):
        return Resolution(How.UNRESOLVED, None, tuple(links), "a part of it leads to no interface with a known MAC")
    return Resolution(how, macs, tuple(links))


def _is_known(link: Link) -> bool:
    """InfiniBand has nothing to tell, which is no gap."""
    return any(interface.mac or interface.guid for interface in link.interfaces)


def _unresolved(reason: str) -> Resolution:
    return Resolution(How.UNRESOLVED, None, reason=reason)


def _ports(interfaces: Sequence[Interface]) -> list[_Port]:
    """Ports in PCI order; those that are no PCI function come last, by name."""
    functions = {interface.pci for interface in interfaces if interface.kind != "vf"} - {None}
    vfs: dict[str | None, list[Interface]] = defaultdict(list)
    for interface in interfaces:
        if interface.kind == "vf" and interface.parent in functions:
            vfs[interface.parent].append(interface)
    heads = [interface for interface in interfaces if interface.kind != "vf" or interface.parent not in functions]
    heads.sort(key=lambda head: (head.pci is None, _pci_order(head.pci or ""), head.name or ""))
    return [_Port(head, tuple(vfs.pop(head.pci, ()))) for head in heads]


def _candidates(ports: Iterable[_Port]) -> list[_Port]:
    on_pci = [port for port in ports if port.function.pci and _macs(port.interfaces)]
    return [port for port in on_pci if port.function.rdma] or on_pci


def _nearest(gpus: Iterable[Gpu], ports: Sequence[_Port]) -> dict[str, tuple[int, list[_Port]]]:
    """The ports nearest to each GPU, by its PCI address, with their depth; none on a node without ports."""
    near = {}
    for gpu in gpus:
        depths = [_depth(gpu, port.function) for port in ports]
        deepest = max(depths, default=0)
        near[gpu.pci] = deepest, [port for port, depth in zip(ports, depths, strict=True) if depth == deepest]
    return near


def _depth(gpu: Gpu, port: Interface) -> int:
    """How much of their PCI paths two functions share: 2 and more below one root port, 1 on one NUMA node, else 0."""
    shared = 0
    for ours, theirs in zip(gpu.pci_path, port.pci_path, strict=False):
        if ours != theirs:
            break
        shared += 1
    same_numa_node = gpu.numa_node is not None and gpu.numa_node == port.numa_node
    return max(shared, _ROOT_COMPLEX if same_numa_node else 0)


def _nearness(depth: int) -> Nearness:
    if depth > _ROOT_PORT:
        return Nearness.SWITCH
    return {0: Nearness.OTHER, _ROOT_COMPLEX: Nearness.NUMA_NODE, _ROOT_PORT: Nearness.ROOT_PORT}[depth]


def _shared_out(near: Mapping[str, tuple[int, list[_Port]]]) -> dict[str, list[_Port]]:
    """Which ports each GPU gets; nearer GPUs choose before farther ones."""
    rivals: dict[tuple[int, tuple[str, ...]], list[str]] = defaultdict(list)
    for gpu, (depth, ports) in near.items():
        rivals[-depth, tuple(f"{port.function.pci} {port.function.name}" for port in ports)].append(gpu)
    owned: dict[str, list[_Port]] = {}
    taken: set[int] = set()
    for _, gpus in sorted(rivals.items()):
        ports = near[gpus[0]][1]
        dealt = _dealt(len(gpus), [port for port in ports if id(port) not in taken] or ports)
        owned.update(zip(gpus, dealt, strict=True))
        taken.update(id(port) for hand in dealt for port in hand)
    return owned


def _dealt(hands: int, ports: Sequence[_Port]) -> list[list[_Port]]:
    """Deal whole cards in full rounds; with too few of them ports; with too few of those in turn."""
    ordered = sorted(ports, key=lambda port: port.function.bond is not None)
    units = [list(group) for _, group in groupby(ordered, key=lambda port: port.card)]
    if len(units) < hands:
        units = [[port] for port in ordered]
    if len(units) < hands:
        return [units[hand % len(units)] if units else [] for hand in range(hands)]
    full = len(units) - len(units) % hands
    return [[port for unit in units[hand:full:hands] for port in unit] for hand in range(hands)]


def _interfaces(ports: Iterable[_Port]) -> tuple[Interface, ...]:
    return tuple(interface for port in ports for interface in port.interfaces)


def _macs(interfaces: Iterable[Interface]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(interface.mac for interface in interfaces if interface.mac))


def _pci_order(address: str) -> tuple[int, str]:
    """The kernel writes domains with four digits or more."""
    return len(address), address
