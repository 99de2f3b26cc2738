"""`cvagent explain job|node|mac`: how CloudVision came to know what it knows."""

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click
from msgspec import Struct

from cvagent.app import reach_cluster
from cvagent.cli.explain_stories import as_json, job_stories, mac_story, node_story
from cvagent.cli.explain_text import job_lines, mac_lines, node_lines
from cvagent.cli.known import Pages, seen_from_outside
from cvagent.errors import CvagentError
from cvagent.model import NodeFacts, Row
from cvagent.model.nodes import node_facts, node_key
from cvagent.settings import Settings, load_settings
from cvagent.settings.fields import IN_MEMORY
from cvagent.store.outbox import SqlOutbox

_ALL = 100_000
_DAY_S = 86_400


class _Known(NamedTuple):
    """What the store holds.

    Attributes:
        nodes: By the node's name in Slurm.
    """

    settings: Settings
    store: SqlOutbox | Pages
    jobs: Sequence[Row]
    nodes: Mapping[str, Row]


def tell_job(env_file: Path | None, job_id: int, *, as_object: bool) -> None:
    """Print the story of each run of a job. Raises CvagentError when there is none."""
    known = _look(env_file)
    stories = job_stories(known.jobs, known.nodes, job_id)
    if not stories:
        raise CvagentError(
            f"job {job_id}: CloudVision was told nothing of it, and nothing waits. Is it Slurm's raw id (squeue's %A), "
            f"does it run, do CVAGENT_JOB_NAME_FILTER and CVAGENT_PARTITION_FILTER let it pass? A new job on a shared "
            "node is told once that node's interfaces are known, after three minutes at most"
        )
    _print(stories, (line for story in stories for line in job_lines(story)), as_object=as_object)


def tell_node(env_file: Path | None, node: str, *, as_object: bool) -> None:
    """Print the story of a node. Raises CvagentError when nothing is known of it."""
    known = _look(env_file)
    story = node_story(node, known.jobs, known.nodes, _said(known.store, node))
    if story is None:
        nobody = "it has told nothing, CloudVision was told nothing of it, and no job runs there"
        raise CvagentError(f"node {_shown(node)}: {nobody}")
    _print(story, node_lines(story), as_object=as_object)


def tell_mac(env_file: Path | None, text: str, at: int | None, *, as_object: bool) -> None:
    """Print the story of a MAC. Raises CvagentError when nobody told of it."""
    mac = mac_of(text)
    if mac is None:
        raise click.BadParameter(f"'{_shown(text)}' is no MAC such as 0c:42:a1:00:00:01", param_hint="MAC")
    known = _look(env_file)
    now = int(time.time())
    if at is not None and (note := _beyond(known.settings, at, now)):
        click.echo(f"note: {note}", err=True)
    story = mac_story(mac, known.jobs, known.nodes, at, now)
    if story is None:
        raise CvagentError(f"{mac}: no node told of an interface with this MAC, and no job was told by it")
    _print(story, mac_lines(story), as_object=as_object)


def mac_of(text: str) -> str | None:
    """A MAC in any of the usual spellings; None for anything else.

    >>> mac_of("0C-42-A1-00-00-01"), mac_of("0c42.a100.0001"), mac_of("0c42")
    ('0c:42:a1:00:00:01', '0c:42:a1:00:00:01', None)
    """
    digits = re.sub("[:.-]", "", text.strip().lower())
    if not re.fullmatch("[0-9a-f]{12}", digits):
        return None
    return ":".join(digits[start : start + 2] for start in range(0, 12, 2))


def _beyond(settings: Settings, at: int, now: int) -> str:
    """What the store may have forgotten of that time; empty when nothing."""
    if settings.store_secret.value() == IN_MEMORY:
        return "with the store in memory the newest jobs that ended are known, and no others (CVAGENT_STORE_URL)"
    kept_s = max(settings.lookback_h * 3600, _DAY_S)
    return f"the store forgets a job {kept_s / 3600:g} h after its end" if at < now - kept_s else ""


def _look(env_file: Path | None) -> _Known:
    settings, notes = load_settings(env_file)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    cluster = reach_cluster(settings).name
    store = seen_from_outside(settings, cluster)
    nodes = store.rows("cloudvision_nodes", limit=_ALL) if settings.node_facts != "off" else []
    suffix = node_key("", cluster, with_cluster=settings.node_key == "node@cluster")
    by_name = {row.document.key.removesuffix(suffix): row for row in nodes}
    return _Known(settings, store, store.rows("cloudvision_jobs", limit=_ALL), by_name)


def _said(store: SqlOutbox | Pages, node: str) -> tuple[NodeFacts, float] | None:
    """The newest that a node said, as far as it can be read."""
    found = store.facts().of([node]).get(node)
    try:
        return (node_facts(found[0]), found[1]) if found else None
    except ValueError:
        return None


def _print(story: Struct | Sequence[Struct], lines: Iterable[str], *, as_object: bool) -> None:
    if as_object:
        click.echo(json.dumps(as_json(story), indent=2))
        return
    for line in lines:
        click.echo(line)


def _shown(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)[:100]
