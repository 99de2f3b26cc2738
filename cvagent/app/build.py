"""Makes the parts from settings. Commands that need some of them without a running agent make those alone."""

import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import NamedTuple

from cvagent.api.bill import Bill
from cvagent.api.observer import Board
from cvagent.app.billing import Billing, make_usage_rules
from cvagent.app.pull import (
    Pull,
    check_pull,
    make_account_rules,
    make_cloudvision,
    make_member_rules,
    make_tenant_rules,
    other_cluster,
)
from cvagent.clients.docker import Container, DockerRunner
from cvagent.clients.runner import NativeRunner, Runner
from cvagent.clients.slurm import Slurm
from cvagent.clients.slurm_nodes import InventoryJob, SlurmNodes
from cvagent.clients.ssh_nodes import SshAccess, SshNodes
from cvagent.errors import CvagentError, SettingsError, SourceError
from cvagent.flows import Flow, flows_of
from cvagent.loops import Horizon
from cvagent.ports import Sink, Source
from cvagent.pull.accounts import AccountRules
from cvagent.pull.members import MemberRules
from cvagent.pull.tenants import TenantRules
from cvagent.push.jobs import JobRules
from cvagent.push.nodes import NodeRules
from cvagent.push.sharing import SharingRules
from cvagent.push.usage import UsageRules
from cvagent.settings import Settings
from cvagent.sinks.cloudvision_jobs import CloudVisionJobs
from cvagent.sinks.cloudvision_nodes import CloudVisionNodes
from cvagent.sinks.cloudvision_tenants import CloudVisionTenants
from cvagent.sources.node_facts import Inventory, SshInventory, StepInventory
from cvagent.sources.node_reports import Awaited, Reports
from cvagent.sources.slurm_allocations import Allocations, FactReader
from cvagent.sources.slurm_jobs import SlurmJobs
from cvagent.sources.slurm_nodes import ClusterNodes, FactStore
from cvagent.store.outbox import SqlOutbox

_STALE_ROUNDS = 3
_DAY_S = 86_400.0
# An errand is carried out although one look for it was missed.
_VALID_ROUNDS = 2
# A round of pull mode may read many pages.
_PULL_SLACK_S = 120.0


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """UTC epoch seconds."""
        return time.time()


class Cluster(NamedTuple):
    """How the cluster is asked, and what it is called."""

    name: str
    runner: Runner
    slurm: Slurm


def make_runner(settings: Settings) -> Runner:
    """The runner for Slurm's commands that the settings name."""
    if settings.slurm_deployment == "docker":
        where = settings.slurm_bin_dir, settings.slurm_conf, settings.slurm_user or ""
        return DockerRunner(Container(settings.slurm_container or "", *where))
    return NativeRunner(settings.slurm_bin_dir, settings.slurm_conf)


def reach_cluster(settings: Settings) -> Cluster:
    """The cluster's commands and name.

    Raises:
        SettingsError: Pull mode would change another cluster.
        SourceError: No name is set and Slurm does not tell its own, for now.
    """
    runner = make_runner(settings)
    slurm = Slurm(runner, settings.slurm_timeout_s)
    if settings.cluster:
        _check_own(settings, slurm)
        return Cluster(settings.cluster, runner, slurm)
    try:
        return Cluster(slurm.config().cluster, runner, slurm)
    except CvagentError as error:
        raise SourceError(f"CVAGENT_CLUSTER is not set and Slurm does not tell its ClusterName: {error}") from None


def _check_own(settings: Settings, slurm: Slurm) -> None:
    """Raises SettingsError when pull mode is known to name another cluster. Without an answer nothing is known."""
    if settings.mode == "push":
        return
    try:
        own = slurm.config().cluster
    except CvagentError:
        return
    if wrong := other_cluster(settings, own):
        raise SettingsError(wrong)


def make_rules(settings: Settings, cluster: str, *, force: bool = False) -> JobRules:
    """What the operator decided about jobs."""
    return JobRules(
        cluster=cluster,
        name_filter=settings.job_name_filter,
        partition_filter=settings.partition_filter,
        absent_rounds=settings.absent_rounds,
        removal_share=settings.removal_share,
        force=force,
        sharing=SharingRules(settings.job_resources, settings.interface_filter, settings.interface_kind),
    )


def make_node_rules(settings: Settings, cluster: str, *, force: bool = False) -> NodeRules:
    """What the operator decided about nodes."""
    return NodeRules(
        cluster=cluster,
        with_cluster=_with_cluster(settings),
        interface_filter=settings.interface_filter,
        interface_kind=settings.interface_kind,
        absent_rounds=settings.absent_rounds,
        removal_share=settings.removal_share,
        force=force,
    )


def rules_for(
    flow: str, settings: Settings, cluster: str, *, force: bool = False
) -> JobRules | NodeRules | UsageRules | AccountRules | MemberRules | TenantRules:
    """The rules of a flow. Raises SettingsError."""
    if flow in {"accounts", "order_states", "associations"}:
        return make_account_rules(settings, cluster)
    if flow == "tenants":
        return make_tenant_rules(settings, force=force)
    if flow == "members":
        return make_member_rules(settings, cluster, force=force)
    if flow == "usage":
        return make_usage_rules(settings, force=force)
    if flow == "jobs":
        return make_rules(settings, cluster, force=force)
    return make_node_rules(settings, cluster, force=force)


def interval_s(flow: str, settings: Settings) -> float:
    """Seconds from one round of a flow to the next."""
    return {
        "jobs": settings.job_interval_s,
        "nodes": settings.node_interval_s,
        "usage": settings.usage_interval_s,
    }.get(flow, settings.portal_interval_s)


