"""Delivers to CloudVision: many at once where the server takes batches, else one by one, several side by side.

What a document looks like on the wire is said by the sinks that build on it.
"""

import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue

from cvagent.clients.cloudvision import CloudVision
from cvagent.clients.wire import Token
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


class CloudVisionSink(ABC):
    """A sink in CloudVision; see ports.Sink.

    Args:
        parallel: Single writes side by side.
        batch_size: Documents in a batch at most; after a batch without an answer fewer, until batches get through.
    """

    name: str

    def __init__(self, client: CloudVision, *, parallel: int = 8, batch_size: int = 500) -> None:
        self._client = client
        self._parallel = parallel
        self._batch_size = self._batch = batch_size
        self._workers = ThreadPoolExecutor(parallel, thread_name_prefix=self.name)
        self._closing = threading.Event()

    @abstractmethod
    def write_many(self, documents: Sequence[Document]) -> AbstractSet[str]:
        """Write them at once; return the keys of those that failed. Raises as `CloudVision.set_jobs` does."""

    @abstractmethod
    def write_one(self, document: Document) -> None:
        """Write one. Raises Retryable or Permanent."""

    def deliver(self, entries: Sequence[Entry]) -> Iterator[Told]:
        """Write each entry; yield each with its outcome as it is known."""
        left = yield from self._in_batches(deque(entries))
        yield from self._singly(left)

    def close(self) -> None:
        """Let the writes under way end, defer what has not begun, and close the client."""
        self._closing.set()
        self._workers.shutdown()
        self._client.close()

    def replace_token(self, token: Token) -> None:
        """Use another token from the next request on."""
        self._client.replace_token(token)

    def _in_batches(self, todo: deque[Entry]) -> Generator[Told, None, list[Entry]]:
        """Write what a batch can settle; return what must be written singly to get a definite answer."""
        singly: list[Entry] = []
        while len(todo) > 1 and self._client.batches is not False and not self._closing.is_set():
            chunk = [todo.popleft() for _ in range(min(self._batch, len(todo)))]
            try:
                singly += yield from self._batched(chunk)
            except Retryable as error:
                self._batch = max(2, self._batch // 2)
                halt = _deferred(error)
                yield from ((entry, halt) for entry in chunk)
                yield from ((entry, _not_tried(halt)) for entry in [*singly, *todo])
                return []
        return [*singly, *todo]

    def _batched(self, chunk: Sequence[Entry]) -> Generator[Told, None, list[Entry]]:
        """Write one batch; return the entries it did not settle.

        Raises:
            Retryable: It concerns the server; nothing was yielded.
        """
        try:
            failed = self.write_many([entry.document for entry in chunk])
            self._batch = min(self._batch_size, self._batch * 2)
        except Exception as error:
            if isinstance(error, Retryable) and error.everything:
                raise
            return list(chunk)
        yield from ((entry, Accepted()) for entry in chunk if entry.key not in failed)
        return [entry for entry in chunk if entry.key in failed]

    def _singly(self, entries: Sequence[Entry]) -> Iterator[Told]:
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
        if self._closing.is_set():
            return _STOPPING
        if work.halt:
            return _not_tried(work.halt)
        try:
            self.write_one(entry.document)
        except Retryable as error:
            outcome = _deferred(error)
            if error.everything:
                work.halt = outcome
            return outcome
        except Permanent as error:
            return Refused(str(error))
        except Exception as error:
            log.exception("%s: could not be written", entry.key)
            return Refused(f"{type(error).__name__}: {error}"[:_MAX_TEXT])
        return Accepted()


def _deferred(error: Retryable) -> Deferred:
    return Deferred(str(error), error.after_s, error.everything)


def _not_tried(halt: Deferred) -> Deferred:
    return halt._replace(reason=f"not tried: {halt.reason}")
