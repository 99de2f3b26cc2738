"""Every Protocol of the program: what a box may ask of another. The contract is said here, once."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from threading import Event
from typing import Any, NamedTuple, Protocol

from cvagent.model import Ask, Due, Entry, Health, Known, Outcome, Plan, Row


class Source(Protocol):
    """Reads one thing from the cluster."""

    def observe(self, ask: Ask) -> Any:
        """Answer in full or raise SourceError; an empty answer means that there is nothing."""
        ...


class Facts(Protocol):
    """What nodes said of themselves: by node a line of JSON and the epoch second it was collected at."""

    def after(self, at: float) -> dict[str, tuple[bytes, float]]:
        """All that was collected later than `at`."""
        ...

    def of(self, nodes: Collection[str]) -> dict[str, tuple[bytes, float]]:
        """That of these nodes, as far as there is any."""
        ...


class Sink(Protocol):
    """Writes documents to one place outside."""

    name: str

    def deliver(self, entries: Sequence[Entry]) -> Iterable[tuple[Entry, Outcome]]:
        """Write each entry, several at once; yield each with its outcome as it is known. Never raises DeliveryError.

        Absolute and keyed: the same entry may come twice. No two entries of one call have the same key.
        """
        ...

    def close(self) -> None:
        """Begin nothing more: what is under way is finished, the rest of a `deliver` in another thread is deferred."""
        ...


class Outbox(Protocol):
    """What each sink is to hold and what it accepted last. One instance serves one cluster and all its sinks.

    Every method may be called from any thread. Raises StoreError when the store does not answer.
    """

    def known(self, sink: str, since: int) -> dict[Any, Known[Any]]:
        """Documents by identity that are open (still running, or ended by inference) or ended at or after `since`."""
        ...

    def checkpoint(self, flow: str) -> int | None:
        """How far the flow has read, in epoch seconds; None when it never has."""
        ...

    def record(self, flow: str, sinks: Sequence[str], plan: Plan, now: float, checkpoint: int | None) -> None:
        """Write a plan's changes and the checkpoint in one transaction.

        A document equal to the pending one leaves its back-off alone; equal to one set aside it stays aside;
        equal to the accepted one it is not sent. A different one replaces whatever was there.
        """
        ...

    def due(self, sink: str, now: float, limit: int) -> list[Entry]:
        """Pending entries whose time has come, least tried first, oldest first among those."""
        ...

    def settle(self, sink: str, outcomes: Iterable[tuple[Entry, Outcome, float]], now: float) -> None:
        """Note outcomes, each with the epoch second of its next try (used for Deferred only).

        An errand that was accepted is forgotten: a source must show what it was for.
        A deferral of everything is the server's affair and does not count as a try of the entry.

        An outcome for a version that has been replaced meanwhile changes nothing.
        """
        ...

    def waiting(self, sink: str, now: float) -> Due:
        """How much waits in a sink's outbox."""
        ...

    def next_due(self, sink: str) -> float | None:
        """Epoch second at which the next pending entry comes due; None when nothing is pending."""
        ...

    def rows(self, sink: str, status: str | None = None, limit: int = 500) -> list[Row]:
        """Documents, newest change first."""
        ...

    def retry(self, sink: str, keys: Sequence[str]) -> int:
        """Make set-aside and delayed entries due at once (all of them when `keys` is empty); return how many."""
        ...

    def drop(self, sink: str, keys: Sequence[str]) -> int:
        """Forget entries that are pending or set aside; return how many. The next round may decide them anew."""
        ...

    def facts(self) -> Facts:
        """What nodes said of themselves."""
        ...

    def purge(self, sinks: Sequence[str], ended_before: int, keep: int) -> int:
        """Forget accepted documents that ended before this epoch second, but for the `keep` newest; return how many."""
        ...


class Clock(Protocol):
    """The time, so that tests can own it."""

    def now(self) -> float:
        """UTC epoch seconds."""
        ...


class Observer(Protocol):
    """Hears what happens; turns it into metrics and the status page. Must be quick and never raise."""

    def round_done(self, flow: str, seconds: float, plan: Plan, at: float) -> None:
        """A round read, decided and remembered."""
        ...

    def round_skipped(self, flow: str, error: Exception, at: float) -> None:
        """A round was given up; nothing was changed."""
        ...

    def delivered(self, sink: str, outcome: Outcome, at: float) -> None:
        """A sink answered for one entry."""
        ...

    def paused(self, sink: str, reason: str, until: float, at: float) -> None:
        """A whole sink waits until then."""
        ...


class Status(Protocol):
    """What the pages read from an Observer."""

    def flows(self) -> Mapping[str, Health]:
        """Health by flow."""
        ...

    def sinks(self) -> Mapping[str, Health]:
        """Health by sink."""
        ...


Wake = Callable[[str], None]


class Surroundings(NamedTuple):
    """What both loops work with.

    Attributes:
        wake: Called with a flow's or a sink's name: there is a reason to look.
        stop: Set when the agent is to end.
    """

    outbox: Outbox
    clock: Clock
    observer: Observer
    wake: Wake
    stop: Event
