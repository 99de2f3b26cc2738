"""The tables, and how an engine is made for SQLite and PostgreSQL."""

from enum import IntEnum

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    create_engine,
    literal_column,
    text,
)
from sqlalchemy import event as sql_event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from cvagent.errors import StoreError

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}

metadata = MetaData()

# One row is all that is known about one document of one sink: what it is to be, and how its delivery stands.
# Every row carries its cluster, so that the agents of many clusters can share one database.
documents = Table(
    "cvagent_documents",
    metadata,
    Column("cluster", Text, primary_key=True),
    Column("sink", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    # Another with every replacement, never one that was used before: row ids and counters may be handed out twice.
    Column("version", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    # Epoch second up to which the source is asked about it: FOR_EVER while it goes on.
    Column("watched_until", BigInteger, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("absent_rounds", Integer, nullable=False, server_default="0"),
    Column("absent_since", BigInteger, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("changed_at", Float(53), nullable=False),
    Column("due_at", Float(53), nullable=False, server_default="0"),
    Column("accepted_at", Float(53)),
    Column("error", Text),
    sqlite_with_rowid=False,
)
WAITING = documents.c.status != literal_column("1")
Index("cvagent_documents_watched", documents.c.cluster, documents.c.sink, documents.c.watched_until)


def _index_waiting(_documents: Table, connection: Connection, **_options: object) -> None:
    """In words: for `postgresql_where` SQLAlchemy would import that dialect, which takes a tenth of the start."""
    waiting = "cvagent_documents_waiting ON cvagent_documents (cluster, sink, due_at) WHERE status != 1"
    connection.execute(text(f"CREATE INDEX {waiting}"))


sql_event.listen(documents, "after_create", _index_waiting)


class Status(IntEnum):
    """How the delivery of a document stands."""

    PENDING = 0
    ACCEPTED = 1
    SET_ASIDE = 2


checkpoints = Table(
    "cvagent_checkpoints",
    metadata,
    Column("cluster", Text, primary_key=True),
    Column("flow", Text, primary_key=True),
    Column("read_until", BigInteger, nullable=False),
)

# The inventory's own line, as the node printed it.
node_facts = Table(
    "cvagent_node_facts",
    metadata,
    Column("cluster", Text, primary_key=True),
    Column("node", Text, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("collected_at", Float(53), nullable=False),
)


def open_engine(url: str) -> Engine:
    """An engine with the tables in it.

    Args:
        url: `sqlite://` (in memory), `sqlite:///file` or `postgresql://...`.

    Raises:
        StoreError: The database cannot be opened; the text names it without its password.
    """
    parsed = _parsed(url)
    try:
        engine = _engine(parsed)
        metadata.create_all(engine)
    except (SQLAlchemyError, OSError) as error:
        # A password may also stand in the query.
        shown = parsed.set(query={}).render_as_string(hide_password=True)
        reason = str(getattr(error, "orig", error)).splitlines()[0]
        raise StoreError(f"cannot open {shown}: {reason} (CVAGENT_STORE_URL)") from None
    return engine


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        return parsed.set(drivername=_DRIVERS[parsed.get_backend_name()])
    except (ArgumentError, ValueError, KeyError):
        raise StoreError(
            "CVAGENT_STORE_URL is none of sqlite://, sqlite:///file and postgresql://user:password@host/database"
        ) from None


def is_in_memory(url: URL) -> bool:
    """Whether what is stored is gone with the process."""
    return url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}


def _engine(url: URL) -> Engine:
    if url.drivername != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    if is_in_memory(url):
        # Each connection would be a database of its own.
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
        sql_event.listen(engine, "connect", _give_back)
    else:
        engine = create_engine(url)
    sql_event.listen(engine, "connect", _tune_sqlite)
    return engine


def _give_back(connection: object, _record: object) -> None:
    """Memory that rows took is free again once they are deleted."""
    connection.execute("PRAGMA auto_vacuum = FULL")  # type: ignore[attr-defined]


def _tune_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA busy_timeout = 10000")
    cursor.close()
