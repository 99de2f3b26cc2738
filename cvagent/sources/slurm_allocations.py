"""What runs hold on nodes that they may share: asked for all at once when there is a new one, kept until it is told.

Slurm forgets it when the run ends, and no record of accounting has it.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple, Protocol

from cvagent.clients.gres import Part, Size
from cvagent.clients.hostlist import unfold
from cvagent.clients.slurm import Slurm
from cvagent.model import SLURM_STATES, Ask, Identity, NodeFacts, Run, State
from cvagent.model.holdings import Allocation, Grant, Sharing
from cvagent.model.nodes import node_facts

_SIZES_AGE_S = 3600
# A run that slurmctld shows no longer may come up in accounting for so long.
_KEPT_S = 600
_FORGED = "a name or comment looks like Slurm's own word on what it holds, so neither is believed"


class FactReader(Protocol):
    """What nodes said of themselves."""

    def of(self, nodes: Collection[str]) -> dict[str, tuple[bytes, float]]:
        """By node its newest line and the epoch second it was collected at; a node without any is left out."""
        ...


class Granted(NamedTuple):
    """See Observation."""

    allocations: Mapping[Identity, Allocation] = {}
    facts: Mapping[str, NodeFacts] = {}


class Allocations:
    """Remembers what was granted to the runs that the store does not know yet.

    Args:
        everything: Also look at the nodes of runs that have theirs to themselves; Slurm need not be asked for that.
    """

    def __init__(self, slurm: Slurm, store: FactReader, *, everything: bool = False) -> None:
        self._slurm = slurm
        self._store = store
        self._everything = everything
        self._kept: dict[Identity, Allocation] = {}
        self._sizes: Mapping[str, Size] = {}
        self._sizes_at = 0

    def look(self, ask: Ask, live: Mapping[Identity, Run]) -> Granted:
        """What new runs among the live ones hold, and what their nodes said. Raises SourceError or StoreError."""
        fresh = [run for run in self._untold(live.values(), ask) if self._is_new(run)]
        if not fresh and not self._kept:
            return Granted()
        if shared := [run for run in fresh if not run.exclusive]:
            self._ask(shared, ask.now)
        self._kept |= {run.identity: _whole(run, ask.now) for run in fresh if run.exclusive}
        self._kept = {key: kept for key, kept in self._kept.items() if _is_open(key, kept, ask, live)}
        recent = {key: kept for key, kept in self._kept.items() if kept.at > ask.now - _KEPT_S}
        return Granted(recent, self._facts(recent.values()))

    def _untold(self, runs: Iterable[Run], ask: Ask) -> list[Run]:
        """In one pass: nearly all of many runs were told, and are where they were."""
        known, everything = ask.known, self._everything
        return [
            run
            for run in runs
            if (everything or not run.exclusive)
            and ((item := known.get(run.identity)) is None or item.document.nodes != run.nodes)
            and _is_untold(run, ask)
        ]

    def _is_new(self, run: Run) -> bool:
        goes_on = SLURM_STATES.get(run.word) is State.RUNNING and run.word != "COMPLETING"
        return goes_on and bool(run.nodes) and run.identity not in self._kept

    def _ask(self, runs: Collection[Run], now: int) -> None:
        held, doubtful = self._slurm.granted({run.identity.job_id for run in runs})
        for run in runs:
            job_id = run.identity.job_id
            doubt = _FORGED if job_id in doubtful else ""
            self._kept[run.identity] = self._allocation(run, held.get(job_id, {}), doubt, now)

    def _allocation(self, run: Run, parts: Mapping[str, Part], doubt: str, now: int) -> Allocation:
        if not doubt and not _are_nodes(parts, run.nodes):
            doubt = "Slurm did not tell what it holds"
        if doubt:
            return Allocation(now, doubt=doubt)
        sizes = {node: self._size(node, now) for node in parts}
        if unknown := [node for node, size in sizes.items() if size is None]:
            return Allocation(now, doubt=f"Slurm did not tell the size of {unknown[0]}")
        return Allocation(
            now,
            {
                node: Grant(held, cpus >= size.cpus, size.gres)
                for node, (held, cpus) in parts.items()
                if (size := sizes[node])
            },
        )

    def _size(self, node: str, now: int) -> Size | None:
        outdated = now - self._sizes_at > _SIZES_AGE_S
        if outdated or (node not in self._sizes and self._sizes_at != now):
            self._sizes, self._sizes_at = self._slurm.sizes(), now
        return self._sizes.get(node)

    def _facts(self, allocations: Iterable[Allocation]) -> dict[str, NodeFacts]:
        facts = {}
        nodes = {node for allocation in allocations for node in allocation.grants}
        for node, (line, _) in self._store.of(nodes).items():
            with suppress(ValueError):  # of another release: it is as if nothing was there
                facts[node] = node_facts(line)
        return facts


def _is_untold(run: Run, ask: Ask) -> bool:
    """Whether the store knows nothing of it, or its interfaces on other nodes: it was resized."""
    item = ask.known.get(run.identity)
    if item is None:
        return True
    return item.document.sharing is Sharing.INTERFACES and item.document.nodes != run.nodes


def _is_open(identity: Identity, allocation: Allocation, ask: Ask, live: Mapping[Identity, Run]) -> bool:
    """Whether it is still to be told; a run that nobody wants to be told of is not to be asked about again."""
    run = live.get(identity)
    if run:
        return _is_untold(run, ask)
    return identity not in ask.known and allocation.at > ask.now - _KEPT_S


def _whole(run: Run, now: int) -> Allocation:
    return Allocation(now, {node: Grant({}, whole=True) for node in unfold(run.nodes)})


def _are_nodes(parts: Mapping[str, Part], hostlist: str) -> bool:
    """Whether what was told is of all these nodes and no others."""
    return parts.keys() == {hostlist} or parts.keys() == set(unfold(hostlist))