class Means(NamedTuple):
    """What sources read with."""

    runner: Runner
    facts: FactStore
    inventory: Inventory
    billing: Billing
    pull: Pull


def make_source(flow: Flow, settings: Settings, means: Means) -> Source:
    """The source of a flow."""
    runner, facts, inventory, billing, pull = means
    if flow.mode == "pull":
        return pull.source(flow)
    if flow.source == "slurm_usage":
        return billing.source(runner)
    if flow.source == "slurm_jobs":
        return make_jobs(settings, runner, facts)
    return make_nodes(settings, runner, facts, inventory)


def make_jobs(settings: Settings, runner: Runner, facts: FactReader) -> SlurmJobs:
    """The source `slurm_jobs`. Without what nodes said, no job can be told by its interfaces."""
    slurm = Slurm(runner, settings.slurm_timeout_s)
    if settings.job_resources == "node" or settings.node_facts == "off":
        return SlurmJobs(slurm)
    return SlurmJobs(slurm, Allocations(slurm, facts, everything=settings.job_resources == "interface"))


def make_nodes(settings: Settings, runner: Runner, facts: FactStore, inventory: Inventory) -> ClusterNodes:
    """The source `slurm_nodes`."""
    slurm = SlurmNodes(runner, settings.slurm_timeout_s)
    return ClusterNodes(slurm, inventory, facts, settings.node_facts_max_age_h * 3600, settings.node_interval_s)


def make_inventory(settings: Settings, runner: Runner, stop: Event | None = None) -> Inventory:
    """How nodes read their own hardware. Once `stop` is set, what runs on this machine is ended."""
    if settings.node_facts == "ssh":
        access = SshAccess(settings.ssh_args, settings.ssh_fanout, settings.inventory_allow.pattern)
        return SshInventory(SshNodes(access, NativeRunner(stopped=stop)), settings.inventory_time_s)
    if settings.node_facts == "report":
        return Reports(settings.node_report_dir) if settings.node_report_dir else Awaited()
    return StepInventory(SlurmNodes(runner, settings.slurm_timeout_s), inventory_job(settings))


def inventory_job(settings: Settings) -> InventoryJob:
    """How the inventory's job is to be started."""
    return InventoryJob(
        partition=settings.inventory_partition,
        account=settings.inventory_account,
        qos=settings.inventory_qos,
        reservation=settings.inventory_reservation,
        time_s=settings.inventory_time_s,
        arguments=settings.inventory_args,
        allow=settings.inventory_allow.pattern,
    )


def make_sink(settings: Settings, cluster: str) -> CloudVisionJobs:
    """The sink that writes jobs to CloudVision."""
    return CloudVisionJobs(make_cloudvision(settings), cluster, with_cluster=_with_cluster(settings))


def make_node_sink(settings: Settings, cluster: str) -> CloudVisionNodes:
    """The sink that writes nodes to CloudVision."""
    return CloudVisionNodes(make_cloudvision(settings), cluster)


def make_tenant_sink(settings: Settings, cluster: str) -> CloudVisionTenants:
    """The sink that writes tenants to CloudVision."""
    return CloudVisionTenants(make_cloudvision(settings), cluster, with_cluster=_with_cluster(settings))


def make_sinks(settings: Settings, cluster: str, flows: Sequence[Flow], billing: Billing, pull: Pull) -> list[Sink]:
    """The sinks of these flows."""
    make: dict[str, Callable[[], Sink]] = {
        "cloudvision_jobs": lambda: make_sink(settings, cluster),
        "cloudvision_nodes": lambda: make_node_sink(settings, cluster),
        "portal_usage": billing.sink,
        "cloudvision_tenants": lambda: make_tenant_sink(settings, cluster),
    }
    names = dict.fromkeys(sink for flow in flows for sink in flow.sinks)
    return [make[name]() if name in make else pull.sink(name) for name in names]


def _with_cluster(settings: Settings) -> bool:
    return settings.node_key == "node@cluster"


def make_horizon(settings: Settings, outbox: SqlOutbox) -> Horizon:
    """How far back to look, and what to keep: more in a store that lasts than in one in memory."""
    lookback_s = settings.lookback_h * 3600
    kept_s = 0.0 if outbox.in_memory else max(lookback_s, _DAY_S)
    return Horizon(lookback_s, kept_s, valid_s=_VALID_ROUNDS * settings.portal_interval_s)


def open_outbox(settings: Settings, cluster: str) -> SqlOutbox:
    """The store. Raises StoreError."""
    return SqlOutbox(settings.store_secret.value(), cluster)


def flows_for(settings: Settings) -> tuple[Flow, ...]:
    """The flows of the mode. Raises SettingsError when one lacks what it needs."""
    if settings.mode != "push":
        check_pull(settings)
    untold = settings.cloudvision_url is None
    without = {
        "jobs": untold,
        "nodes": untold or settings.node_facts == "off",
        "usage": settings.portal_url is None,
        "tenants": not settings.tells_tenants,
    }
    return tuple(flow for flow in flows_of(settings.mode) if not without.get(flow.name))


def make_board(settings: Settings, flows: Sequence[Flow], bill: Bill | None = None) -> Board:
    """The board that hears of every round and delivery."""
    slack_s = {
        "jobs": settings.slurm_timeout_s,
        "nodes": 2 * settings.slurm_timeout_s + settings.inventory_time_s,
        "usage": 2 * settings.slurm_timeout_s,
    }
    stale_s = {
        flow.name: _STALE_ROUNDS * interval_s(flow.name, settings) + slack_s.get(flow.name, _PULL_SLACK_S)
        for flow in flows
    }
    return Board(stale_s, {sink: 0.0 for flow in flows for sink in flow.sinks}, bill)
