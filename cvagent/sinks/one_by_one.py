"""Writes entries one after the other: each on its own, but none while the other side answers nobody."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from cvagent.errors import Permanent, Retryable
from cvagent.model import Accepted, Deferred, Document, Entry, Outcome, Refused

_STOPPING = Deferred("not tried: the agent stops", everything=True)


class OneByOne(ABC):
    """See ports.Sink.

    Args:
        changed: Called after each write: what was read before may not be so any more.
    """

    name: str

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._closing = threading.Event()

    @abstractmethod
    def write(self, document: Document) -> None:
        """Write one. Raises Retryable or Permanent."""

    def deliver(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, Outcome]]:
        """Write each entry; yield each with its outcome as it is known."""
        halt: Deferred | None = None
        for entry in entries:
            halt = _STOPPING if self._closing.is_set() else halt
            outcome = halt or self._outcome(entry.document)
            if isinstance(outcome, Deferred) and outcome.everything:
                halt = outcome
            yield entry, outcome

    def close(self) -> None:
        """Begin nothing more."""
        self._closing.set()

    def _outcome(self, document: Document) -> Outcome:
        try:
            self.write(document)
        except Retryable as error:
            return Deferred(str(error), error.after_s, error.everything)
        except Permanent as error:
            return Refused(str(error))
        finally:
            self._changed()
        return Accepted()
