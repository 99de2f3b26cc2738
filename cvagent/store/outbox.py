"""`ports.Outbox` over SQLAlchemy: newest wins per (sink, key), the checkpoint in the same transaction."""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from threading import RLock
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from cvagent.errors import StoreError
from cvagent.model import (
    SEEN,
    Absence,
    Accepted,
    Change,
    Deferred,
    Document,
    Due,
    Entry,
    Known,
    Outcome,
    Plan,
    Refused,
    Row,
)
from cvagent.model.errands import Errand
from cvagent.store.facts import SqlFacts
from cvagent.store.statements import FORGET, NOTE_ABSENCE, NOTE_OUTCOME, upsert_document
from cvagent.store.tables import WAITING, Status, checkpoints, documents, is_in_memory, open_engine

_decode = msgspec.json.Decoder(Document).decode
_encode = msgspec.json.Encoder().encode
_columns = documents.c

FOR_EVER = 2**62
# Accounting may still correct an end that was concluded from absence; ask for a day.
_DOUBT_S = 86_400
# Rows that are held in Python at a time: a first round may have a hundred thousand.
_CHUNK = 1000


class SqlOutbox:
    """A `ports.Outbox`. The same for SQLite and PostgreSQL.

    Args:
        url: `sqlite://`, `sqlite:///file` or `postgresql://...`.
        cluster: Only rows of this cluster are seen or touched.

    Raises:
        StoreError: The database does not open or answer.
    """

    def __init__(self, url: str, cluster: str) -> None:
        self._engine = open_engine(url)
        self._cluster = cluster
        self.in_memory = is_in_memory(self._engine.url)
        # SQLite has one writer, and in memory one connection; on PostgreSQL a round and a delivery that touch the
        # same rows in another order would block each other. Rows are written in the order of their keys for the
        # sake of other processes.
        self._lock = RLock()
        self._upsert = upsert_document(self._engine.dialect.name)

    def facts(self) -> SqlFacts:
        """What nodes said of themselves, in the same database."""
        return SqlFacts(self._transaction, self._cluster)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def known(self, sink: str, since: int) -> dict[Any, Known[Any]]:
        """See `ports.Outbox`."""
        query = select(_columns.body, _columns.absent_rounds, _columns.absent_since)
        known = {}
        with self._transaction() as connection:
            found = connection.execute(query.where(*self._of(sink), _columns.watched_until >= since))
            for body, rounds, at in chain.from_iterable(found.partitions(_CHUNK)):
                document = _decode(body)
                known[document.identity] = Known(document, Absence(rounds, at) if rounds else SEEN)
        return known

    def checkpoint(self, flow: str) -> int | None:
        """See `ports.Outbox`."""
        table = checkpoints.c
        query = select(table.read_until).where(table.cluster == self._cluster, table.flow == flow)
        with self._transaction() as connection:
            return connection.execute(query).scalar()

    def record(self, flow: str, sinks: Sequence[str], plan: Plan, now: float, checkpoint: int | None) -> None:
        """See `ports.Outbox`."""
        changes = sorted(plan.changes, key=lambda change: change.after.key)
        with self._transaction() as connection:
            for sink in sinks:
                for first in range(0, len(changes), _CHUNK):
                    some = changes[first : first + _CHUNK]
                    connection.execute(self._upsert, [self._row(sink, change, now) for change in some])
                if plan.absences:
                    connection.execute(NOTE_ABSENCE, [self._absence(sink, *item) for item in plan.absences.items()])
            if checkpoint is not None:
                self._move(connection, flow, checkpoint)

    def due(self, sink: str, now: float, limit: int) -> list[Entry]:
        """See `ports.Outbox`."""
        query = (
            select(_columns.key, _columns.version, _columns.body, _columns.attempts, _columns.changed_at)
            .where(*self._of(sink), WAITING, _columns.status == Status.PENDING, _columns.due_at <= now)
            .order_by(_columns.attempts, _columns.changed_at)
            .limit(limit)
        )
        with self._transaction() as connection:
            found = connection.execute(query)
            return [Entry(key, version, _decode(body), tried, at) for key, version, body, tried, at in found]

    def settle(self, sink: str, outcomes: Iterable[tuple[Entry, Outcome, float]], now: float) -> None:
        """See `ports.Outbox`."""
        ordered = sorted(outcomes, key=lambda answered: answered[0].key)
        rows = [self._outcome(sink, entry, outcome, retry_at, now) for entry, outcome, retry_at in ordered]
        over = [self._which(sink, entry) for entry, outcome, _ in ordered if _is_over(entry.document, outcome)]
        if rows:
            with self._transaction() as connection:
                connection.execute(NOTE_OUTCOME, rows)
                if over:
                    connection.execute(FORGET, over)

    def waiting(self, sink: str, now: float) -> Due:
        """See `ports.Outbox`."""
        query = select(_columns.status, func.count(), func.min(_columns.changed_at)).group_by(_columns.status)
        with self._transaction() as connection:
            rows = {
                status: (count, oldest)
                for status, count, oldest in connection.execute(query.where(*self._of(sink), WAITING))
            }
        pending, oldest = rows.get(Status.PENDING, (0, now))
        return Due(pending, rows.get(Status.SET_ASIDE, (0, now))[0], max(0.0, now - oldest))

    def next_due(self, sink: str) -> float | None:
        """See `ports.Outbox`."""
        query = select(func.min(_columns.due_at)).where(*self._of(sink), WAITING, _columns.status == Status.PENDING)
        with self._transaction() as connection:
            return connection.execute(query).scalar()

    def rows(self, sink: str, status: str | None = None, limit: int = 500) -> list[Row]:
        """See `ports.Outbox`."""
        fields = (_columns.body, _columns.status, _columns.attempts, _columns.changed_at, _columns.due_at)
        absence = (_columns.absent_rounds, _columns.absent_since)
        query = select(*fields, _columns.accepted_at, _columns.error, *absence).where(*self._of(sink))
        if status is not None:
            query = query.where(_columns.status == Status[status.upper()])
        with self._transaction() as connection:
            found = connection.execute(query.order_by(_columns.changed_at.desc()).limit(limit)).all()
        return [
            Row(_decode(body), Status(word).name.lower(), tried, changed, due, accepted, error, Absence(rounds, since))
            for body, word, tried, changed, due, accepted, error, rounds, since in found
        ]

    def retry(self, sink: str, keys: Sequence[str]) -> int:
        """See `ports.Outbox`."""
        again = {"status": Status.PENDING, "due_at": 0.0, "attempts": 0, "version": _version()}
        with self._transaction() as connection:
            return connection.execute(update(documents).where(*self._waiting(sink, keys)).values(again)).rowcount

    def drop(self, sink: str, keys: Sequence[str]) -> int:
        """See `ports.Outbox`."""
        with self._transaction() as connection:
            return connection.execute(delete(documents).where(*self._waiting(sink, keys))).rowcount

    def purge(self, sinks: Sequence[str], ended_before: int, keep: int) -> int:
        """See `ports.Outbox`."""
        with self._transaction() as connection:
            return sum(self._purge(connection, sink, ended_before, keep) for sink in sinks)

    def _purge(self, connection: Connection, sink: str, ended_before: int, keep: int) -> int:
        old = (*self._of(sink), _columns.watched_until < ended_before)
        newest_first = select(_columns.watched_until).where(*old).order_by(_columns.watched_until.desc())
        newest = connection.execute(newest_first.offset(keep).limit(1)).scalar()
        if newest is None:
            return 0
        gone = delete(documents).where(*old, _columns.watched_until <= newest, _columns.status == Status.ACCEPTED)
        return connection.execute(gone).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._lock, self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise StoreError(f"the store does not answer: {reason} (CVAGENT_STORE_URL)") from None

    def _of(self, sink: str) -> tuple[ColumnElement[bool], ...]:
        return _columns.cluster == self._cluster, _columns.sink == sink

    def _waiting(self, sink: str, keys: Sequence[str]) -> tuple[ColumnElement[bool], ...]:
        named = (_columns.key.in_(keys),) if keys else ()
        return *self._of(sink), WAITING, *named

    def _row(self, sink: str, change: Change, now: float) -> Mapping[str, object]:
        return {
            "cluster": self._cluster,
            "sink": sink,
            "key": change.after.key,
            "version": _version(),
            "body": _encode(change.after),
            "watched_until": _watched_until(change.after),
            "status": Status.PENDING,
            "changed_at": now,
        }

    def _absence(self, sink: str, key: str, absence: Absence) -> Mapping[str, object]:
        return {
            "b_cluster": self._cluster,
            "b_sink": sink,
            "b_key": key,
            "absent_rounds": absence.rounds,
            "absent_since": absence.since,
        }

    def _outcome(self, sink: str, entry: Entry, outcome: Outcome, retry_at: float, now: float) -> Mapping[str, object]:
        row = self._which(sink, entry)
        match outcome:
            case Accepted():
                return row | {
                    "status": Status.ACCEPTED,
                    "attempts": 0,
                    "due_at": 0.0,
                    "accepted_at": now,
                    "error": None,
                }
            case Refused(reason):
                tried = entry.attempts + 1
                return row | {
                    "status": Status.SET_ASIDE,
                    "attempts": tried,
                    "due_at": 0.0,
                    "accepted_at": None,
                    "error": reason,
                }
            case Deferred(reason, everything=everything):
                tried = entry.attempts + (not everything)
                return row | {
                    "status": Status.PENDING,
                    "attempts": tried,
                    "due_at": retry_at,
                    "accepted_at": None,
                    "error": reason,
                }

    def _which(self, sink: str, entry: Entry) -> dict[str, object]:
        return {"b_cluster": self._cluster, "b_sink": sink, "b_key": entry.key, "b_version": entry.version}

    def _move(self, connection: Connection, flow: str, checkpoint: int) -> None:
        table = checkpoints.c
        here = (table.cluster == self._cluster, table.flow == flow)
        moved = connection.execute(update(checkpoints).where(*here).values(read_until=checkpoint))
        if not moved.rowcount:
            row = {"cluster": self._cluster, "flow": flow, "read_until": checkpoint}
            connection.execute(insert(checkpoints).values(row))


def _version() -> int:
    return secrets.randbits(62)


def _is_over(document: Document, outcome: Outcome) -> bool:
    """An errand that was done is nothing to remember: whether it must be done again, what is there shows."""
    return isinstance(outcome, Accepted) and isinstance(document, Errand)


def _watched_until(document: Document) -> int:
    if document.ended_at is None:
        return FOR_EVER
    return document.ended_at + _DOUBT_S if document.inferred else document.ended_at
