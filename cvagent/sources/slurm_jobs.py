"""Live and ended Slurm jobs as one observation: squeue always, sacct where the cluster keeps accounting.

At most one squeue and two sacct calls a round, however many jobs there are.
"""

from collections.abc import Iterable, Sequence

from cvagent.clients.slurm import JobRecord, Slurm, SlurmConfig
from cvagent.model import Identity, Observation, Run, State
from cvagent.ports import Ask

# Slurm's words to what CloudVision can be told; None: the run exists and there is nothing to tell (yet).
_STATES: dict[str, State | None] = {
    "RUNNING": State.RUNNING,
    "SUSPENDED": State.RUNNING,
    "STOPPED": State.RUNNING,
    "SIGNALING": State.RUNNING,
    "STAGE_OUT": State.RUNNING,
    "COMPLETING": State.RUNNING,
    "COMPLETED": State.COMPLETED,
    "FAILED": State.FAILED,
    "NODE_FAIL": State.FAILED,
    "BOOT_FAIL": State.FAILED,
    "OUT_OF_MEMORY": State.FAILED,
    "DEADLINE": State.FAILED,
    "TIMEOUT": State.FAILED,
    "PREEMPTED": State.FAILED,
    "LAUNCH_FAILED": State.FAILED,
    "CANCELLED": State.CANCELLED,
    "REVOKED": State.CANCELLED,
    "REQUEUED": State.CANCELLED,
    "PENDING": None,
    "CONFIGURING": None,
    "RESIZING": None,
    "SPECIAL_EXIT": None,
    "REQUEUE_HOLD": None,
    "REQUEUE_FED": None,
    "RESV_DEL_HOLD": None,
    "POWER_UP_NODE": None,
}
_OVER = {word for word, state in _STATES.items() if state not in {None, State.RUNNING}}
# slurmctld's clock may be ahead of ours.
_AHEAD_S = 60
_CONFIG_AGE_S = 3600


class SlurmJobs:
    """A `ports.Source` over the cluster's commands.

    Args:
        slurm: Asks.

    Where the cluster keeps no accounting the ends of jobs are seen in slurmctld alone, for MinJobAge seconds.
    """

    def __init__(self, slurm: Slurm) -> None:
        self._slurm = slurm
        self._config: SlurmConfig | None = None
        self._config_at = 0

    def observe(self, ask: Ask) -> Observation:
        """Ask Slurm; raise SourceError when any one question was not answered."""
        accounting = self._keeps_accounting(ask.now)
        live = self._slurm.live_jobs()
        ended = self._slurm.ended_jobs(ask.since, ask.now + _AHEAD_S, all_states=ask.cold) if accounting else []
        asked = self._by_id(ask, live, ended) if accounting else []
        accounted = _unresized([*ended, *asked])
        unknown = [job for job in (*live, *accounted) if job.state not in _STATES]
        return Observation(
            at=ask.now,
            runs=[*(_run(job) for job in live if _concerns(job, ask)), *(_run(job) for job in accounted)],
            present=frozenset(identity(job) for job in (*live, *unknown)),
            earlier=_submissions(accounted),
            since=ask.since,
            accounting=accounting,
            problems=sorted(
                {f"job state '{job.state[:40]}' is not known here: such jobs stay as they are" for job in unknown}
            ),
        )

    def _keeps_accounting(self, now: int) -> bool:
        if self._config is None or now - self._config_at > _CONFIG_AGE_S:
            self._config, self._config_at = self._slurm.config(), now
        return self._config.accounting

    def _by_id(self, ask: Ask, live: Sequence[JobRecord], ended: Sequence[JobRecord]) -> list[JobRecord]:
        """Ask for what the two lists leave open: open runs that neither shows, and runs that may be restarts."""
        seen = {identity(job) for job in live if job.state != "COMPLETING"}
        seen |= {identity(job) for job in ended if job.state in _OVER}
        restarted = {
            job.job_id
            for job in (*live, *ended)
            if _may_be_restart(job, ask.since) and identity(job) not in ask.known_runs
        }
        job_ids = restarted | {run.job_id for run in ask.open_runs - seen}
        return self._slurm.jobs_by_id(sorted(job_ids)) if job_ids else []


def identity(job: JobRecord) -> Identity:
    """What tells this run from any other."""
    return Identity(job.job_id, job.submitted_at)


def _may_be_restart(job: JobRecord, since: int) -> bool:
    """Whether earlier runs of this job may exist that ended before the window.

    A requeue gives a new submit time after the end of the run before, so a run submitted inside the window has
    all its earlier ones inside too.
    """
    if job.restarts is None:
        return job.submitted_at < since
    return job.restarts > 0


def _concerns(job: JobRecord, ask: Ask) -> bool:
    """Whether it runs, or ended inside the window, or while a sink shows it as running."""
    return job.state not in _OVER or (job.ended_at or 0) >= ask.since or identity(job) in ask.open_runs


def _run(job: JobRecord) -> Run:
    return Run(
        job_id=job.job_id,
        submitted_at=job.submitted_at,
        state=_STATES.get(job.state),
        started_at=job.started_at,
        ended_at=job.ended_at if job.state in _OVER else None,
        partition=job.partition,
        nodes=job.nodes,
        name=job.name,
        completing=job.state == "COMPLETING",
        restarts=job.restarts,
    )


def _unresized(jobs: Sequence[JobRecord]) -> list[JobRecord]:
    """One record a run: what a resize split is put together again.

    slurmdbd closes the record of the old size (RESIZING) and opens one whose submit time is the time of the resize;
    slurmctld keeps the first submit time and start.
    """
    newest = {identity(job): job for job in sorted(jobs, key=lambda job: job.state in _OVER)}
    resized = {job.job_id for job in newest.values() if job.state == "RESIZING"}
    if not resized:
        return list(newest.values())
    whole = [job for job in newest.values() if job.job_id not in resized]
    first: JobRecord | None = None
    for job in sorted((job for job in newest.values() if job.job_id in resized), key=identity):
        if first and first.job_id == job.job_id:
            job = job._replace(submitted_at=first.submitted_at, started_at=first.started_at)  # noqa: PLW2901
        first = job if job.state == "RESIZING" else None
        if not first:
            whole.append(job)
    return whole


def _submissions(jobs: Iterable[JobRecord]) -> dict[int, frozenset[int]]:
    times: dict[int, set[int]] = {}
    for job in jobs:
        times.setdefault(job.job_id, set()).add(job.submitted_at)
    return {job_id: frozenset(submitted) for job_id, submitted in times.items()}
