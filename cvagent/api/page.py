"""The status page: what the board and the store say, drawn as HTML. No JavaScript; the page loads itself anew."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import jinja2
from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException

from cvagent import __version__
from cvagent.api.observer import Board
from cvagent.api.readiness import Readiness, look
from cvagent.api.times import moment, span
from cvagent.errors import StoreError
from cvagent.model import Row
from cvagent.ports import Clock, Outbox
from cvagent.settings import Settings
from cvagent.settings.fields import IN_MEMORY

JOBS = 200
ENTRIES = 50


class View(NamedTuple):
    """What is looked at.

    Attributes:
        cluster: Slurm's ClusterName.
    """

    outbox: Outbox
    board: Board
    settings: Settings
    cluster: str
    clock: Clock


class Held(NamedTuple):
    """What the store holds for one sink, newest change first.

    Attributes:
        accepted: At most 200.
        pending: At most 50, as is `set_aside`.
    """

    accepted: Sequence[Row]
    pending: Sequence[Row]
    set_aside: Sequence[Row]


class Page:
    """Draws the page. Any thread may call.

    Attributes:
        style_source: The Content-Security-Policy's word for the style sheet in the page.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        templates.filters.update(span=span, moment=moment, size=size)
        self._template = templates.get_template("page.html")
        style = templates.get_template("page.css").render()
        self.style_source = f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'"

    def render(self) -> str:
        """The page as it is now. A store that does not answer is said on it."""
        view, now = self._view, self._view.clock.now()
        readiness = look(view.board, view.outbox, now)
        return self._template.render(
            now=now,
            title=f"{view.cluster}: cvagent",
            about=_about(view),
            readiness=readiness,
            notes=_notes(readiness),
            decisions=view.board.decisions(),
            held=_held(view.outbox, tuple(view.board.sinks())),
            errors=view.board.errors(),
            in_memory=_is_in_memory(view.settings),
            jobs_at_most=JOBS,
        )


def size(nodes: str) -> int | None:
    """How many nodes a hostlist names; None when it cannot be read.

    >>> size("node[001-003],gpu7"), size("node[1-")
    (4, None)
    """
    try:
        return len(NodeSet(nodes, resolver=RESOLVER_NOGROUP))
    except NodeSetException:
        return None


def _about(view: View) -> Mapping[str, Any]:
    told = {"CloudVision": view.settings.cloudvision_url, "portal": view.settings.portal_url}
    return {
        "cluster": view.cluster,
        **{name: urlsplit(url).netloc for name, url in told.items() if url},
        "mode": view.settings.mode,
        "version": __version__,
    }


def _notes(readiness: Readiness) -> list[str]:
    """What a person should look at although the agent is ready."""
    notes = [f"{name}: {flow.detail}" for name, flow in readiness.flows.items() if flow.detail]
    for name, sink in readiness.sinks.items():
        notes += [f"{name}: {sink.detail}"] if sink.detail else []
        if sink.set_aside:
            notes.append(f"{name}: {sink.set_aside} set aside, to be looked at")
    return notes


def _held(outbox: Outbox, sinks: Sequence[str]) -> dict[str, Held] | None:
    """None when the store does not answer."""
    try:
        return {
            sink: Held(
                accepted=outbox.rows(sink, "accepted", JOBS),
                pending=outbox.rows(sink, "pending", ENTRIES),
                set_aside=outbox.rows(sink, "set_aside", ENTRIES),
            )
            for sink in sinks
        }
    except StoreError:
        return None


def _is_in_memory(settings: Settings) -> bool:
    return settings.store_url_file is None and settings.store_url.get_secret_value() == IN_MEMORY
