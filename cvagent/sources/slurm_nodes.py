"""Slurm's nodes and the newest that each said of its hardware, as one observation."""

import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from msgspec import Struct, json

from cvagent.clients.slurm_nodes import SlurmNode, SlurmNodes
from cvagent.errors import SourceError
from cvagent.model import Ask, Delay, NodeFacts, NodesSeen
from cvagent.model.nodes import node_facts, remembering
from cvagent.sources.node_facts import Inventory
from cvagent.sources.slurm_allocations import FactReader

log = logging.getLogger(__name__)

_DAY_S = 86_400
_LONGEST_WAIT_S = 3600


class FactStore(FactReader, Protocol):
    """Keeps what nodes said, line by line."""

    def after(self, at: float) -> dict[str, tuple[bytes, float]]:
        """By node the line and the epoch second it was collected at, for all collected later than `at`."""
        ...

    def keep(self, lines: Mapping[str, bytes], at: float) -> None:
        """Put these in the place of what there was."""
        ...

    def forget(self, nodes: Iterable[str]) -> None:
        """Drop what these said."""
        ...


class _Said(Struct, frozen=True):
    facts: NodeFacts
    at: float


class _Late(Struct):
    """A node whose facts are overdue: since when, how often it was asked in vain, and when it is asked again."""

    since: int
    failures: int = 0
    next_at: float = 0.0
    reason: str = ""


class ClusterNodes:
    """A `ports.Source` over the cluster's commands and the nodes' own inventories.

    Args:
        max_age_s: A node is asked again when what it said is older than this, or when it booted since.
        retry_s: Wait after a node was asked in vain; twice as long each time, an hour at most.
    """

    def __init__(
        self, slurm: SlurmNodes, inventory: Inventory, store: FactStore, max_age_s: float, retry_s: float
    ) -> None:
        self._slurm = slurm
        self._inventory = inventory
        self._store = store
        self._max_age_s = max_age_s
        self._retry_s = retry_s
        self._said: dict[str, _Said] = {}
        self._late: dict[str, _Late] = {}

    def observe(self, ask: Ask) -> NodesSeen:
        """Ask Slurm, and those nodes that have not told lately. Raises SourceError when Slurm does not answer."""
        nodes = self._slurm.nodes()
        self._recall(nodes, ask.now)
        self._mark_late(nodes, ask.now)
        self._ask(nodes, [name for name, late in self._late.items() if late.next_at <= ask.now], ask.now)
        return self._seen(nodes, ask.now)

    def ask_now(self, names: Collection[str], now: int) -> NodesSeen:
        """Ask these nodes whatever is known of them. Raises SourceError like `observe`."""
        nodes = self._slurm.nodes()
        if strangers := sorted(set(names) - nodes.keys()):
            raise SourceError(f"Slurm knows no node {', '.join(strangers)[:200]}")
        self._recall(nodes, now)
        self._late = {name: _Late(now) for name in names or nodes}
        self._ask(nodes, list(self._late), now)
        return self._seen(nodes, now)

    def _seen(self, nodes: Mapping[str, SlurmNode], now: int) -> NodesSeen:
        facts = {name: self._said[name].facts if name in self._said else None for name in nodes}
        delays = {name: Delay(late.reason, late.since) for name, late in self._late.items() if late.reason}
        return NodesSeen(now, facts, delays)

    def _recall(self, nodes: Mapping[str, SlurmNode], now: int) -> None:
        """Read what was added to the store, and drop what nodes said that left the cluster a day ago."""
        newest = max((said.at for said in self._said.values()), default=0.0)
        for name, (line, at) in self._store.after(newest).items():
            with suppress(ValueError):  # of another release: it is as if nothing was there
                self._said[name] = _Said(_read(name, line), at)
        gone = [name for name, said in self._said.items() if name not in nodes and said.at < now - _DAY_S]
        if gone:
            self._store.forget(gone)
            self._said = {name: said for name, said in self._said.items() if name not in gone}

    def _mark_late(self, nodes: Mapping[str, SlurmNode], now: int) -> None:
        since = {name: self._late_since(node, now) for name, node in nodes.items()}
        self._late = {name: self._late.get(name, _Late(at)) for name, at in since.items() if at is not None}

    def _late_since(self, node: SlurmNode, now: int) -> int | None:
        """Epoch second from which on this node should have been asked anew; None when it need not be."""
        said = self._said.get(node.name)
        if said is None:
            return now
        if node.booted_at and node.booted_at > said.at:
            return node.booted_at
        return int(said.at + self._max_age_s) if said.at + self._max_age_s <= now else None

    def _ask(self, nodes: Mapping[str, SlurmNode], due: Collection[str], now: int) -> None:
        try:
            answer = self._inventory.ask(nodes, due)
        except SourceError as error:
            log.warning("no inventory: %s", error)
            self._blame(dict.fromkeys(due, str(error)), due, now)
            return
        unreadable = self._take(answer.lines, now)
        self._blame({**answer.reasons, **unreadable}, {*answer.failed, *unreadable}, now)

    def _take(self, lines: Mapping[str, bytes], now: int) -> dict[str, str]:
        """Keep what can be read; by node, what is wrong with the rest."""
        good, wrong = {}, {}
        for name, line in lines.items():
            try:
                facts = _read(name, line)
            except ValueError as error:
                wrong[name] = f"gave no readable inventory: {error}"[:200]
                continue
            before = self._said.get(name)
            good[name] = remembering(facts, before.facts if before else None)
            self._late.pop(name, None)
        self._store.keep({name: json.encode(facts) for name, facts in good.items()}, now)
        self._said |= {name: _Said(facts, now) for name, facts in good.items()}
        return wrong

    def _blame(self, reasons: Mapping[str, str], failed: Collection[str], now: int) -> None:
        for name, reason in reasons.items():
            late = self._late.setdefault(name, _Late(now))
            late.reason = reason
            if name in failed:
                late.next_at = now + min(self._retry_s * 2**late.failures, _LONGEST_WAIT_S)
                late.failures = min(late.failures + 1, 20)


def _read(name: str, line: bytes) -> NodeFacts:
    """What a node said of itself. Raises ValueError when it cannot be read, or speaks of another."""
    facts = node_facts(line)
    if facts.node not in {None, name}:
        raise ValueError(f"it speaks of {facts.node}")
    return facts
