"""Decides which interfaces belong to what a job holds on a shared node.

`gres/nic` names NICs in PCI order: exact. They are all ports, all with an RDMA device, or those of them with a MAC:
whichever are as many as Slurm counts. A GPU leads to the nearest port in the PCI tree: inferred, as NCCL and most
sites pair them. How it chooses:

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
from functools import cached_property
from itertools import groupby

from msgspec import Struct
from msgspec.structs import replace

from cvagent.model.holdings import Held, Holding, How, Link, Nearness, Port
from cvagent.model.nodes import Gpu, Interface, NodeFacts

# Indices of these name GPUs; a share of a GPU leads where the whole one does.
_GPU_GRES = ("gpu", "shard", "mps")
# Length of what two PCI paths begin with: root complex, root port, then at least one bridge of a switch.
_ROOT_COMPLEX, _ROOT_PORT = 1, 2


class _Socket(Struct, frozen=True):
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


def why_hopeless(held: Held) -> str:
    """Why what a run holds leads to no interface, whatever the node says of itself; empty when it may."""
    if held.get("nic"):
        return ""
    if any(held[name] is None for name in _GPU_GRES if name in held):
        return "Slurm does not tell which GPUs it holds"
    return "" if _gpus(held) else "it holds no GPU, and no NIC that Slurm tells of"


def _gpus(held: Held) -> list[int]:
    return sorted({index for name in _GPU_GRES for index in held.get(name) or ()})


class Topology:
    """One node's ports, and which of them belong to each GPU.

    Args:
        node: Its name in Slurm.
        facts: Of the interfaces that are wanted (`select`), no others.
    """

    def __init__(self, node: str, facts: NodeFacts) -> None:
        self._node = node
        self._facts = facts
        self._sockets = _sockets(facts.interfaces)

    def whole(self) -> Holding:
        """All interfaces: of a run that has the node to itself."""
        every = Link("node", None, None, None, tuple(map(_port, self._facts.interfaces)))
        if any(port.mac for port in every.ports):
            return Holding(self._node, How.EXACT, (every,))
        return self._unresolved("no interface of this node has a MAC")

    def resolve(self, held: Held, counted: Mapping[str, int] | None = None) -> Holding:
        """Say which interfaces belong to these indices.

        Args:
            held: What the run holds.
            counted: How many of a GRES Slurm counts on this node. Where the inventory counts otherwise, the indices
                mean something else (parts of GPUs, some of the NICs), and nothing is concluded from them.
        """
        counted = counted or {}
        if hopeless := why_hopeless(held):
            return self._unresolved(hopeless)
        if held.get("nic"):
            return self._exactly(held["nic"] or (), counted.get("nic", len(self._sockets)))
        return self._inferred(_gpus(held), counted.get("gpu", len(self._facts.gpus)))

    def _exactly(self, indices: Sequence[int], counted: int) -> Holding:
        rdma = [port for port in self._sockets if port.function.rdma]
        ports = next((some for some in (self._sockets, rdma, _candidates(rdma)) if len(some) == counted), None)
        if ports is None:
            return self._unresolved(f"Slurm counts {counted} NICs and the inventory {len(self._sockets)}")
        if max(indices) >= counted:
            return self._unresolved(f"Slurm tells of NIC {max(indices)} and counts {counted}")
        return self._resolved(How.EXACT, [Link("nic", index, None, None, _told([ports[index]])) for index in indices])

    def _inferred(self, indices: Sequence[int], counted: int) -> Holding:
        gpus = self._facts.gpus
        if counted != len(gpus):
            return self._unresolved(f"Slurm counts {counted} GPUs and the inventory {len(gpus)}")
        if indices[-1] >= counted:
            return self._unresolved(f"Slurm tells of GPU {indices[-1]} and counts {counted}")
        return self._resolved(How.INFERRED, [self._of_gpu[index] for index in indices])

    def _resolved(self, how: How, links: Sequence[Link]) -> Holding:
        holding = Holding(self._node, how, tuple(links))
        if holding.macs and all(_is_known(link) for link in links):
            return holding
        return replace(holding, how=How.UNRESOLVED, reason="a part of it leads to no interface with a known MAC")

    def _unresolved(self, reason: str) -> Holding:
        return Holding(self._node, How.UNRESOLVED, (), reason)

    @cached_property
    def _of_gpu(self) -> list[Link]:
        """A link for each GPU, in Slurm's order."""
        gpus = sorted(self._facts.gpus, key=lambda gpu: _pci_order(gpu.pci))
        near = _nearest(gpus, _candidates(self._sockets))
        owned = _shared_out(near)
        return [
            Link("gpu", index, gpu.pci, _nearness(near[gpu.pci][0]), _told(owned[gpu.pci]))
            for index, gpu in enumerate(gpus)
        ]


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


