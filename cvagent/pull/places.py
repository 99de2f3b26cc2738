"""Decides which nodes or interfaces an allocation has. What a tenant may write counts only within the allow-list."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from ClusterShell.NodeSet import NodeSetException
from msgspec import Struct

from cvagent.clients.hostlist import MOST_NODES, unfold, unfold_at_most
from cvagent.model.orders import Resource
from cvagent.model.tenants import OBJECT, TenantsSeen

_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SHOWN = 60
_BEYOND = 64


class PlaceRules(Struct, frozen=True):
    """What the operator decided.

    Attributes:
        sources: Where nodes are looked for, the first that names any counts: reservation, partition, metadata, map,
            request (what the tenant wrote) and jobs.
        interfaces: Tell interfaces in place of nodes, unless what names the nodes says which.
        nics: In that case the interfaces of a node whose name it finds.
        allowed: Nodes that a tenant may claim.
        accounts: Of the operator's own map: hostlists by account.
    """

    sources: tuple[str, ...] = ("reservation", "partition", "metadata", "map")
    interfaces: bool = False
    nics: re.Pattern[str] = re.compile("")
    allowed: frozenset[str] = frozenset()
    accounts: Mapping[str, str] = {}


class Place(NamedTuple):
    """Where a tenant is: nodes, or interfaces. Neither: nowhere."""

    nodes: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()


class Claim(NamedTuple):
    """What gives a place.

    At the portal `{"v": 1, "mode": "node", "nodes": "gpu[001-016]", "interfaces": [], "nics_per_node": ["eth1"]}`.

    Attributes:
        interfaces: MACs, in place of the nodes' own.
        by_interface: Interfaces are told, not nodes.
        nics: The names of those of each node's interfaces that count; none leaves it to the rules.
    """

    nodes: tuple[str, ...]
    interfaces: tuple[str, ...]
    by_interface: bool
    nics: tuple[str, ...]


def place_of(resource: Resource, account: str, seen: TenantsSeen, rules: PlaceRules) -> Place:
    """Where an allocation is. Raises ValueError, which says why it cannot be known."""
    for source in rules.sources:
        claim = _claim(source, resource, account, seen, rules)
        if claim and (claim.nodes or claim.interfaces):
            return _place(claim, seen, rules)
    return Place()


def _claim(source: str, resource: Resource, account: str, seen: TenantsSeen, rules: PlaceRules) -> Claim | None:
    slurm = {"reservation": seen.places.reservations, "partition": seen.places.partitions, "jobs": seen.places.jobs}
    if source in slurm:
        return _nodes(slurm[source].get(account, ()), rules)
    if source == "map":
        return _nodes([rules.accounts[account]] if account in rules.accounts else [], rules)
    if source == "metadata":
        return _read(resource.backend_metadata.get(OBJECT), rules, MOST_NODES)
    # No claim within the allow-list names more; a little beyond it is unfolded, so that it can be said what.
    most = min(len(rules.allowed) + _BEYOND, MOST_NODES)
    written = (_read(told.get(OBJECT), rules, most) for told in (resource.attributes, resource.options))
    claim = next(filter(None, written), None)
    if claim and (claim.interfaces or not rules.allowed.issuperset(claim.nodes)):
        foreign = sorted(set(claim.nodes) - rules.allowed) or list(claim.interfaces)
        raise ValueError(f"the tenant claims {', '.join(foreign)[:_SHOWN]}, which CVAGENT_TENANT_ALLOW does not allow")
    return claim


def _nodes(hostlists: Iterable[str], rules: PlaceRules) -> Claim:
    names = dict.fromkeys(node for hostlist in hostlists for node in _checked(unfold, hostlist))
    return Claim(tuple(names), (), rules.interfaces, ())


def _read(told: Any, rules: PlaceRules, most: int) -> Claim | None:
    """Read an object that may be anything and name so many nodes at most. Raises ValueError."""
    if told is None:
        return None
    if not isinstance(told, dict) or told.get("v", 1) != 1:
        raise ValueError(f"its cloudvision object is not of version 1: {_shown(told)}")
    nodes = told.get("nodes") or ""
    names = _checked(partial(unfold_at_most, most=most), nodes) if isinstance(nodes, str) else ()
    if not isinstance(nodes, str) or not all(map(_NODE.fullmatch, names)):
        raise ValueError(f"its nodes are no hostlist: {_shown(nodes)}")
    macs = tuple(mac.lower() for mac in _texts(told, "interfaces"))
    if not all(map(_MAC.fullmatch, macs)):
        raise ValueError("its interfaces are no MACs")
    mode = told.get("mode", "interface" if macs or rules.interfaces else "node")
    if mode not in ("node", "interface"):
        raise ValueError(f"its mode is {_shown(mode)}, neither node nor interface")
    by_interface = mode == "interface"
    return Claim(names, macs if by_interface else (), by_interface, _texts(told, "nics_per_node"))


def _checked(unfolded: Callable[[str], tuple[str, ...]], hostlist: str) -> tuple[str, ...]:
    try:
        return unfolded(hostlist)
    except (ValueError, NodeSetException) as error:
        raise ValueError(f"{_shown(hostlist)} cannot be taken for a hostlist: {str(error)[:_SHOWN]}") from None


def _texts(told: Mapping[str, Any], field: str) -> tuple[str, ...]:
    value = told.get(field) or []
    if isinstance(value, list) and len(value) <= MOST_NODES and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise ValueError(f"its {field} are no list of texts")


def _shown(value: Any) -> str:
    """What a stranger wrote, in a line of ours: it may be long, or deep."""
    return repr(value[:_SHOWN]) if isinstance(value, str) else f"something of type {type(value).__name__}"


def _place(claim: Claim, seen: TenantsSeen, rules: PlaceRules) -> Place:
    """Nodes, or the MACs of these nodes' interfaces."""
    if not claim.by_interface:
        return Place(nodes=claim.nodes)
    macs = [*claim.interfaces, *([] if claim.interfaces else _macs(claim, seen, rules))]
    return Place(interfaces=tuple(dict.fromkeys(macs)))


def _macs(claim: Claim, seen: TenantsSeen, rules: PlaceRules) -> Iterator[str]:
    """Raises ValueError for a node whose interfaces are not known."""
    for node in claim.nodes:
        ports = seen.ports.get(node, {})
        found = [mac for name, mac in ports.items() if (name in claim.nics if claim.nics else rules.nics.search(name))]
        if not found:
            raise ValueError(f"no interface of {node} is known (cvagent inventory; CVAGENT_TENANT_NICS)")
        yield from found
