"""Decides how a run is told: by its nodes, or by the interfaces that belong to what it holds on nodes that it shares.

The ladder: a run with all its nodes to itself is told by them. Else every node must lead to interfaces: one that it has
to itself to all of them, a shared one to those of its NICs or GPUs. If one does not, the run is told by its nodes.
"""

import re
from functools import cached_property
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from cvagent.model import JobConfig, Observation, Run
from cvagent.model.holdings import Allocation, Grant, Holding, How, Sharing
from cvagent.push.interfaces import Topology, select, why_hopeless


class SharingRules(Struct, frozen=True):
    """What the operator decided.

    Attributes:
        resources: auto climbs the ladder; interface has runs with their nodes to themselves told by interfaces, too.
        interface_filter: Interfaces whose name it finds are told.
        interface_kind: all, or one of regular, pf and vf.
        patience_s: A new run is not told for so long while a node of its never told its interfaces: a node that was
            switched on just now, or an agent with an empty store, needs a while until the inventory is in.
    """

    resources: str = "auto"
    interface_filter: re.Pattern[str] = re.compile("")
    interface_kind: str = "all"
    patience_s: float = 180


class Told(NamedTuple):
    """See JobConfig."""

    sharing: Sharing
    holdings: tuple[Holding, ...] = ()


class Ladder:
    """Decides for the runs of one round. A run that nobody asked about is told by its nodes."""

    def __init__(self, observed: Observation, rules: SharingRules) -> None:
        self._observed = observed
        self._rules = rules

    def told(self, run: Run) -> Told | None:
        """How a new run is told; None while what its nodes have to say is to be waited for."""
        granted = self._observed.allocations.get(run.identity)
        if granted is None:
            return Told(Sharing.OWN if run.exclusive else Sharing.UNKNOWN)
        if granted.doubt:
            return Told(Sharing.SHARED, (Holding(run.nodes, How.UNRESOLVED, (), granted.doubt),))
        is_own = all(grant.whole for grant in granted.grants.values())
        if is_own and self._rules.resources != "interface":
            return Told(Sharing.OWN)
        holdings = self._holdings(granted)
        if all(holding.macs for holding in holdings):
            return Told(Sharing.INTERFACES, holdings)
        if run.ended_at is None and self._observed.at < granted.at + self._rules.patience_s and self._is_early(granted):
            return None
        return Told(Sharing.OWN if is_own else Sharing.SHARED, holdings)

    def moved(self, document: JobConfig, run: Run) -> JobConfig:
        """The document of a run that was told by its interfaces and is on other nodes now: the new ones, once known."""
        granted = self._observed.allocations.get(run.identity)
        if document.sharing is not Sharing.INTERFACES or granted is None or granted.doubt:
            return document
        holdings = self._holdings(granted)
        return replace(document, holdings=holdings) if all(holding.macs for holding in holdings) else document

    def _is_early(self, granted: Allocation) -> bool:
        """Whether what nodes have yet to say may lead to interfaces."""
        hopeless = any(not grant.whole and why_hopeless(grant.held) for grant in granted.grants.values())
        return not hopeless and not self._observed.facts.keys() >= granted.grants.keys()

    def _holdings(self, granted: Allocation) -> tuple[Holding, ...]:
        return tuple(self._holding(node, grant) for node, grant in granted.grants.items())

    def _holding(self, node: str, grant: Grant) -> Holding:
        topology = self._topologies.get(node)
        if topology is None:
            hopeless = not grant.whole and why_hopeless(grant.held)
            return Holding(node, How.UNRESOLVED, (), hopeless or "it has not told its interfaces")
        return topology.whole() if grant.whole else topology.resolve(grant.held, grant.counted)

    @cached_property
    def _topologies(self) -> dict[str, Topology]:
        name_filter, kind = self._rules.interface_filter, self._rules.interface_kind
        return {node: Topology(node, select(facts, name_filter, kind)) for node, facts in self._observed.facts.items()}