def _is_known(link: Link) -> bool:
    """InfiniBand has no MAC to tell, which is no gap."""
    return any(port.mac or port.guid for port in link.ports)


def _sockets(interfaces: Sequence[Interface]) -> list[_Socket]:
    """Ports in PCI order; those that are no PCI function come last, by name."""
    functions = {interface.pci for interface in interfaces if interface.kind != "vf"} - {None}
    vfs: dict[str | None, list[Interface]] = defaultdict(list)
    for interface in interfaces:
        if interface.kind == "vf" and interface.parent in functions:
            vfs[interface.parent].append(interface)
    heads = [interface for interface in interfaces if interface.kind != "vf" or interface.parent not in functions]
    heads.sort(key=lambda head: (head.pci is None, _pci_order(head.pci or ""), head.name or ""))
    return [_Socket(head, tuple(vfs.pop(head.pci, ()))) for head in heads]


def _candidates(ports: Iterable[_Socket]) -> list[_Socket]:
    on_pci = [port for port in ports if port.function.pci and _macs(port.interfaces)]
    return [port for port in on_pci if port.function.rdma] or on_pci


def _nearest(gpus: Iterable[Gpu], ports: Sequence[_Socket]) -> dict[str, tuple[int, list[_Socket]]]:
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


def _shared_out(near: Mapping[str, tuple[int, list[_Socket]]]) -> dict[str, list[_Socket]]:
    """Which ports each GPU gets; nearer GPUs choose before farther ones."""
    rivals: dict[tuple[int, tuple[str, ...]], list[str]] = defaultdict(list)
    for gpu, (depth, ports) in near.items():
        rivals[-depth, tuple(f"{port.function.pci} {port.function.name}" for port in ports)].append(gpu)
    owned: dict[str, list[_Socket]] = {}
    taken: set[int] = set()
    for _, gpus in sorted(rivals.items()):
        ports = near[gpus[0]][1]
        dealt = _dealt(len(gpus), [port for port in ports if id(port) not in taken] or ports)
        owned.update(zip(gpus, dealt, strict=True))
        taken.update(id(port) for hand in dealt for port in hand)
    return owned


def _dealt(hands: int, ports: Sequence[_Socket]) -> list[list[_Socket]]:
    """Deal whole cards in full rounds; with too few of them ports; with too few of those in turn."""
    ordered = sorted(ports, key=lambda port: port.function.bond is not None)
    units = [list(group) for _, group in groupby(ordered, key=lambda port: port.card)]
    if len(units) < hands:
        units = [[port] for port in ordered]
    if len(units) < hands:
        return [units[hand % len(units)] if units else [] for hand in range(hands)]
    full = len(units) - len(units) % hands
    return [[port for unit in units[hand:full:hands] for port in unit] for hand in range(hands)]


def _told(sockets: Iterable[_Socket]) -> tuple[Port, ...]:
    return tuple(_port(interface) for socket in sockets for interface in socket.interfaces)


def _port(interface: Interface) -> Port:
    return Port(interface.name, interface.mac, interface.guid, interface.pci)


def _macs(interfaces: Iterable[Interface]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(interface.mac for interface in interfaces if interface.mac))


def _pci_order(address: str) -> tuple[int, str]:
    """The kernel writes domains with four digits or more."""
    return len(address), address
