"""`cvagent resend` and `cvagent backfill`: from Slurm's truth, through an outbox of their own, with a progress bar."""

import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from cvagent.app import SystemClock, make_rules, make_sink, reach_cluster
from cvagent.flows import FLOWS
from cvagent.loops import Courier
from cvagent.model import Ask, Observation, Outcome, Plan
from cvagent.ports import Surroundings
from cvagent.push.jobs import JobRules, plan_jobs
from cvagent.settings import load_settings
from cvagent.sources.slurm_jobs import SlurmJobs
from cvagent.store.outbox import SqlOutbox

# A sink that takes nothing for so long is given up; running it again is safe.
_PATIENCE_S = 60.0
# A job can end while it is being sent; it is looked at again, at most so often.
_LOOKS = 5


def resend_jobs(env_file: Path | None, job_ids: Collection[int]) -> None:
    """Send every run of these jobs. SystemExit(1) when one is unknown or did not get through."""
    missing = set(job_ids)

    def look(source: SlurmJobs) -> Observation:
        observed = source.observe_jobs(_ask(0), job_ids)
        missing.difference_update(identity.job_id for identity in (*observed.live, *observed.accounted))
        return observed

    sent = _Resending(env_file).send(look, lambda _ended_at: True)
    for job_id in sorted(missing):
        click.echo(f"job {job_id}: Slurm does not know it", err=True)
    if missing or not sent:
        raise SystemExit(1)


def backfill_jobs(env_file: Path | None, since: int, until: int | None) -> None:
    """Send every run that ended in [since, until]; with no `until` also what runs now."""
    if since >= (until or time.time()):
        raise click.UsageError("--since must lie before --until")

    def wanted(ended_at: int | None) -> bool:
        return until is None or (ended_at is not None and ended_at <= until)

    if not _Resending(env_file).send(lambda source: source.observe(_ask(since)), wanted):
        raise SystemExit(1)


def _ask(since: int) -> Ask:
    return Ask(now=int(time.time()), since=since, known={}, cold=True)


class _Resending:
    """Sends what a look at Slurm shows, and looks again until nothing has changed meanwhile."""

    def __init__(self, env_file: Path | None) -> None:
        settings, notes = load_settings(env_file)
        for note in notes:
            click.echo(note, err=True)
        cluster = reach_cluster(settings)
        self._rules: JobRules = make_rules(settings, cluster.name)
        self._source = SlurmJobs(cluster.slurm)
        self._outbox = SqlOutbox("sqlite://", cluster.name)
        self._sink = make_sink(settings, cluster.name)
        self._progress = Progress(console=(console := Console(stderr=True)), disable=not console.is_terminal)
        around = Surroundings(self._outbox, SystemClock(), _Bar(self._step), lambda _name: None, threading.Event())
        self._courier = Courier(self._sink, 5.0, around)
        self._task = self._progress.add_task("sending", total=None)

    def send(self, look: Callable[[SlurmJobs], Observation], wanted: Callable[[int | None], bool]) -> bool:
        """Whether all got through."""
        flow = FLOWS[0].name
        total = 0
        with self._progress:
            for _ in range(_LOOKS):
                known = self._outbox.known(self._sink.name, 0)
                plan = plan_jobs(look(self._source), known, self._rules)
                changes = [change for change in plan.changes if wanted(change.after.ended_at)]
                if not changes:
                    break
                total += len(changes)
                self._progress.update(self._task, total=total)
                self._outbox.record(flow, [self._sink.name], Plan(changes=changes), time.time(), None)
                self._deliver()
        return self._told(total)

    def _deliver(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        pending = self._outbox.waiting(self._sink.name, time.time()).pending
        while pending and time.monotonic() < deadline:
            self._courier.run()
            left = self._outbox.waiting(self._sink.name, time.time()).pending
            if left == pending:
                time.sleep(0.2)
            else:
                pending, deadline = left, time.monotonic() + _PATIENCE_S

    def _step(self, outcome: Outcome) -> None:
        if type(outcome).__name__ != "Deferred":
            self._progress.advance(self._task)

    def _told(self, total: int) -> bool:
        left = self._outbox.waiting(self._sink.name, time.time())
        for row in (*self._outbox.rows(self._sink.name, "set_aside"), *self._outbox.rows(self._sink.name, "pending")):
            click.echo(f"{row.document.key}: {row.error or 'not sent'}", err=True)
        failed = left.pending + left.set_aside
        click.echo(f"{total - failed} of {total} documents sent" if total else "nothing to send")
        self._sink.close()
        self._outbox.close()
        return not failed


class _Bar:
    """An observer that moves the progress bar."""

    def __init__(self, step: Callable[[Outcome], None]) -> None:
        self._step = step

    def round_done(self, flow: str, seconds: float, plan: Plan, at: float) -> None:
        """No rounds here."""

    def round_skipped(self, flow: str, error: Exception, at: float) -> None:
        """No rounds here."""

    def delivered(self, sink: str, outcome: Outcome, at: float) -> None:
        """One more, or one that must wait."""
        del sink, at
        self._step(outcome)

    def paused(self, sink: str, reason: str, until: float, at: float) -> None:
        """Say why nothing moves."""
        del until, at
        click.echo(f"{sink} waits: {reason}", err=True)
