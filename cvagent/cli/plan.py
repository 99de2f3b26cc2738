"""`cvagent plan`: what a round would change, and why."""

import json
from pathlib import Path
from threading import Event

import click
import msgspec

from cvagent.app import Billing, Means, SystemClock, flows_for, make_board, make_source, reach_cluster, rules_for
from cvagent.app.pull import Pull
from cvagent.cli.known import NoAgent, Pages, seen_from_outside
from cvagent.flows import Flow
from cvagent.loops import Collector, Horizon
from cvagent.model import Change, Document, Plan, utc
from cvagent.ports import Surroundings
from cvagent.settings import Settings, load_settings
from cvagent.sources.node_facts import NoInventory
from cvagent.store.outbox import SqlOutbox

_SHOWN = 200


def show_plans(env_file: Path | None, name: str | None, *, as_json: bool, force: bool) -> None:
    """Print the plan of one flow or of all. Raises SettingsError, SourceError or StoreError."""
    settings, notes = load_settings(env_file)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    flows = flows_for(settings)
    names = [flow.name for flow in flows]
    if name is not None and name not in names:
        raise click.BadParameter(f"'{name}' is no flow of mode {settings.mode}: {', '.join(names)}", param_hint="FLOW")
    plans = {flow.name: _plan(settings, flow, force=force) for flow in flows if name in {None, flow.name}}
    if as_json:
        click.echo(json.dumps({flow: _as_json(plan) for flow, plan in plans.items()}, indent=2))
        return
    for flow, plan in plans.items():
        _show(flow, plan)


def _plan(settings: Settings, flow: Flow, *, force: bool) -> Plan:
    cluster = reach_cluster(settings)
    rules = rules_for(flow.name, settings, cluster.name, force=force)
    board = make_board(settings, [flow])

    def against(outbox: SqlOutbox | Pages) -> Plan:
        around = Surroundings(outbox, SystemClock(), board, lambda _name: None, Event())  # type: ignore[arg-type] # a plan only looks
        billing = Billing(settings)
        pull = Pull(settings, cluster.name, cluster.runner, outbox, billing)
        means = Means(cluster.runner, outbox.facts(), NoInventory(), billing, pull)
        source = make_source(flow, settings, means)
        return Collector(flow, source, rules, Horizon(settings.lookback_h * 3600), around).plan()

    try:
        return against(seen_from_outside(settings, cluster.name))
    except NoAgent as error:
        click.echo(f"note: {error}", err=True)
        click.echo("note: its store is in memory, so this is compared with nothing: everything looks new", err=True)
        return against(SqlOutbox("sqlite://", cluster.name))


def _show(flow: str, plan: Plan) -> None:
    if not plan.changes and not plan.refused:
        click.echo(f"{flow}: nothing to do; {_count(plan.unchanged, 'document')} as they should be")
    else:
        click.echo(f"{flow}: {_count(len(plan.changes), 'change')}; {plan.unchanged} as they should be")
    for change in plan.changes[:_SHOWN]:
        click.echo(_line(change))
    if len(plan.changes) > _SHOWN:
        click.echo(f"  ... and {len(plan.changes) - _SHOWN} more (--json shows all)")
    if plan.refusal:
        click.secho(f"  withheld: {plan.refusal}", fg="red")
    for change in plan.refused[:_SHOWN]:
        click.secho(f"  ! {_line(change).strip()}", fg="red")
    for problem in (*plan.problems, *filter(None, [plan.note])):
        click.secho(f"  note: {problem}", fg="yellow")


def _line(change: Change) -> str:
    before, after, _ = change
    if before is None:
        return click.style(f"  + {after.key:<20} {after.word:<10} {after}", fg="green")
    told = after.word if before.word == after.word else f"{before.word} -> {after.word}"
    return click.style(f"  ~ {after.key:<20} {told:<10} {after}", fg="yellow")


def _count(number: int, word: str) -> str:
    """A number and its word.

    >>> _count(1, "change"), _count(0, "change")
    ('1 change', '0 changes')
    """
    return f"{number} {word}" + ("" if number == 1 else "s")


def _as_json(plan: Plan) -> dict[str, object]:
    return {
        "changes": [_change_as_json(change) for change in plan.changes],
        "withheld": [_change_as_json(change) for change in plan.refused],
        "refusal": plan.refusal,
        "unchanged": plan.unchanged,
        "problems": list(plan.problems),
        "note": plan.note,
    }


def _change_as_json(change: Change) -> dict[str, object]:
    return {
        "key": change.after.key,
        "why": change.why,
        "before": _fields(change.before),
        "after": _fields(change.after),
    }


def _fields(document: Document | None) -> object:
    if document is None:
        return None
    fields = {name: getattr(document, name) for name in document.__struct_fields__}
    times = {name: utc(at) if at else None for name, at in fields.items() if name.endswith("_at")}
    return msgspec.to_builtins(fields | times)
