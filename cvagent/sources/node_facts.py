"""Has nodes read their own hardware: in one job step for all that can take it, or from reports that they leave."""

import logging
import os
import stat
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from cvagent.clients.slurm_nodes import InventoryJob, SlurmNode, SlurmNodes
from cvagent.errors import SourceError

log = logging.getLogger(__name__)

_BASES = frozenset({"idle", "mixed", "allocated"})
_HARMLESS = frozenset({"cloud", "dynamic_norm", "planned"})
_RESERVED = frozenset({"reserved", "maintenance"})
_NEEDED_MIB = 16
_MOST_STEPS = 16
_LEAST_S = 2.0
_MAX_REPORT = 4 << 20


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


class Reports:
    """A folder in which nodes leave what the inventory printed, as `<node>.json`.

    Nobody else may write there. A report counts once; a node that does not report is only said to be late.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: dict[str, int] = {}

    def ask(self, nodes: Mapping[str, SlurmNode], due: Collection[str]) -> Answer:
        """See Inventory. Also takes reports of nodes that are not due: they have news."""
        if not self._folder.is_dir():
            raise SourceError(f"{self._folder} is no folder that can be read (CVAGENT_NODE_REPORT_DIR)")
        lines, reasons = {}, dict.fromkeys(due, "has left no report")
        for name in nodes:
            try:
                line = self._read(name)
            except (OSError, ValueError) as error:
                reasons[name] = f"left a report that cannot be read: {error}"
                continue
            if line is not None:
                lines[name] = line
                reasons.pop(name, None)
        return Answer(lines, reasons)

    def _read(self, name: str) -> bytes | None:
        """A report that was not taken yet; no link is followed, and nothing waited for."""
        try:
            file = os.open(self._folder / f"{name}.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with os.fdopen(file, "rb") as report:
            found = os.fstat(file)
            if self._taken.get(name) == found.st_mtime_ns:
                return None
            self._taken[name] = found.st_mtime_ns
            if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_REPORT:
                raise ValueError(f"no plain file of at most {_MAX_REPORT >> 20} MiB")
            return report.read(_MAX_REPORT)
