"""`cvagent resend` and `cvagent backfill`: from Slurm's truth, through an outbox of their own, with a progress bar."""

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import click
from msgspec.structs import replace

from cvagent.app import Cluster, make_jobs, make_rules, make_sink, reach_cluster
from cvagent.cli.known import NoAgent, seen_from_outside
from cvagent.cli.sending import Sending
from cvagent.flows import FLOWS
from cvagent.model import Ask, Change, Identity, JobConfig, Known, Observation, Plan
from cvagent.push.jobs import JobRules, plan_jobs
from cvagent.settings import Settings, load_settings
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
        rules = make_rules(settings, cluster.name)
        # A person waits for the command: what is known now must do.
        self._rules: JobRules = replace(rules, sharing=replace(rules.sharing, patience_s=0))
        self._outbox = SqlOutbox("sqlite://", cluster.name)
        sink = make_sink(settings, cluster.name)
        self._sink = sink.name
        self._source, self._told = self._known(settings, cluster)
        self._sending = Sending(self._outbox, sink)

    def _known(self, settings: Settings, cluster: Cluster) -> tuple[SlurmJobs, Mapping[Identity, Known[JobConfig]]]:
        """The source, and what the agent's store holds: which interfaces a run had stands nowhere else."""
        try:
            store = seen_from_outside(settings, cluster.name)
            return make_jobs(settings, cluster.runner, store.facts()), store.known(self._sink, 0)
        except NoAgent:
            return make_jobs(settings, cluster.runner, self._outbox.facts()), {}

    def _as_told(self, change: Change) -> Change:
        """A run is told again as it was told first, by its interfaces or by its nodes."""
        after = change.after
        if not isinstance(after, JobConfig) or (told := self._told.get(after.identity)) is None:
            return change
        same = replace(after, sharing=told.document.sharing, holdings=told.document.holdings)
        return change._replace(after=same)

    def send(self, look: Callable[[SlurmJobs], Observation], wanted: Callable[[int | None], bool]) -> bool:
        """Whether all got through."""
        flow = FLOWS[0].name
        total = 0
        with self._sending.progress:
            for _ in range(_LOOKS):
                known = self._outbox.known(self._sink, 0)
                plan = plan_jobs(look(self._source), known, self._rules)
                changes = [self._as_told(change) for change in plan.changes if wanted(change.after.ended_at)]
                if not changes:
                    break
                total += len(changes)
                self._sending.expect(total)
                self._outbox.record(flow, [self._sink], Plan(changes=changes), time.time(), None)
                self._sending.deliver()
        return self._sending.told(total)
