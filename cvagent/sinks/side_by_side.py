"""Writes entries side by side, and none while the server answers nobody."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue

from cvagent.errors import Permanent, Retryable
from cvagent.model import Accepted, Deferred, Document, Entry, Outcome, Refused

log = logging.getLogger(__name__)

_STOPPING = Deferred("not tried: the agent stops", everything=True)
_MAX_TEXT = 300

Told = tuple[Entry, Outcome]


class _Work:
    """Entries that the workers share.

    Attributes:
        halt: Why no further entry is begun; None while all is well.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.todo = deque(entries)
        self.told: SimpleQueue[Told] = SimpleQueue()
        self.halt: Deferred | None = None


class SideBySide:
    """See `ports.Sink` for what it does with entries.

    Args:
        name: Of the sink.
        write: Writes one. Raises Retryable or Permanent.
        parallel: How many at once.

    Attributes:
        closing: Set by `close`: nothing more is begun.
    """

    def __init__(self, name: str, write: Callable[[Document], None], parallel: int) -> None:
        self.closing = threading.Event()
        self._write_one = write
        self._parallel = parallel
        self._workers = ThreadPoolExecutor(parallel, thread_name_prefix=name)

    def deliver(self, entries: Sequence[Entry]) -> Iterator[Told]:
        """Write side by side; after a failure that concerns the server, no further ones begin."""
        work = _Work(entries)
        if not self._employ(work):
            yield from ((entry, _STOPPING) for entry in entries)
            return
        try:
            for _ in entries:
                yield work.told.get()
        finally:
            work.todo.clear()

    def _employ(self, work: _Work) -> bool:
        """Whether anyone works on it; after close() nobody does."""
        employed = False
        with suppress(RuntimeError):
            for _ in range(min(self._parallel, len(work.todo))):
                self._workers.submit(self._write_on, work)
                employed = True
        return employed

    def _write_on(self, work: _Work) -> None:
        """Take the next entry until there is none."""
        with suppress(IndexError):
            while True:
                entry = work.todo.popleft()
                work.told.put((entry, self._write(entry, work)))

    def _write(self, entry: Entry, work: _Work) -> Outcome:
        if self.closing.is_set():
            return _STOPPING
        if work.halt:
            return not_tried(work.halt)
        try:
            self._write_one(entry.document)
        except Retryable as error:
            outcome = deferred(error)
            if error.everything:
                work.halt = outcome
            return outcome
        except Permanent as error:
            return Refused(str(error))
        except Exception as error:
            log.exception("%s: could not be written", entry.key)
            return Refused(f"{type(error).__name__}: {error}"[:_MAX_TEXT])
        return Accepted()

    def close(self) -> None:
        """Let the writes under way end, and defer what has not begun."""
        self.closing.set()
        self._workers.shutdown()


def deferred(error: Retryable) -> Deferred:
    """The outcome for one that may succeed later."""
    return Deferred(str(error), error.after_s, error.everything)


def not_tried(halt: Deferred) -> Deferred:
    """The outcome for another that was not even tried."""
    return halt._replace(reason=f"not tried: {halt.reason}")
