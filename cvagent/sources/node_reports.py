"""What nodes report by themselves: in files, or by HTTP."""

import os
import stat
import threading
import time
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from pathlib import Path

from cvagent.clients.slurm_nodes import SlurmNode
from cvagent.errors import SourceError
from cvagent.model.nodes import node_facts
from cvagent.sources.node_facts import Answer, Inventory

_MAX_REPORT = 4 << 20
# A node with hundreds of interfaces needs a tenth of this.
MOST_BYTES = 1 << 20
_MOST_WAITING = 64 << 20
_REST_S = 5.0


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


class Taken(Enum):
    """What became of a report: taken; of a node that Slurm does not know; too soon after the last; no room; too early.

    TOO_EARLY: Slurm was not asked yet for its nodes.
    """

    TAKEN = "taken"
    STRANGER = "stranger"
    TOO_SOON = "too soon"
    NO_ROOM = "no room"
    TOO_EARLY = "too early"


class Mailbox:
    """Reports that came by HTTP and that no round has taken yet: the newest of each node. Any thread may call.

    Args:
        wake: Called when the first of some came.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._nodes: Collection[str] | None = None
        self._waiting: dict[str, bytes] = {}
        self._taken_at: dict[str, float] = {}

    def put(self, line: bytes) -> Taken:
        """Take a report. Raises ValueError, saying why, when it is no inventory of a node."""
        facts = node_facts(line)
        node = facts.node or facts.hostname.partition(".")[0]
        now = time.monotonic()
        with self._lock:
            if (refused := self._refused(node, len(line), now)) is not None:
                return refused
            is_first = not self._waiting
            self._waiting[node] = line
            self._taken_at[node] = now
        if is_first:
            self._wake()
        return Taken.TAKEN

    def take(self, nodes: Collection[str]) -> dict[str, bytes]:
        """What came since the last call. From now on these nodes may report, and no others."""
        with self._lock:
            self._nodes = nodes
            taken, self._waiting = self._waiting, {}
            self._taken_at = {node: at for node, at in self._taken_at.items() if node in nodes}
        return taken

    def _refused(self, node: str, size: int, now: float) -> Taken | None:
        if self._nodes is None:
            return Taken.TOO_EARLY
        if node not in self._nodes:
            return Taken.STRANGER
        if now < self._taken_at.get(node, -_REST_S) + _REST_S:
            return Taken.TOO_SOON
        return Taken.NO_ROOM if size + sum(map(len, self._waiting.values())) > _MOST_WAITING else None


class Posted:
    """What nodes sent counts before anybody is asked; the others are asked as ever."""

    def __init__(self, mailbox: Mailbox, others: Inventory) -> None:
        self._mailbox = mailbox
        self._others = others

    def ask(self, nodes: Mapping[str, SlurmNode], due: Collection[str]) -> Answer:
        """See Inventory."""
        lines = self._mailbox.take(nodes.keys())
        left = [name for name in due if name not in lines]
        try:
            answer = self._others.ask(nodes, left)
        except SourceError as error:
            answer = Answer(reasons=dict.fromkeys(left, str(error)), failed=left)
        return Answer({**answer.lines, **lines}, answer.reasons, answer.failed)


class Awaited:
    """Asks nobody: nodes report by themselves."""

    def ask(self, nodes: Mapping[str, SlurmNode], due: Collection[str]) -> Answer:
        """See Inventory."""
        del nodes
        return Answer(reasons=dict.fromkeys(due, "has sent no report"))
