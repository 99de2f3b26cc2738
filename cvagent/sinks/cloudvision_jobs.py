"""Writes jobs to CloudVision: many at once where the server takes batches, else one by one, several side by side."""

import logging
import re
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from cvagent.clients.cloudvision import CloudVision, Token
from cvagent.errors import Permanent, Retryable
from cvagent.model import Accepted, Deferred, Document, Entry, JobConfig, Outcome, Refused, State, utc
from cvagent.sinks.hostlist import unfold

log = logging.getLogger(__name__)

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
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


class CloudVisionJobs:
    """The sink `cloudvision_jobs`; see ports.Sink.

    Args:
        location: CloudVision's word for the cluster.
        parallel: Single writes side by side.
        batch_size: Documents in a batch at most; after a batch without an answer fewer, until batches get through.
    """

    name = "cloudvision_jobs"

    def __init__(self, client: CloudVision, location: str, parallel: int = 8, batch_size: int = 500) -> None:
        self._client = client
        self._location = location
        self._parallel = parallel
        self._batch_size = self._batch = batch_size
        self._workers = ThreadPoolExecutor(parallel, thread_name_prefix=self.name)
        self._closing = threading.Event()

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
            failed = set(self._client.set_jobs([document(entry.document, self._location) for entry in chunk]))
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
            self._client.set_job(document(entry.document, self._location))
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


def document(config: Document, location: str) -> dict[str, Any]:
    """The wire form: exactly the fields that CloudVision takes.

    Raises:
        Permanent: It cannot be told as it is: no nodes, or an end that is missing.
        ValueError, NodeSetException: The nodes are no hostlist.
    """
    if not isinstance(config, JobConfig):
        raise Permanent(f"{config.key} is no job")
    if not config.nodes:
        raise Permanent("Slurm names no nodes for this run, and CloudVision takes no job without any")
    body = {
        "key": {"id": config.key},
        "name": _UNPRINTABLE.sub("\ufffd", f"{config.name}@{config.partition}"),
        "state": f"JOB_STATE_{config.state.value}",
        "start_time": utc(config.started_at),
        "location": location,
        "nodes": {"values": list(unfold(config.nodes))},
    }
    if config.state is State.RUNNING:
        return body
    if config.ended_at is None:
        raise Permanent(f"this run is {config.state.value} and has no end")
    return body | {"end_time": utc(config.ended_at)}


def _deferred(error: Retryable) -> Deferred:
    return Deferred(str(error), error.after_s, error.everything)


def _not_tried(halt: Deferred) -> Deferred:
    return halt._replace(reason=f"not tried: {halt.reason}")
