"""`cvagent resend` and `cvagent backfill`: from Slurm's truth, through an outbox of their own, with a progress bar."""

import time
from collections.abc import Callable, Collection
from pathlib import Path

import click

from cvagent.app import make_rules, make_sink, reach_cluster
from cvagent.cli.sending import Sending
from cvagent.flows import FLOWS
from cvagent.model import Ask, Observation, Plan
from cvagent.push.jobs import JobRules, plan_jobs
from cvagent.settings import load_settings
from cvagent.sources.slurm_jobs import SlurmJobs
from cvagent.store.outbox import SqlOutbox

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
        sink = make_sink(settings, cluster.name)
        self._sink = sink.name
        self._sending = Sending(self._outbox, sink)

    def send(self, look: Callable[[SlurmJobs], Observation], wanted: Callable[[int | None], bool]) -> bool:
        """Whether all got through."""
        flow = FLOWS[0].name
        total = 0
        with self._sending.progress:
            for _ in range(_LOOKS):
                known = self._outbox.known(self._sink, 0)
                plan = plan_jobs(look(self._source), known, self._rules)
                changes = [change for change in plan.changes if wanted(change.after.ended_at)]
                if not changes:
                    break
                total += len(changes)
                self._sending.expect(total)
                self._outbox.record(flow, [self._sink], Plan(changes=changes), time.time(), None)
                self._sending.deliver()
        return self._sending.told(total)
