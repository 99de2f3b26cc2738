"""`cvagent inventory`: nodes read their interfaces now, and CloudVision hears what changed."""

import time
from collections.abc import Sequence
from pathlib import Path

import click

from cvagent.app import (
    Cluster,
    inventory_job,
    make_inventory,
    make_node_rules,
    make_node_sink,
    make_nodes,
    open_outbox,
    reach_cluster,
)
from cvagent.cli.sending import Sending
from cvagent.clients.hostlist import unfold
from cvagent.clients.slurm_nodes import SlurmNodes, folded
from cvagent.model import NodesSeen, Plan
from cvagent.model.nodes import node_key
from cvagent.push.nodes import NodeRules, plan_nodes
from cvagent.settings import Settings, load_settings
from cvagent.sources.node_facts import grouped, unreachable, why_not


def take_inventory(env_file: Path | None, hostlists: Sequence[str], *, dry_run: bool) -> None:
    """Ask these nodes, or all. SystemExit(1) when one did not answer or something was not sent."""
    settings, notes = load_settings(env_file)
    for note in notes:
        click.echo(note, err=True)
    try:
        names = [name for hostlist in hostlists for name in unfold(hostlist)]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="NODES") from None
    cluster = reach_cluster(settings)
    if dry_run:
        _show(settings, cluster, names)
    elif not _ask_and_send(settings, cluster, names):
        raise SystemExit(1)


def _show(settings: Settings, cluster: Cluster, names: Sequence[str]) -> None:
    """Which nodes would be asked, and why others cannot be."""
    nodes = SlurmNodes(cluster.runner, settings.slurm_timeout_s).nodes()
    job = inventory_job(settings)
    by_ssh = settings.node_facts == "ssh"
    known = {name: unreachable(node) if by_ssh else why_not(node, job) for name, node in nodes.items()}
    reasons = {name: known.get(name, "unknown to Slurm") for name in names or nodes}
    able = [name for name, reason in reasons.items() if not reason]
    groups = {} if by_ssh else grouped(able, nodes, job.partition)
    for partition, members in groups.items():
        click.echo(f"would be asked in one step in partition {partition}: {folded(members)}")
    if by_ssh and able:
        click.echo(f"would be asked by ssh: {folded(able)}")
    for name, reason in reasons.items():
        if reason:
            click.echo(f"cannot be asked now: {name}: {reason}")


def _ask_and_send(settings: Settings, cluster: Cluster, names: Sequence[str]) -> bool:
    # In memory, this store is not the running agent's: all that is found is sent.
    outbox = open_outbox(settings, cluster.name)
    sink = make_node_sink(settings, cluster.name)
    sending = Sending(outbox, sink)
    rules = make_node_rules(settings, cluster.name)
    with sending.progress as progress:
        asking = progress.add_task("asking nodes", total=None)
        inventory = make_inventory(settings, cluster.runner)
        seen = make_nodes(settings, cluster.runner, outbox.facts(), inventory).ask_now(names, int(time.time()))
        asked = list(names or seen.facts)
        progress.update(asking, total=len(asked), completed=len(asked) - len(seen.delays))
        plan = _of_these(asked, plan_nodes(seen, outbox.known(sink.name, 0), rules), rules)
        sending.expect(len(plan.changes))
        outbox.record("nodes", [sink.name], plan, time.time(), None)
        sending.deliver()
    return _told(seen, asked, plan) & sending.told(len(plan.changes))


def _of_these(names: Sequence[str], plan: Plan, rules: NodeRules) -> Plan:
    """What to tell of these nodes; deletions are the agent's business, which looks more than once."""
    keys = {node_key(name, rules.cluster, with_cluster=rules.with_cluster) for name in names}
    wanted = [change for change in plan.changes if change.after.ended_at is None and change.after.key in keys]
    return Plan(changes=wanted, problems=plan.problems)


def _told(seen: NodesSeen, asked: Sequence[str], plan: Plan) -> bool:
    for name, (reason, _) in seen.delays.items():
        click.echo(f"{name}: {reason}", err=True)
    for problem in plan.problems:
        click.echo(f"note: {problem}", err=True)
    click.echo(f"{len(asked) - len(seen.delays)} of {len(asked)} nodes told their interfaces")
    return not seen.delays
