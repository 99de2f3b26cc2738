"""Delivers to CloudVision: many at once where the server takes batches, else one by one, several side by side.

What a document looks like on the wire is said by the sinks that build on it.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from collections.abc import Set as AbstractSet

from cvagent.clients.cloudvision import CloudVision
from cvagent.clients.wire import Token
from cvagent.errors import Retryable
from cvagent.model import Accepted, Document, Entry
from cvagent.sinks.side_by_side import SideBySide, Told, deferred, not_tried


class CloudVisionSink(ABC):
    """A sink in CloudVision; see ports.Sink.

    Args:
        parallel: Single writes side by side.
        batch_size: Documents in a batch at most; after a batch without an answer fewer, until batches get through.
    """

    name: str

    def __init__(self, client: CloudVision, *, parallel: int = 8, batch_size: int = 500) -> None:
        self._client = client
        self._batch_size = self._batch = batch_size
        self._single = SideBySide(self.name, self.write_one, parallel)

    @abstractmethod
    def write_many(self, documents: Sequence[Document]) -> AbstractSet[str]:
        """Write them at once; return the keys of those that failed. Raises as `CloudVision.set_jobs` does."""

    @abstractmethod
    def write_one(self, document: Document) -> None:
        """Write one. Raises Retryable or Permanent."""

    def deliver(self, entries: Sequence[Entry]) -> Iterator[Told]:
        """Write each entry; yield each with its outcome as it is known."""
        left = yield from self._in_batches(deque(entries))
        yield from self._single.deliver(left)

    def close(self) -> None:
        """Let the writes under way end, defer what has not begun, and close the client."""
        self._single.close()
        self._client.close()

    def replace_token(self, token: Token) -> None:
        """Use another token from the next request on."""
        self._client.replace_token(token)

    def _in_batches(self, todo: deque[Entry]) -> Generator[Told, None, list[Entry]]:
        """Write what a batch can settle; return what must be written singly to get a definite answer."""
        singly: list[Entry] = []
        while len(todo) > 1 and self._client.batches is not False and not self._single.closing.is_set():
            chunk = [todo.popleft() for _ in range(min(self._batch, len(todo)))]
            try:
                singly += yield from self._batched(chunk)
            except Retryable as error:
                self._batch = max(2, self._batch // 2)
                halt = deferred(error)
                yield from ((entry, halt) for entry in chunk)
                yield from ((entry, not_tried(halt)) for entry in [*singly, *todo])
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
