"""`cvagent drift`: where portal, Slurm and CloudVision differ, and what mends it."""

import json
import shlex
import time
from contextlib import closing
from pathlib import Path

import click

from cvagent.app import Billing, reach_cluster
from cvagent.app.pull import Pull, make_account_rules, make_cloudvision, make_member_rules, make_tenant_rules
from cvagent.clients.cloudvision import HeldJob
from cvagent.errors import DeliveryError, SettingsError, SourceError
from cvagent.model import Ask, State
from cvagent.model.tenants import TenantConfig
from cvagent.pull.drift import Drift, DriftRules, find_drift
from cvagent.settings import Settings, load_settings
from cvagent.store.outbox import SqlOutbox

_TENANT = "JOB_TYPE_TENANT"


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
    ask = Ask(now=int(time.time()), since=0, known={}, cold=False)
    with closing(billing.portal), closing(SqlOutbox("sqlite://", cluster.name)) as nothing:
        pull = Pull(settings, cluster.name, cluster.runner, nothing, billing)
        tenants = pull.tenants.observe(ask) if settings.tells_tenants else None
        return find_drift(pull.members.observe(ask), tenants, _told(settings) if tenants else None, rules)


def _told(settings: Settings) -> dict[str, TenantConfig] | None:
    """What CloudVision holds of tenants. Raises SourceError."""
    with closing(make_cloudvision(settings)) as client:
        try:
            held = client.jobs()
        except DeliveryError as error:
            raise SourceError(str(error)) from None
    if held is None:
        click.echo("note: this CloudVision shows no list of jobs: only portal and Slurm are compared", err=True)
        return None
    return {key: _config(key, job) for key, job in held.items() if job.type == _TENANT}


def _config(key: str, job: HeldJob) -> TenantConfig:
    began = int(job.start_time.timestamp())
    word = job.state.removeprefix("JOB_STATE_")
    state = State(word) if word in {one.value for one in State} else State.FAILED
    return TenantConfig(
        key=key,
        resource=key.partition(".")[0],
        name=job.name,
        state=state,
        started_at=began,
        # A node may be called node@cluster there.
        nodes=tuple(node.partition("@")[0] for node in job.nodes.values),
        interfaces=job.interfaces.values,
        ended_at=None if state is State.RUNNING else began,
    )


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
