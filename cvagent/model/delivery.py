"""Delivery: what waits, what a sink answered, and how flows and sinks do."""

from typing import NamedTuple

from msgspec import Struct

from cvagent.model.decisions import SEEN, Absence, Document


class Entry(NamedTuple):
    """One row of the outbox that is due.

    Attributes:
        version: Grows with every replacement; an answer counts only for the version it was sent for.
        attempts: How often it was tried in vain.
        changed_at: Epoch seconds at which it was decided.
    """

    key: str
    version: int
    document: Document
    attempts: int = 0
    changed_at: float = 0.0


class Accepted(NamedTuple):
    """The sink took it."""


class Refused(NamedTuple):
    """The sink will never take this document. It is set aside for a person."""

    reason: str


class Deferred(NamedTuple):
    """The sink may take it later.

    Attributes:
        after_s: What the server asked for, in seconds; None leaves it to the back-off.
        everything: The reason concerns the server, not the document.
    """

    reason: str
    after_s: float | None = None
    everything: bool = False


Outcome = Accepted | Refused | Deferred


class Due(Struct, frozen=True):
    """What waits in the outbox of one sink.

    Attributes:
        pending: Entries not yet accepted, due or not.
        set_aside: Entries that a person must look at.
        oldest_s: Age of the oldest pending entry in seconds; 0 when there is none.
    """

    pending: int
    set_aside: int
    oldest_s: float


class Row(NamedTuple):
    """One document of a sink as the store holds it, for pages and the command line.

    Attributes:
        status: pending, accepted or set_aside.
        changed_at: Epoch seconds at which the document was last replaced.
        due_at: Epoch seconds before which it is not tried again; 0 when at once.
        accepted_at: Epoch seconds; None when the sink never took this document.
    """

    document: Document
    status: str
    attempts: int
    changed_at: float
    due_at: float
    accepted_at: float | None
    error: str | None
    absence: Absence = SEEN


class Health(Struct):
    """How one flow or sink is doing. Times are epoch seconds; 0.0 means never.

    Attributes:
        error: The last error since the last success; None when all is well.
        detail: What a person should know although all is well (no accounting, a refused plan).
        paused_until: 0.0 when it does not wait.
        stale_after_s: Without a success for this long it is not ready; 0.0 when age says nothing.
    """

    last_success: float = 0.0
    last_error_at: float = 0.0
    error: str | None = None
    detail: str | None = None
    paused_until: float = 0.0
    stale_after_s: float = 0.0
