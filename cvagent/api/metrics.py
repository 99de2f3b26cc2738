"""What Prometheus is told. Labels come from small fixed sets: names of flows, sinks and commands, and words of ours."""

from collections.abc import Iterable, Iterator
from pathlib import PurePath

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cvagent import __version__
from cvagent.errors import StoreError
from cvagent.model import Accepted, Change, Deferred, Outcome, Plan
from cvagent.ports import Clock, Outbox, Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COMMANDS = frozenset({"sacct", "sacctmgr", "scontrol", "scancel", "sdiag", "sinfo", "squeue", "sreport", "srun"})
_ROUND_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_COMMAND_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60)


class Metrics:
    """What is counted as it happens, in a registry of its own. Any thread may call.

    Args:
        flows: Names; each has its series from the start, so that a rate can be taken of the first event too.
        sinks: Likewise.
    """

    def __init__(self, flows: Iterable[str], sinks: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        self._rounds = self._counter("rounds", "Rounds, done or given up", "flow", "result")
        self._seconds = self._histogram("round_seconds", "Duration of rounds that were done", "flow", _ROUND_S)
        self._last = self._gauge("last_round_timestamp_seconds", "Start of the last round that was done", "flow")
        self._changes = self._counter("changes", "Changes that rounds decided", "flow", "why")
        self._refused = self._gauge("refused_changes", "Changes that the last plan withheld", "flow")
        self._deliveries = self._counter("deliveries", "Answers of a sink to one entry", "sink", "outcome")
        self._command_s = self._histogram("slurm_rpc_seconds", "Duration of Slurm's commands", "command", _COMMAND_S)
        self._commands = self._counter(
            "slurm_rpc", "Slurm's commands that were run, each a question to a daemon", "command", "result"
        )
        self._stretch = self._gauge("interval_stretch", "How many times as long as set the interval is", "flow")
        self._share = self._gauge("slurmctld_share", "The agent's user's share of what slurmctld served", "what")
        self._notes = self._counter("notes", "Notes of the hook that were taken out of the spool")
        self._last_note = Gauge(
            "cvagent_last_note_timestamp_seconds", "When a note was taken last, 0 for never", registry=self.registry
        )
        Info("cvagent_build", "The version that runs", registry=self.registry).info({"version": __version__})
        self._begin(flows, sinks)

    def round_done(self, flow: str, seconds: float, plan: Plan, at: float) -> None:
        """A round that read, decided and remembered."""
        self._rounds.labels(flow, "done").inc()
        self._seconds.labels(flow).observe(seconds)
        self._last.labels(flow).set(at)
        self._refused.labels(flow).set(len(plan.refused))
        for change in plan.changes:
            self._changes.labels(flow, why(change)).inc()

    def stretched(self, flow: str, factor: float) -> None:
        """The interval of a flow changed."""
        self._stretch.labels(flow).set(factor)

    def shares(self, of_requests: float, of_time: float) -> None:
        """Shares of what slurmctld served in the last hour, 0 to 1."""
        self._share.labels("requests").set(of_requests)
        self._share.labels("time").set(of_time)

    def noted(self, number: int, at: float) -> None:
        """So many notes of the hook were taken."""
        self._notes.inc(number)
        self._last_note.set(at)

    def round_skipped(self, flow: str) -> None:
        """A round that was given up."""
        self._rounds.labels(flow, "skipped").inc()

    def delivered(self, sink: str, outcome: Outcome) -> None:
        """A sink's answer for one entry."""
        self._deliveries.labels(sink, _word(outcome)).inc()

    def command_done(self, command: str, seconds: float, ok: bool) -> None:
        """One of Slurm's commands ended; a program that is none of Slurm's counts as `other`."""
        name = PurePath(command).name
        name = name if name in _COMMANDS else "other"
        self._command_s.labels(name).observe(seconds)
        self._commands.labels(name, "ok" if ok else "failed").inc()

    def _begin(self, flows: Iterable[str], sinks: Iterable[str]) -> None:
        for flow in flows:
            self._seconds.labels(flow)
            self._last.labels(flow)
            self._refused.labels(flow)
            for result in ("done", "skipped"):
                self._rounds.labels(flow, result)
            for reason in ("new", "changed", "ended"):
                self._changes.labels(flow, reason)
        for sink in sinks:
            for outcome in ("accepted", "deferred", "refused"):
                self._deliveries.labels(sink, outcome)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"cvagent_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, label: str) -> Gauge:
        return Gauge(f"cvagent_{name}", text, [label], registry=self.registry)

    def _histogram(self, name: str, text: str, label: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"cvagent_{name}", text, [label], buckets=buckets, registry=self.registry)


class Scrape(Collector):
    """All that /metrics shows: what was counted, and how the outbox stands at this moment.

    When the store does not answer, the outbox's gauges have no samples: unknown is not zero.
    """

    def __init__(self, metrics: Metrics, status: Status, outbox: Outbox, clock: Clock) -> None:
        self._metrics = metrics
        self._status = status
        self._outbox = outbox
        self._clock = clock

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        for metric in self._metrics.registry.collect():
            # When a series began is of no use to an agent with so few of them.
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
        yield from self._gauges()

    def _gauges(self) -> tuple[Metric, ...]:
        now = self._clock.now()
        pending = _per_sink("outbox_pending", "Entries not yet accepted, due or not")
        aside = _per_sink("outbox_set_aside", "Entries that a person must look at")
        oldest = _per_sink("outbox_oldest_seconds", "Age of the oldest pending entry, 0 when there is none")
        paused = _per_sink("sink_paused", "1 while the whole sink waits")
        for sink, health in self._status.sinks().items():
            paused.add_metric([sink], float(health.paused_until > now))
            try:
                due = self._outbox.waiting(sink, now)
            except StoreError:
                continue
            pending.add_metric([sink], due.pending)
            aside.add_metric([sink], due.set_aside)
            oldest.add_metric([sink], due.oldest_s)
        return pending, aside, oldest, paused


def why(change: Change) -> str:
    """A change in one word: new, changed or ended. Its own `why` may be a sentence.

    >>> from cvagent.model import JobConfig, State
    >>> job = JobConfig("1@lab", 1, 0, State.RUNNING, 0, None, "name", "gpu", "n1")
    >>> why(Change(None, job, "")), why(Change(job, job, ""))
    ('new', 'changed')
    """
    if change.before is None:
        return "new"
    return "changed" if change.after.ended_at is None else "ended"


def _word(outcome: Outcome) -> str:
    if isinstance(outcome, Accepted):
        return "accepted"
    return "deferred" if isinstance(outcome, Deferred) else "refused"


def _per_sink(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"cvagent_{name}", text, labels=["sink"])
