"""`cvagent check`: a line for each thing that must work, with the mend for what does not."""

import email.utils
import os
import time
from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from pathlib import Path

import click

from cvagent.app import flows_for, inventory_job, make_runner, open_outbox
from cvagent.app.pull import make_cloudvision, other_cluster
from cvagent.cli.check_accounts import check_accounts
from cvagent.cli.check_portal import check_portal
from cvagent.cli.check_rights import check_rights
from cvagent.cli.finding import Finding
from cvagent.clients.runner import Runner
from cvagent.clients.slurm import Slurm, SlurmConfig
from cvagent.clients.slurm_nodes import SlurmNodes
from cvagent.errors import CvagentError, SettingsError
from cvagent.settings import Settings, load_settings
from cvagent.settings.fields import IN_MEMORY
from cvagent.sources.node_facts import why_not

_CLOCK_OFF_S = 30
_TRIED = ("squeue", "sacct", "scontrol")
_TRIED_FOR_NODES = {"srun": ("sinfo", "srun", "scancel"), "report": ("sinfo",), "off": ()}


def check_all(env_file: Path | None) -> bool:
    """Print a line a finding; whether nothing is wrong."""
    return show_all(_findings(env_file))


def show_all(findings: Iterable[Finding]) -> bool:
    """Print a line a finding; whether nothing is wrong."""
    good = True
    for finding in findings:
        mark, colour = {True: ("ok  ", "green"), False: ("FAIL", "red"), None: ("note", "yellow")}[finding.ok]
        click.echo(f"{click.style(mark, fg=colour)}  {finding.what:<12} {finding.text}")
        good = good and finding.ok is not False
    return good


def _findings(env_file: Path | None) -> Iterator[Finding]:
    try:
        settings, notes = load_settings(env_file)
        flows = flows_for(settings)
    except SettingsError as error:
        yield from (Finding(False, "settings", line) for line in str(error).splitlines())
        return
    yield Finding(True, "settings", f"mode {settings.mode}, flows: {', '.join(flow.name for flow in flows)}")
    yield from (Finding(None, "settings", note) for note in notes)
    yield from _slurm(settings, {flow.name for flow in flows})
    yield _try("store", lambda: _store(settings))
    if settings.cloudvision_url:
        yield from _cloudvision(settings, settings.cloudvision_url)
    yield from check_portal(settings)


def _slurm(settings: Settings, flows: Container[str]) -> Iterator[Finding]:
    runner = make_runner(settings)
    slurm = Slurm(runner, settings.slurm_timeout_s)
    yield from (_try(command, partial(_version, runner, command, settings)) for command in _tried(settings, flows))
    try:
        config = slurm.config()
    except CvagentError as error:
        yield Finding(False, "slurmctld", f"{error}. Is slurmctld up, and may this user ask it?")
        return
    yield Finding(True, "slurmctld", f"answers; ClusterName {config.cluster}, Slurm {config.version}")
    yield _cluster(settings, config)
    yield _try("live jobs", lambda: f"{len(slurm.live_jobs())} in slurmctld, pending ones not counted")
    yield from _accounting(settings, slurm, config)
    yield from check_rights(settings, runner, config)
    yield from check_accounts(settings, runner, config)
    if "nodes" in flows:
        yield _try("nodes", partial(_nodes, runner, settings))
    if "jobs" in config.private_data and os.geteuid() != 0:
        text = "PrivateData=jobs: this user sees only its own jobs; run as SlurmUser, or give it AdminLevel=Operator"
        yield Finding(None, "rights", text)


def _cluster(settings: Settings, config: SlurmConfig) -> Finding:
    if wrong := other_cluster(settings, config.cluster):
        return Finding(False, "cluster", wrong)
    if settings.cluster and settings.cluster != config.cluster:
        text = f"CVAGENT_CLUSTER is {settings.cluster}, Slurm's ClusterName is {config.cluster}: the first is used"
        return Finding(None, "cluster", text)
    return Finding(True, "cluster", config.cluster)


def _accounting(settings: Settings, slurm: Slurm, config: SlurmConfig) -> Iterator[Finding]:
    if config.accounting:
        now = int(time.time())
        yield _try("accounting", lambda: f"{len(slurm.ended_jobs(now - 600, now))} jobs ended in the last 10 minutes")
        return
    kept = f"ends are seen in slurmctld alone, for MinJobAge={config.min_job_age_s} s"
    yield Finding(None, "accounting", f"this cluster keeps none: {kept}, and there is no look-back")
    if config.min_job_age_s < 3 * settings.job_interval_s:
        text = f"MinJobAge is under three rounds: set CVAGENT_JOB_INTERVAL_S to {config.min_job_age_s // 3} or less"
        yield Finding(False, "accounting", text)


def _tried(settings: Settings, flows: Container[str]) -> tuple[str, ...]:
    of_nodes = _TRIED_FOR_NODES[settings.node_facts] if "nodes" in flows else ()
    of_accounts = ("sacctmgr", "scancel") if "accounts" in flows else ()
    return tuple(dict.fromkeys(_TRIED + of_nodes + of_accounts))


def _nodes(runner: Runner, settings: Settings) -> str:
    nodes = SlurmNodes(runner, settings.slurm_timeout_s).nodes()
    if settings.node_facts == "report":
        return f"{len(nodes)} in Slurm, which report into {settings.node_report_dir}"
    able = [node for node in nodes.values() if not why_not(node, inventory_job(settings))]
    return f"{len(nodes)} in Slurm, of which {len(able)} could take an inventory now"


def _store(settings: Settings) -> str:
    outbox = open_outbox(settings, settings.cluster or "check")
    outbox.close()
    in_memory = settings.store_secret.value() == IN_MEMORY
    return "in memory: a restart looks back in Slurm's accounting" if in_memory else "opens"


def _cloudvision(settings: Settings, url: str) -> Iterator[Finding]:
    client = make_cloudvision(settings)
    try:
        ping = client.ping()
    except CvagentError as error:
        yield Finding(False, "CloudVision", str(error))
        return
    finally:
        client.close()
    tls = "TLS verified" if url.startswith("https") else "no TLS, loopback"
    yield Finding(True, "CloudVision", f"{url} answers, token taken, {tls}")
    yield _clock(ping.date)


def _clock(date: str | None) -> Finding:
    if date is None:
        return Finding(None, "clock", "CloudVision sends no Date header to compare with")
    off_s = time.time() - email.utils.parsedate_to_datetime(date).timestamp()
    if abs(off_s) > _CLOCK_OFF_S:
        return Finding(False, "clock", f"{off_s:+.0f} s off CloudVision's: start NTP (chrony) on this machine")
    return Finding(True, "clock", "agrees with CloudVision's")


def _try(what: str, ask: Callable[[], str]) -> Finding:
    try:
        return Finding(True, what, ask())
    except CvagentError as error:
        return Finding(False, what, str(error))


def _version(runner: Runner, command: str, settings: Settings) -> str:
    return runner.run([command, "--version"], timeout_s=settings.slurm_timeout_s).decode(errors="replace").strip()
