"""The running program: built from its parts, started, reloaded and stopped."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Any

import sdnotify

from cvagent import __version__, logs
from cvagent.api.bill import Bill, Metered, Served
from cvagent.app import memory
from cvagent.app.billing import Billing, month_ends
from cvagent.app.build import (
    Means,
    SystemClock,
    flows_for,
    interval_s,
    make_board,
    make_horizon,
    make_inventory,
    make_sinks,
    make_source,
    open_outbox,
    reach_cluster,
    rules_for,
)
from cvagent.app.pull import Pull
from cvagent.clients.sdiag import diagnose
from cvagent.errors import CvagentError, SettingsError
from cvagent.loops import Collector, Courier, run_out
from cvagent.ports import Surroundings
from cvagent.scheduler import Pace, Scheduler
from cvagent.settings import Settings
from cvagent.sinks.cloudvision import CloudVisionSink
from cvagent.sources.node_facts import Inventory
from cvagent.sources.node_reports import Mailbox, Posted

if TYPE_CHECKING:
    from cvagent.api.server import HttpServer
    from cvagent.sources.notes import Notes

log = logging.getLogger(__name__)

# A back-off longer than a round would let a recovered CloudVision wait.
_LONGEST_BACKOFF_S = 30.0
_DELIVER_EVERY_S = 1.0
# With the two seconds that the pages may take to close, less than the ten that systemd gives.
_STOP_S = 7.5
# What the hook's notes are a reason to look at.
NOTED_FLOW = "jobs"
_BILL_EVERY_S = 300.0
_GATHER_REPORTS_S = 2.0
# Until the portal took it; then nothing is asked any more.
_DECLARE_EVERY_S = 300.0
_CLOSE_EVERY_S = 25.0


class Agent:
    """The running program: a round per flow and a delivery per sink, again and again, until it is told to stop.

    Args:
        settings: As loaded.
        reload: Loads the settings anew, for SIGHUP. May raise SettingsError.
        force: Let plans remove more than the guard allows.

    Raises:
        SettingsError: The mode has no flows.
        SourceError: The cluster has no name in the settings, and Slurm does not tell it.
        StoreError: The store does not open.
    """

    def __init__(self, settings: Settings, reload: Callable[[], Settings], *, force: bool = False) -> None:
        self._settings = settings
        self._reload = reload
        self._flows = flows_for(settings)
        self._cluster = reach_cluster(settings)
        self._outbox = open_outbox(settings, self._cluster.name)
        self._billing = Billing(settings)
        self._stop = threading.Event()
        # In a container commands run as its root, as a rule.
        self._user = str(os.geteuid()) if settings.slurm_deployment == "native" else settings.slurm_user or "0"
        self._bill = Bill(self._user, time.time())
        self._board = make_board(settings, self._flows, self._bill)
        sinks = {sink for flow in self._flows for sink in flow.sinks}
        self._scheduler = Scheduler(jobs=len(self._flows) + len(sinks) + 4)
        self._metered = Metered(self._cluster.runner, self._note_command)
        pull = Pull(settings, self._cluster.name, self._metered, self._outbox, self._billing)
        self._sinks = make_sinks(settings, self._cluster.name, self._flows, self._billing, pull)
        self._pace = Pace()
        around = Surroundings(self._outbox, SystemClock(), self._board, self._scheduler.wake, self._stop)
        # A node that reports has news: they are looked at soon, with those of its neighbours.
        self._mailbox = Mailbox(partial(self._scheduler.wake, "nodes", _GATHER_REPORTS_S))
        inventory: Inventory = make_inventory(settings, self._metered, self._stop)
        if settings.report_secret:
            inventory = Posted(self._mailbox, inventory)
        means = Means(self._metered, self._outbox.facts(), inventory, self._billing, pull)
        self._collectors = [
            Collector(
                flow,
                make_source(flow, settings, means),
                rules_for(flow.name, settings, self._cluster.name, force=force),
                make_horizon(settings, self._outbox),
                around,
            )
            for flow in self._flows
        ]
        self._notes = self._make_notes(settings)
        cap_s = min(_LONGEST_BACKOFF_S, settings.job_interval_s)
        follow = {sink: [flow.name for flow in self._flows if sink in flow.follows] for sink in sinks}
        wanted = {looks.flow.sinks[0]: looks.vouches for looks in self._collectors if looks.flow.errands}
        self._couriers = [
            Courier(sink, cap_s, around, follow[sink.name], wanted.get(sink.name)) for sink in self._sinks
        ]

    def once(self) -> bool:
        """A round of each flow, and delivery of all that is due; whether nothing failed and nothing waits."""
        signal.signal(signal.SIGTERM, self._on_stop)
        done = run_out(self._collectors, self._couriers)
        left = [self._outbox.waiting(sink.name, time.time()) for sink in self._sinks]
        pending, set_aside = sum(due.pending for due in left), sum(due.set_aside for due in left)
        log.info("%d entries wait, %d are set aside", pending, set_aside)
        self._close()
        return done and not pending and not set_aside

    def run(self) -> None:
        """Work until SIGTERM or SIGINT. SIGHUP reads filters, intervals and secrets again."""
        memory.hoard_nothing()
        # A handler runs amid whatever the main thread does: setting an event that it is about to wait for could block.
        signals: SimpleQueue[int] = SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: signals.put(number))
        for collector in self._collectors:
            flow = collector.flow.name
            self._scheduler.add(flow, partial(self._turn, collector), interval_s(flow, self._settings))
        for courier in self._couriers:
            self._scheduler.add(courier.sink.name, courier.run, _DELIVER_EVERY_S)
        if self._settings.portal_url:
            self._scheduler.add("components", self._billing.declare, _DECLARE_EVERY_S)
            self._scheduler.add("month's end", self._close_month, _CLOSE_EVERY_S)
        self._scheduler.add("bill", self._take_bill, _BILL_EVERY_S)
        self._start_watchdog()
        server = self._serve()
        self._scheduler.start()
        if self._notes:
            self._notes.start()
        sdnotify.SystemdNotifier().notify("READY=1")
        log.info("cvagent %s: %s, cluster %s", __version__, self._settings.mode, self._cluster.name)
        while signals.get() == signal.SIGHUP:
            self._scheduler.once("reload", self._take_over)
        self._stop.set()
        sdnotify.SystemdNotifier().notify("STOPPING=1")
        self._wind_down(server)

    def _turn(self, collector: Collector) -> None:
        """One round; then the next is due sooner or later, as slurmctld can bear it."""
        plan = collector.round()
        memory.give_back()
        if self._notes and collector.flow.name == NOTED_FLOW:
            self._notes.looked(plan)
        before = self._pace.stretch
        if (stretch := self._pace.judge(self._metered.slowest_s())) != before:
            told = "slowly" if stretch > before else "faster again"
            log.warning("slurmctld answers %s: the intervals are now %g times the set ones", told, stretch)
            self._keep_pace()

    def _close_month(self) -> None:
        if month_ends(time.time()):
            self._scheduler.wake("usage")

    def _keep_pace(self) -> None:
        for flow in self._flows:
            self._scheduler.every(flow.name, interval_s(flow.name, self._settings) * self._pace.stretch)
            self._board.stretched(flow.name, self._pace.stretch)

    def _note_command(self, command: str, seconds: float, done: bool) -> None:
        self._board.command_done(command, seconds, done)
        self._bill.command_done(command, seconds, done, time.time())
        if self._notes:
            self._notes.spend(command, seconds)

    def _make_notes(self, settings: Settings) -> "Notes | None":
        # An agent without that flow leaves the notes to the one that has it.
        if settings.hook_spool is None or NOTED_FLOW not in {flow.name for flow in self._flows}:
            return None
        from cvagent.sources.notes import Notes

        wake = partial(self._scheduler.wake, NOTED_FLOW)
        return Notes(settings.hook_spool, wake, self._board.metrics.noted)

    def _take_bill(self) -> None:
        """Ask slurmctld what it served, and whom."""
        try:
            diagnosis = diagnose(self._metered, self._settings.slurm_timeout_s)
        except CvagentError as error:
            log.info("no bill this time: %s", error)
            return
        everybody = diagnosis.by_user.values()
        counted = (sum(rpcs.number for rpcs in everybody), sum(rpcs.busy_us for rpcs in everybody))
        ours = diagnosis.of(self._user)
        self._bill.served(Served(time.time(), diagnosis.since, (ours.number, ours.busy_us), counted))
        self._board.metrics.shares(*self._bill.cost(time.time()).shares)

    def _serve(self) -> "HttpServer | None":
        """Begin to serve pages. Raises CvagentError when the address cannot be had; then the work ends too."""
        from cvagent.api.page import View
        from cvagent.api.server import HttpServer, make_app

        listen = self._settings.http_listen
        if listen is None:
            return None
        view = View(self._outbox, self._board, self._settings, self._cluster.name, SystemClock())
        server = HttpServer(make_app(view, self._mailbox), listen)
        server.start()
        log.info("status page on %s", server.url)
        return server

    def _start_watchdog(self) -> None:
        """Tell systemd that all goes on, when it asked to be told. A round or a delivery that hangs stops the telling.

        A round may take as long as all its questions to Slurm; a sink may take as long for one document.
        """
        limit_s = 6 * self._settings.slurm_timeout_s + self._settings.inventory_time_s + 60

        def tell() -> None:
            if self._scheduler.longest_silence_s(self._board.signs) < limit_s:
                sdnotify.SystemdNotifier().notify("WATCHDOG=1")

        if os.environ.get("WATCHDOG_USEC", "").isdecimal():
            self._scheduler.add("watchdog", tell, int(os.environ["WATCHDOG_USEC"]) / 2e6)

    def _wind_down(self, server: "HttpServer | None") -> None:
        log.info("stopping: what is under way is finished, the rest stays in the store")
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
        self._cluster.runner.stop()
        if self._notes:
            self._notes.stop()
        for sink in self._sinks:
            sink.close()
        self._scheduler.stop()

    def _close(self) -> None:
        for sink in self._sinks:
            sink.close()
        self._billing.portal.close()
        self._outbox.close()

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _make_rules(self, settings: Settings) -> dict[str, Any]:
        """The rules by flow. Raises SettingsError when these are not the settings of the flows that run."""
        if (flows := flows_for(settings)) != self._flows:
            names = ", ".join(flow.name for flow in flows)
            raise SettingsError(f"with them there would be other flows ({names}): that takes a restart")
        return {flow.name: rules_for(flow.name, settings, self._cluster.name) for flow in flows}

    def _take_over(self) -> None:
        """Take over filters, intervals, log level and secrets; keep the old ones when the new settings are wrong."""
        try:
            settings = self._reload()
            rules = self._make_rules(settings)
        except SettingsError as error:
            log.error("SIGHUP: the old settings stay, as the new ones are wrong")
            for line in str(error).splitlines():
                log.error("SIGHUP: %s", line)
            return
        logs.set_up(settings.log_level, settings.log_format, settings.secret_texts)
        for courier, sink in zip(self._couriers, self._sinks, strict=True):
            if isinstance(sink, CloudVisionSink):
                sink.replace_token(settings.cloudvision_secret)
            courier.cap_s = min(_LONGEST_BACKOFF_S, settings.job_interval_s)
        self._billing.portal.replace_token(settings.portal_secret)
        for collector in self._collectors:
            collector.rules = rules[collector.flow.name]
            collector.horizon = make_horizon(settings, self._outbox)
        self._settings = settings
        self._keep_pace()
        log.info("SIGHUP: filters, intervals, log level and secrets were read again")
