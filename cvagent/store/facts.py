"""What nodes said of themselves, so that a restart does not ask them again."""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from cvagent.store.tables import node_facts

# SQLite takes 32,766 parameters in one statement.
_CHUNK = 1000
_columns = node_facts.c


class SqlFacts:
    """A `sources.slurm_nodes.FactStore` and a `sources.slurm_allocations.FactReader`.

    Args:
        transaction: Of the store that this is a part of.
        cluster: Only rows of this cluster are seen or touched.
    """

    def __init__(self, transaction: Callable[[], AbstractContextManager[Connection]], cluster: str) -> None:
        self._transaction = transaction
        self._cluster = cluster

    def after(self, at: float) -> dict[str, tuple[bytes, float]]:
        """See FactStore."""
        return self._select(_columns.collected_at > at)

    def of(self, nodes: Collection[str]) -> dict[str, tuple[bytes, float]]:
        """See FactReader."""
        names = sorted(nodes)
        found: dict[str, tuple[bytes, float]] = {}
        for first in range(0, len(names), _CHUNK):
            found |= self._select(_columns.node.in_(names[first : first + _CHUNK]))
        return found

    def keep(self, lines: Mapping[str, bytes], at: float) -> None:
        """See FactStore."""
        rows = [
            {"cluster": self._cluster, "node": node, "body": line, "collected_at": at}
            for node, line in sorted(lines.items())
        ]
        if rows:
            with self._transaction() as connection:
                self._remove(connection, lines)
                connection.execute(insert(node_facts), rows)

    def forget(self, nodes: Iterable[str]) -> None:
        """See FactStore."""
        with self._transaction() as connection:
            self._remove(connection, nodes)

    def _select(self, which: ColumnElement[bool]) -> dict[str, tuple[bytes, float]]:
        query = select(_columns.node, _columns.body, _columns.collected_at)
        with self._transaction() as connection:
            found = connection.execute(query.where(_columns.cluster == self._cluster, which))
            return {node: (body, collected_at) for node, body, collected_at in found}

    def _remove(self, connection: Connection, nodes: Iterable[str]) -> None:
        names = sorted(nodes)
        for first in range(0, len(names), _CHUNK):
            some = _columns.node.in_(names[first : first + _CHUNK])
            connection.execute(delete(node_facts).where(_columns.cluster == self._cluster, some))
