"""`cvagent drift`: where portal, Slurm and CloudVision differ, and what mends it."""

import json
import shlex
import time
from contextlib import closing
from pathlib import Path

import click

from cvagent.app import Billing, reach_cluster
from cvagent.app.pull import Pull, make_account_rules, make_member_rules, make_tenant_rules
from cvagent.errors import SettingsError
from cvagent.model import Ask
from cvagent.pull.drift import Drift, DriftRules, find_drift
from cvagent.settings import Settings, load_settings
from cvagent.store.outbox import SqlOutbox


def show_drift(env_file: Path | None, *, as_json: bool) -> bool:
    """Print each difference with its mend; whether there is none. Raises SettingsError or SourceError."""
    settings, _ = load_settings(env_file)
    if settings.portal_url is None:
        raise SettingsError("CVAGENT_PORTAL_URL is not set: there is nothing to compare Slurm with")
    found = _find(settings)
    if as_json:
        click.echo(json.dumps([_as_json(drift) for drift in found], indent=2))
    else:
        for drift in found:
            _show(drift)
        compared = "portal, Slurm and CloudVision" if settings.tells_tenants else "portal and Slurm"
        click.echo(f"{len(found)} to mend" if found else f"{compared} agree")
    return not found


def _find(settings: Settings) -> list[Drift]:
    cluster = reach_cluster(settings)
    billing = Billing(settings)
    rules = DriftRules(
        make_account_rules(settings, cluster.name),
        make_member_rules(settings, cluster.name),
        make_tenant_rules(settings),
    )
    # Cold: all that CloudVision was told is to be compared.
    ask = Ask(now=int(time.time()), since=0, known={}, cold=True)
    with closing(billing.portal), closing(SqlOutbox("sqlite://", cluster.name)) as nothing:
        pull = Pull(settings, cluster.name, cluster.runner, nothing, billing)
        tenants = pull.tenants.observe(ask) if settings.tells_tenants and _lists(pull) else None
        return find_drift(pull.members.observe_all(ask), tenants, tenants.told if tenants else None, rules)


def _lists(pull: Pull) -> bool:
    """Whether CloudVision says what it holds of tenants. Raises SourceError when it does not answer."""
    if pull.told.listed() is not None:
        return True
    click.echo("note: this CloudVision shows no list of jobs: only portal and Slurm are compared", err=True)
    return False


def _show(drift: Drift) -> None:
    click.echo(f"{click.style(' / '.join(drift.between), fg='yellow')}  {drift.what}: {drift.how}")
    for command in drift.mend:
        click.echo(f"    {shlex.join(command)}")


def _as_json(drift: Drift) -> dict[str, object]:
    return {
        "between": drift.between,
        "what": drift.what,
        "how": drift.how,
        "mend": [shlex.join(command) for command in drift.mend],
    }
