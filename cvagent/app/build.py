"""Makes the parts from settings. Commands that need some of them without a running agent make those alone."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from cvagent import __version__
from cvagent.api.bill import Bill
from cvagent.api.observer import Board
from cvagent.clients.cloudvision import CloudVision
from cvagent.clients.docker import DockerRunner
from cvagent.clients.runner import NativeRunner, Runner
from cvagent.clients.slurm import Slurm
from cvagent.errors import CvagentError, SettingsError
from cvagent.flows import Flow, flows_of
from cvagent.push.jobs import JobRules
from cvagent.settings import Settings
from cvagent.sinks.cloudvision_jobs import CloudVisionJobs
from cvagent.store.outbox import SqlOutbox

_STALE_ROUNDS = 3


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
        return DockerRunner(settings.slurm_container or "", settings.slurm_bin_dir, settings.slurm_conf)
    return NativeRunner(settings.slurm_bin_dir, settings.slurm_conf)


def reach_cluster(settings: Settings) -> Cluster:
    """The cluster's commands and name.

    Raises:
        SettingsError: No name is set and Slurm does not tell its own.
    """
    runner = make_runner(settings)
    slurm = Slurm(runner, settings.slurm_timeout_s)
    if settings.cluster:
        return Cluster(settings.cluster, runner, slurm)
    try:
        return Cluster(slurm.config().cluster, runner, slurm)
    except CvagentError as error:
        raise SettingsError(f"CVAGENT_CLUSTER is not set and Slurm does not tell its ClusterName: {error}") from None


def make_rules(settings: Settings, cluster: str, *, force: bool = False) -> JobRules:
    """What the operator decided about jobs."""
    return JobRules(
        cluster=cluster,
        name_filter=settings.job_name_filter,
        partition_filter=settings.partition_filter,
        absent_rounds=settings.absent_rounds,
        removal_share=settings.removal_share,
        force=force,
    )


def make_sink(settings: Settings, cluster: str) -> CloudVisionJobs:
    """The sink that writes to CloudVision."""
    return CloudVisionJobs(
        CloudVision(settings.cloudvision_url, settings.cloudvision_secret, settings.cloudvision_ca_file), cluster
    )


def open_outbox(settings: Settings, cluster: str) -> SqlOutbox:
    """The store. Raises StoreError."""
    return SqlOutbox(settings.store_secret.value(), cluster)


def flows_for(mode: str) -> tuple[Flow, ...]:
    """The flows of a mode. Raises SettingsError for a mode that has none."""
    flows = flows_of(mode)
    if not flows:
        raise SettingsError(f"CVAGENT_MODE={mode} has no flows in cvagent {__version__}: use push")
    return flows


def make_board(settings: Settings, flows: Sequence[Flow], bill: Bill | None = None) -> Board:
    """The board that hears of every round and delivery."""
    stale_s = _STALE_ROUNDS * settings.job_interval_s + settings.slurm_timeout_s
    sinks = {sink: 0.0 for flow in flows for sink in flow.sinks}
    return Board({flow.name: stale_s for flow in flows}, sinks, bill)
