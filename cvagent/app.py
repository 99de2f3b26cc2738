"""Builds the program from settings. The only module that knows every concrete class."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

import sdnotify

from cvagent import __version__, logs
from cvagent.api.observer import Board
from cvagent.clients.cloudvision import CloudVision
from cvagent.clients.docker import DockerRunner
from cvagent.clients.runner import NativeRunner, Runner
from cvagent.clients.slurm import Slurm
from cvagent.errors import CvagentError, SettingsError
from cvagent.flows import Flow, flows_of
from cvagent.loops import Collector, Courier
from cvagent.ports import Surroundings
from cvagent.push.jobs import JobRules
from cvagent.scheduler import Scheduler
from cvagent.settings import Settings
from cvagent.sinks.cloudvision_jobs import CloudVisionJobs
from cvagent.sources.slurm_jobs import SlurmJobs
from cvagent.store.outbox import SqlOutbox

if TYPE_CHECKING:
    from cvagent.api.server import HttpServer

log = logging.getLogger(__name__)

# A back-off longer than a round would let a recovered CloudVision wait.
_LONGEST_BACKOFF_S = 30.0
_DELIVER_EVERY_S = 1.0
# systemd's own limit for a stop is longer.
_STOP_S = 9.5
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


class Agent:
    """The running program: a round per flow and a delivery per sink, again and again, until it is told to stop.

    Args:
        settings: As loaded.
        reload: Loads the settings anew, for SIGHUP. May raise SettingsError.
        force: Let plans remove more than the guard allows.

    Raises:
        SettingsError: The mode has no flows, or the cluster has no name.
        StoreError: The store does not open.
    """

    def __init__(self, settings: Settings, reload: Callable[[], Settings], *, force: bool = False) -> None:
        self._settings = settings
        self._reload = reload
        self._flows = flows_for(settings.mode)
        self._cluster = reach_cluster(settings)
        self._outbox = open_outbox(settings, self._cluster.name)
        self._sink = make_sink(settings, self._cluster.name)
        self._stop = threading.Event()
        self._board = make_board(settings, self._flows)
        self._scheduler = Scheduler(jobs=len(self._flows) + 2)
        around = Surroundings(self._outbox, SystemClock(), self._board, self._scheduler.wake, self._stop)
        timed = Slurm(_Timed(self._cluster.runner, self._board), settings.slurm_timeout_s)
        rules = make_rules(settings, self._cluster.name, force=force)
        self._collectors = [
            Collector(flow, SlurmJobs(timed), rules, settings.lookback_h * 3600, around) for flow in self._flows
        ]
        self._courier = Courier(self._sink, min(_LONGEST_BACKOFF_S, settings.job_interval_s), around)

    def once(self) -> bool:
        """One round of each flow, and delivery of all that is due; whether nothing failed and nothing waits."""
        signal.signal(signal.SIGTERM, self._on_stop)
        done = [collector.round() is not None for collector in self._collectors]
        self._courier.run()
        left = self._outbox.waiting(self._sink.name, time.time())
        log.info("%d entries wait, %d are set aside", left.pending, left.set_aside)
        self._close()
        return all(done) and not left.pending and not left.set_aside

    def run(self) -> None:
        """Work until SIGTERM or SIGINT. SIGHUP reads filters, intervals and secrets again."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        for collector in self._collectors:
            self._scheduler.add(collector.flow.name, collector.round, self._settings.job_interval_s)
        self._scheduler.add(self._sink.name, self._courier.run, _DELIVER_EVERY_S)
        self._start_watchdog()
        self._scheduler.start()
        server = self._serve()
        sdnotify.SystemdNotifier().notify("READY=1")
        log.info("cvagent %s: %s, cluster %s", __version__, self._settings.mode, self._cluster.name)
        self._stop.wait()
        sdnotify.SystemdNotifier().notify("STOPPING=1")
        self._wind_down(server)

    def _serve(self) -> "HttpServer | None":
        """Begin to serve pages. Raises CvagentError when the address cannot be had; then the work ends too."""
        from cvagent.api.server import HttpServer, make_app

        listen = self._settings.http_listen
        if listen is None:
            return None
        server = HttpServer(
            make_app(self._outbox, self._board, self._settings, self._cluster.name, SystemClock()), listen
        )
        server.start()
        log.info("status page on %s", server.url)
        return server

    def _start_watchdog(self) -> None:
        """Tell systemd that rounds go on, when it asked to be told. A round that hangs stops the telling."""
        limit_s = 6 * self._settings.slurm_timeout_s + 60
        flows = [flow.name for flow in self._flows]

        def tell() -> None:
            if self._scheduler.longest_run_s(flows) < limit_s:
                sdnotify.SystemdNotifier().notify("WATCHDOG=1")

        if os.environ.get("WATCHDOG_USEC", "").isdecimal():
            self._scheduler.add("watchdog", tell, int(os.environ["WATCHDOG_USEC"]) / 2e6)

    def _wind_down(self, server: "HttpServer | None") -> None:
        log.info("stopping: what is under way is finished, the rest stays in the store")
        self._cluster.runner.stop()
        ending = threading.Thread(target=self._end_work, daemon=True)
        ending.start()
        ending.join(_STOP_S)
        if server:
            server.stop()
        if ending.is_alive():
            log.warning("something under way did not end within %.0f s and is cut off", _STOP_S)
            os._exit(0)
        self._close()

    def _end_work(self) -> None:
        self._sink.close()
        self._scheduler.stop()

    def _close(self) -> None:
        self._sink.close()
        self._outbox.close()

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _on_reload(self, _number: int, _frame: FrameType | None) -> None:
        self._scheduler.once("reload", self._take_over)

    def _take_over(self) -> None:
        """Take over filters, intervals, log level and secrets; keep the old ones when the new settings are wrong."""
        try:
            settings = self._reload()
        except SettingsError as error:
            log.error("SIGHUP: the old settings stay, as the new ones are wrong")
            for line in str(error).splitlines():
                log.error("SIGHUP: %s", line)
            return
        logs.set_up(settings.log_level, settings.log_format, settings.secret_texts)
        self._sink.replace_token(settings.cloudvision_secret)
        self._courier.cap_s = min(_LONGEST_BACKOFF_S, settings.job_interval_s)
        for collector in self._collectors:
            collector.rules = make_rules(settings, self._cluster.name)
            collector.lookback_s = settings.lookback_h * 3600
            self._scheduler.every(collector.flow.name, settings.job_interval_s)
        self._settings = settings
        log.info("SIGHUP: filters, intervals, log level and secrets were read again")


class _Timed:
    """A runner that tells the board what each command took."""

    def __init__(self, inner: Runner, board: Board) -> None:
        self._inner = inner
        self._board = board

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> bytes:
        began = time.monotonic()
        done = False
        try:
            answer = self._inner.run(command, timeout_s=timeout_s, env=env)
            done = True
        finally:
            self._board.command_done(command[0], time.monotonic() - began, done)
        return answer

    def stop(self) -> None:
        self._inner.stop()


def flows_for(mode: str) -> tuple[Flow, ...]:
    """The flows of a mode. Raises SettingsError for a mode that has none."""
    flows = flows_of(mode)
    if not flows:
        raise SettingsError(f"CVAGENT_MODE={mode} has no flows in cvagent {__version__}: use push")
    return flows


def make_board(settings: Settings, flows: Sequence[Flow]) -> Board:
    """The board that hears of every round and delivery."""
    stale_s = _STALE_ROUNDS * settings.job_interval_s + settings.slurm_timeout_s
    return Board(
        flows={flow.name: stale_s for flow in flows}, sinks={sink: 0.0 for flow in flows for sink in flow.sinks}
    )
