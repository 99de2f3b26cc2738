"""What the running agent knows, as another process may see it: its store, or its pages when that is in memory."""

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
import requests

from cvagent.api.documents import decode_facts, decode_rows
from cvagent.app import open_outbox
from cvagent.errors import CvagentError
from cvagent.model import Known, Row
from cvagent.settings import Settings
from cvagent.settings.fields import IN_MEMORY
from cvagent.store.outbox import SqlOutbox

_TIMEOUT_S = 5
_ALL = 100_000
# A URL has its limits.
_NODES_AT_ONCE = 100


class NoAgent(CvagentError):
    """No agent answers where its pages should be."""


class Pages:
    """The part of `ports.Outbox` that a look needs, over the running agent's pages.

    Raises:
        NoAgent: Nobody answers, or not with what was asked for.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        listen = settings.http_listen
        if listen is None:
            raise NoAgent("CVAGENT_HTTP_LISTEN is off: nothing can be seen of the running agent")
        self._url = listen.near_url

    def rows(self, sink: str, status: str | None = None, limit: int = 500) -> list[Row]:
        """Documents, newest change first."""
        wanted = {"sink": sink, "limit": str(limit)} | ({"status": status} if status else {})
        try:
            return decode_rows(self.get("/documents", wanted))
        except msgspec.MsgspecError as error:
            raise NoAgent(f"what answers on {self._url} is no agent of this version: {error}") from None

    def get(self, path: str, wanted: Mapping[str, str | list[str]] | None = None) -> bytes:
        """The body of one page."""
        token = self._settings.http_secret
        headers = {"Authorization": f"Bearer {token.value()}"} if token else {}
        try:
            answer = requests.get(self._url + path, params=wanted, headers=headers, timeout=_TIMEOUT_S)
            answer.raise_for_status()
        except requests.ConnectionError:
            raise NoAgent(f"no agent answers on {self._url} (CVAGENT_HTTP_LISTEN)") from None
        except requests.RequestException as error:
            raise NoAgent(f"the agent on {self._url} does not answer: {str(error).splitlines()[0]}") from None
        return answer.content

    def facts(self) -> "PageFacts":
        """What nodes said of themselves."""
        return PageFacts(self)

    def known(self, sink: str, since: int) -> dict[Any, Known[Any]]:
        """See `ports.Outbox`."""
        found: list[Known[Any]] = [Known(row.document, row.absence) for row in self.rows(sink, limit=_ALL)]
        return {
            item.document.identity: item
            for item in found
            if item.is_open or (item.document.ended_at is not None and item.document.ended_at >= since)
        }

    def checkpoint(self, _flow: str) -> int | None:
        """An agent that answers has read up to now."""
        return int(time.time())


class PageFacts:
    """A `ports.Facts` over the running agent's pages, which cannot be written to."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    def after(self, at: float) -> dict[str, tuple[bytes, float]]:
        """See `ports.Facts`."""
        return {node: said for node, said in self._get({}).items() if said[1] > at}

    def of(self, nodes: Collection[str]) -> dict[str, tuple[bytes, float]]:
        """See `ports.Facts`."""
        names = sorted(nodes)
        found: dict[str, tuple[bytes, float]] = {}
        for first in range(0, len(names), _NODES_AT_ONCE):
            found |= self._get({"node": names[first : first + _NODES_AT_ONCE]})
        return found

    def keep(self, lines: Mapping[str, bytes], at: float) -> None:
        """Keeps nothing: a look changes nothing."""

    def forget(self, nodes: Iterable[str]) -> None:
        """Likewise."""

    def _get(self, wanted: Mapping[str, list[str]]) -> dict[str, tuple[bytes, float]]:
        try:
            return decode_facts(self._pages.get("/facts", wanted))
        except msgspec.MsgspecError as error:
            raise NoAgent(f"the agent is of another version: {error}") from None


def seen_from_outside(settings: Settings, cluster: str) -> SqlOutbox | Pages:
    """The store itself, or the pages of the agent that has it in memory."""
    return Pages(settings) if settings.store_secret.value() == IN_MEMORY else open_outbox(settings, cluster)


def durable_outbox(settings: Settings, cluster: str) -> SqlOutbox:
    """The store, for commands that change it. Raises NoAgent when it is in another process's memory."""
    if settings.store_secret.value() == IN_MEMORY:
        raise NoAgent(
            "the store is in the running agent's memory, which no other process can change: set CVAGENT_STORE_URL to "
            "a file (sqlite:////var/lib/cvagent/store.db) or PostgreSQL, or restart the agent to begin anew"
        )
    return open_outbox(settings, cluster)
