"""The statements that change documents. Bound names begin with `b_` where a column has the same."""

from importlib import import_module

from sqlalchemy import Executable, bindparam, delete, update

from cvagent.store.tables import documents

_columns = documents.c


def upsert_document(dialect: str) -> Executable:
    """Insert, or replace what differs. Equal bytes leave the row, its back-off and its status alone."""
    # The other dialect is not imported: that takes longer than all the rest of this package.
    statement = import_module(f"sqlalchemy.dialects.{dialect}").insert(documents)
    fresh = {name: statement.excluded[name] for name in ("version", "body", "watched_until", "status", "changed_at")}
    upsert: Executable = statement.on_conflict_do_update(
        index_elements=["cluster", "sink", "key"],
        set_=fresh | {"attempts": 0, "due_at": 0.0, "error": None, "accepted_at": None},
        where=_columns.body != statement.excluded.body,
    )
    return upsert


_here = (
    _columns.cluster == bindparam("b_cluster"),
    _columns.sink == bindparam("b_sink"),
    _columns.key == bindparam("b_key"),
)
NOTE_ABSENCE = (
    update(documents)
    .where(*_here)
    .values(absent_rounds=bindparam("absent_rounds"), absent_since=bindparam("absent_since"))
)
FORGET = delete(documents).where(*_here, _columns.version == bindparam("b_version"))
NOTE_OUTCOME = (
    update(documents)
    .where(*_here, _columns.version == bindparam("b_version"))
    .values({name: bindparam(name) for name in ("status", "attempts", "due_at", "accepted_at", "error")})
)
