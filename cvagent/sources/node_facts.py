"""Has nodes read their own hardware: in one job step for all that can take it, or by ssh."""

import logging
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from cvagent.clients.slurm_nodes import InventoryJob, SlurmNode, SlurmNodes
from cvagent.clients.ssh_nodes import SshNodes
from cvagent.errors import SourceError

log = logging.getLogger(__name__)

_BASES = frozenset({"idle", "mixed", "allocated"})
_HARMLESS = frozenset({"cloud", "dynamic_norm", "planned"})
_RESERVED = frozenset({"reserved", "maintenance"})
_NEEDED_MIB = 16
_MOST_STEPS = 16
_LEAST_S = 2.0
# Nobody answers there; a node that is busy, drained or down for Slurm alone may.
_UNREACHABLE = frozenset({"not_responding", "powered_down", "powering_up", "powering_down"})


class Answer(Struct, frozen=True):
    """What asking brought.

    Attributes:
        lines: By node, the inventory's line of JSON, not yet read.
        reasons: By node, why there is none.
        failed: Those of `reasons` that were asked in vain: not to be asked again at once.
    """

    lines: Mapping[str, bytes] = {}
    reasons: Mapping[str, str] = {}
    failed: Collection[str] = ()


class Inventory(Protocol):
    """A way to have nodes read their own hardware."""

    def ask(self, nodes: Mapping[str, SlurmNode], due: Collection[str]) -> Answer:
        """Ask those that are due. Takes a bounded time. Raises SourceError when nobody could be asked."""
        ...


class NoInventory:
    """Asks nobody: what the store has must do."""

    def ask(self, nodes: Mapping[str, SlurmNode], due: Collection[str]) -> Answer:
        """See Inventory."""
        del nodes, due
        return Answer()


class SshInventory:
    """Every node by ssh, whatever Slurm does with it: no job, and no wait for one that is busy.

    Args:
        limit_s: For all of them, in seconds.
    """

    def __init__(self, nodes: SshNodes, limit_s: float) -> None:
        self._nodes = nodes
        self._limit_s = limit_s

    def ask(self, nodes: Mapping[str, SlurmNode], due: Collection[str]) -> Answer:
        """See Inventory."""
        away = {name: reason for name in due if (reason := unreachable(nodes[name]))}
        able = [name for name in due if name not in away]
        if not able:
            return Answer(reasons=away)
        heard = self._nodes.inventories(able, self._limit_s)
        return Answer(heard.lines, away | heard.reasons, frozenset(heard.reasons))


class StepInventory:
    """One srun for all nodes that can take it; a node that spoils it is found by halving. One job at a time."""

    def __init__(self, slurm: SlurmNodes, job: InventoryJob) -> None:
        self._slurm = slurm
        self._job = job
        self._seen_jobs: dict[int, float] = {}

    def ask(self, nodes: Mapping[str, SlurmNode], due: Collection[str]) -> Answer:
        """See Inventory."""
        reasons = {name: why_not(nodes[name], self._job) for name in due}
        able = [name for name in due if not reasons[name]]
        if able and (busy := self._under_way()):
            return Answer(reasons=reasons | dict.fromkeys(able, busy))
        steps = _Steps(self._slurm, self._job)
        for partition, names in grouped(able, nodes, self._job.partition).items():
            steps.run(names, partition)
        if steps.spoiled:
            self._tidy()
        missing = {name: steps.reasons.get(name, "not tried: the time was over") for name in able}
        told = {name: reason for name, reason in (reasons | missing).items() if name not in steps.lines}
        return Answer(steps.lines, told, frozenset(steps.reasons))

    def _under_way(self) -> str:
        """Why no job may be started now; an overdue one is ended."""
        now = time.monotonic()
        self._seen_jobs = {job_id: self._seen_jobs.get(job_id, now) for job_id in self._slurm.jobs()}
        late = [job_id for job_id, since in self._seen_jobs.items() if now - since > self._job.time_s]
        if late:
            log.warning("the inventory jobs %s are overdue and cancelled", late)
            self._slurm.cancel(late)
        return f"another inventory is under way, job {min(self._seen_jobs)}" if self._seen_jobs else ""

    def _tidy(self) -> None:
        """An srun that did not end well may leave its job."""
        try:
            if left := self._slurm.jobs():
                self._slurm.cancel(left)
        except SourceError as error:
            log.warning("whether an inventory job is left is not known: %s", error)


class _Steps:
    """The steps of one round and what they brought.

    Attributes:
        spoiled: Whether one of them failed.
    """

    def __init__(self, slurm: SlurmNodes, job: InventoryJob) -> None:
        self.lines: dict[str, bytes] = {}
        self.reasons: dict[str, str] = {}
        self.spoiled = False
        self._slurm = slurm
        self._job = job
        self._until = time.monotonic() + job.time_s
        self._left = _MOST_STEPS

    def run(self, names: Sequence[str], partition: str) -> None:
        """Ask these nodes, all at once or by halves."""
        limit_s = self._until - time.monotonic()
        if limit_s < _LEAST_S or not self._left:
            return
        self._left -= 1
        brought = self._slurm.inventories(names, partition, self._job, limit_s)
        self.lines |= {name: line for name, line in brought.lines.items() if name in names}
        self.spoiled = self.spoiled or bool(brought.reason)
        missing = [name for name in names if name not in self.lines]
        if len(missing) == len(names) > 1 and "node" in brought.reason.lower():
            log.info("inventory of %d nodes: %s; they are asked by halves", len(names), brought.reason)
            middle = len(names) // 2
            self.run(names[:middle], partition)
            self.run(names[middle:], partition)
        else:
            self.reasons |= dict.fromkeys(missing, brought.reason or "did not answer")


def unreachable(node: SlurmNode) -> str:
    """Why a node is not worth trying by ssh; empty when it is."""
    return " ".join(sorted(node.words & _UNREACHABLE))


def why_not(node: SlurmNode, job: InventoryJob) -> str:
    """Why a node cannot take a step now; empty when it can."""
    unfit = node.words - _BASES - _HARMLESS - (_RESERVED if job.reservation else frozenset())
    if unfit:
        return " ".join(sorted(unfit))
    if node.idle_cpus < 1 or node.idle_mib < _NEEDED_MIB:
        return "busy"
    usable = any(place.up and job.partition in {None, place.name} for place in node.places)
    return "" if usable else "in no partition that takes the inventory"


def grouped(names: Iterable[str], nodes: Mapping[str, SlurmNode], partition: str | None) -> dict[str, list[str]]:
    """The nodes by partition, as few as will do: a step has one. The default one comes first, then the largest."""
    members, defaults = defaultdict(list), set()
    for name in names:
        for place in nodes[name].places:
            if place.up and partition in {None, place.name}:
                members[place.name].append(name)
                defaults |= {place.name} if place.default else set()
    groups: dict[str, list[str]] = {}
    taken: set[str] = set()
    while left := {place: [name for name in found if name not in taken] for place, found in members.items()}:
        best = max(left, key=lambda place: (place in defaults, len(left[place])))
        if left[best]:
            groups[best] = left[best]
            taken.update(left[best])
        del members[best]
        defaults.discard(best)
    return groups
