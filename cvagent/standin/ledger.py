"""What a CloudVision stand-in holds: resources, and writes in order. Safe between threads."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from cvagent.standin.contract import inconsistencies
from cvagent.standin.log import Log

WRITES_KEPT = 200_000


class Write(NamedTuple):
    """A write that was applied.

    Attributes:
        at: Epoch seconds.
        kind: `JobConfig` or `NodeConfig`.
        key: The resource's `key.id`.
        document: As it was sent; None for a deletion.
    """

    at: float
    kind: str
    key: str
    document: dict[str, Any] | None


class Stored(NamedTuple):
    """A resource and the epoch seconds of its last write. The document is replaced, never changed in place."""

    at: float
    document: dict[str, Any]


class Ledger(Log):
    """All state of a CloudVision stand-in; it outlives its listener.

    Args:
        token: What must follow `Bearer `; see Log for this and what follows.
        faults: Trouble on demand.
        batch: Whether the routes for many resources exist.
        reads: Whether the routes that read exist.
        clock: Gives epoch seconds.
    """

    def __init__(
        self,
        token: str,
        faults: str = "",
        *,
        batch: bool = True,
        reads: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(token, faults, clock=clock)
        self.batch = batch
        self.reads = reads
        self.writes_total = 0
        self._stored: dict[str, dict[str, Stored]] = {"JobConfig": {}, "NodeConfig": {}}
        self._history: deque[Write] = deque(maxlen=WRITES_KEPT)

    def set(self, kind: str, document: dict[str, Any]) -> float:
        """Store a valid document as Set does: fields that are not sent stay as they were. Gives the time of it."""
        key = document["key"]["id"]
        with self.changed:
            before = self._stored[kind].pop(key, None)
            fields = before.document if before else {}
            after = {**fields, **document}
            # Taken out and put back at the end: the newest write stands last.
            stored = self._stored[kind][key] = Stored(self.clock(), after)
            self._violations.extend(f"{kind} {key} {what}" for what in inconsistencies(fields, after))
            self._applied(Write(stored.at, kind, key, document))
        return stored.at

    def delete(self, kind: str, key: str) -> float:
        """Forget a resource, if there is one. Gives the time of it."""
        with self.changed:
            self._stored[kind].pop(key, None)
            write = Write(self.clock(), kind, key, None)
            self._applied(write)
        return write.at

    def stored(self, kind: str) -> dict[str, Stored]:
        """Give the resources of a kind by key, oldest write first."""
        with self.changed:
            return dict(self._stored[kind])

    def find(self, kind: str, key: str) -> Stored | None:
        """Give one resource; None when there is none."""
        with self.changed:
            return self._stored[kind].get(key)

    @property
    def history(self) -> list[Write]:
        """The applied writes in order, the newest 200,000 of them."""
        with self.changed:
            return list(self._history)

    def _applied(self, write: Write) -> None:
        self._history.append(write)
        self.writes_total += 1
        self.changed.notify_all()
