"""`cvagent outbox list|retry|drop`."""

import datetime as dt
import json
import time
from collections.abc import Sequence
from pathlib import Path

import click

from cvagent.app import flows_for, reach_cluster
from cvagent.cli.known import durable_outbox, seen_from_outside
from cvagent.model import Row
from cvagent.settings import Settings, load_settings

_MANY = 10_000


def list_entries(env_file: Path | None, status: str | None, *, as_json: bool) -> None:
    """Print entries, newest change first."""
    settings, _ = load_settings(env_file)
    outbox = seen_from_outside(settings, reach_cluster(settings).name)
    found = 0
    for sink in _sinks(settings):
        for wanted in [status] if status else ["pending", "set_aside"]:
            for row in outbox.rows(sink, wanted, _MANY):
                click.echo(json.dumps(_as_json(sink, row)) if as_json else _line(row))
                found += 1
    if not found and not as_json:
        click.echo(f"nothing is {status or 'pending or set aside'}")


def retry_entries(env_file: Path | None, keys: Sequence[str]) -> None:
    """Make entries due at once."""
    settings, _ = load_settings(env_file)
    outbox = durable_outbox(settings, reach_cluster(settings).name)
    count = sum(outbox.retry(sink, keys) for sink in _sinks(settings))
    _tell(count, keys, "due again; the running agent sends them within seconds, what concerns orders after a good look")


def drop_entries(env_file: Path | None, keys: Sequence[str]) -> None:
    """Forget entries."""
    settings, _ = load_settings(env_file)
    outbox = durable_outbox(settings, reach_cluster(settings).name)
    count = sum(outbox.drop(sink, keys) for sink in _sinks(settings))
    _tell(count, keys, "forgotten")


def _sinks(settings: Settings) -> list[str]:
    return sorted({sink for flow in flows_for(settings) for sink in flow.sinks})


def _tell(count: int, keys: Sequence[str], what: str) -> None:
    click.echo(f"{count} {'entry' if count == 1 else 'entries'} {what}")
    if count < len(keys):
        click.echo(
            f"{len(keys) - count} of the keys neither wait nor are set aside (see 'cvagent outbox list')", err=True
        )
        raise SystemExit(1)


def _line(row: Row) -> str:
    job = row.document
    changed = dt.datetime.fromtimestamp(row.changed_at, dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    wait_s = row.due_at - time.time()
    when = f"next try in {wait_s:.0f} s" if row.status == "pending" and wait_s > 0 else ""
    parts = (f"{row.status:<9}  {job.key:<20} {job.word:<10} since {changed}", f"{row.attempts} tries", when)
    return "  ".join(part for part in (*parts, row.error or "") if part)


def _as_json(sink: str, row: Row) -> dict[str, object]:
    details = row._asdict() | {"key": row.document.key, "state": row.document.word}
    del details["document"], details["absence"]
    return {"sink": sink, **details}
