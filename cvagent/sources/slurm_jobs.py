"""Live and ended Slurm jobs as one observation: squeue always, sacct where the cluster keeps accounting.

At most one squeue and two sacct calls a round, however many jobs there are; one scontrol more when there are new ones
on nodes that they may share.
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Any

from msgspec.structs import replace

from cvagent.clients.slurm import Slurm, SlurmConfig
from cvagent.model import OVER, Ask, Identity, Known, Observation, Run
from cvagent.sources.slurm_allocations import Allocations

# slurmctld's clock may be ahead of ours.
_AHEAD_S = 60
_CONFIG_AGE_S = 3600
_WHOLE_AFTER_S = 300


class SlurmJobs:
    """A `ports.Source` over the cluster's commands.

    Where the cluster keeps no accounting the ends of jobs are seen in slurmctld alone, for MinJobAge seconds.

    Args:
        allocations: None leaves out what runs hold on shared nodes.
    """

    def __init__(self, slurm: Slurm, allocations: Allocations | None = None) -> None:
        self._slurm = slurm
        self._allocations = allocations
        self._config: SlurmConfig | None = None
        self._config_at = 0
        # Submit times by job id, for the jobs of the last round.
        self._earlier: Mapping[int, tuple[int, ...]] = {}
        # Ids of jobs that accounting called running while slurmctld did not hold them: is that so in a while?
        self._doubtful: set[int] = set()

    def observe(self, ask: Ask) -> Observation:
        """Ask Slurm; raise SourceError when any one question was not answered."""
        accounting = self._keeps_accounting(ask.now)
        live = {run.identity: run for run in self._slurm.live_jobs()}
        ended: list[Run] = []
        if accounting:
            ended = self._slurm.ended_jobs(ask.since, ask.now + _AHEAD_S, all_states=ask.cold)
            gone, new = _compare(live, ask.known)
            new += [run for run in ended if run.identity not in ask.known]
            job_ids = _left_open(gone, ended, ask.now) | self._unnumbered(new, ask) | self._doubtful
            ended += self._slurm.jobs_by_id(sorted(job_ids)) if job_ids else []
        observation = self._granted(_observation(ask, live, ended, self._earlier, accounting=accounting), ask)
        self._earlier = observation.earlier
        self._doubtful = {
            identity.job_id for identity, run in observation.accounted.items() if _is_doubtful(run, ask, live)
        }
        return observation

    def observe_jobs(self, ask: Ask, job_ids: Collection[int]) -> Observation:
        """Every run of these jobs, of any age. Raises SourceError like `observe`."""
        accounting = self._keeps_accounting(ask.now)
        live = {run.identity: run for run in self._slurm.live_jobs() if run.identity.job_id in job_ids}
        asked = self._slurm.jobs_by_id(sorted(job_ids)) if accounting else []
        return self._granted(_observation(ask, live, asked, {}, accounting=accounting), ask)

    def _granted(self, observation: Observation, ask: Ask) -> Observation:
        if self._allocations is None:
            return observation
        allocations, facts = self._allocations.look(ask, observation.live)
        return replace(observation, allocations=allocations, facts=facts)

    def _unnumbered(self, new: Iterable[Run], ask: Ask) -> set[int]:
        """Ids of new runs that may be the second of their job or a later one: all runs of a job number each."""
        return {
            run.identity.job_id
            for run in new
            if run.identity.submitted_at not in self._earlier.get(run.identity.job_id, ())
            and (not ask.cold or _may_be_restart(run, ask.since))
        }

    def _keeps_accounting(self, now: int) -> bool:
        if self._config is None or now - self._config_at > _CONFIG_AGE_S:
            self._config, self._config_at = self._slurm.config(), now
        return self._config.accounting


def _observation(
    ask: Ask,
    live: Mapping[Identity, Run],
    ended: Iterable[Run],
    before: Mapping[int, tuple[int, ...]],
    *,
    accounting: bool,
) -> Observation:
    told = list(ended)
    accounted = _unresized(run for run in told if _is_whole(run, ask.now))
    present = {job_id for job_id, _ in chain(live, accounted)}
    earlier = {job_id: times for job_id, times in before.items() if job_id in present}
    for job_id, submitted_at in accounted:
        if submitted_at not in (told_before := earlier.get(job_id, ())):
            earlier[job_id] = tuple(sorted((*told_before, submitted_at)))
    return Observation(
        at=ask.now,
        live=live,
        accounted=accounted,
        earlier=earlier,
        since=ask.since,
        accounting=accounting,
        unfinished=frozenset(run.identity for run in told if not _is_whole(run, ask.now)),
    )


def _is_whole(run: Run, now: int) -> bool:
    """Whether accounting has the whole record: for some seconds after the end it may have a part, without partition."""
    return bool(run.partition) or (run.ended_at or 0) < now - _WHOLE_AFTER_S


def _compare(
    live: Mapping[Identity, Run], known: Mapping[Any, Known[Any]]
) -> tuple[dict[Identity, Known[Any]], list[Run]]:
    """What is known and gone from slurmctld, or about to go; and what is new there. In one pass: most is neither."""
    gone, new = dict(known), []
    for identity, run in live.items():
        item = gone.pop(identity, None)
        if item is None:
            new.append(run)
        elif run.word == "COMPLETING":  # it is over: accounting knows how it ended long before its nodes are clean
            gone[identity] = item
    return gone, new


def _left_open(gone: Mapping[Identity, Known[Any]], ended: Iterable[Run], now: int) -> set[int]:
    """Ids of open runs that neither list shows."""
    over = {run.identity for run in ended if run.word in OVER and _is_whole(run, now)}
    return {identity.job_id for identity, item in gone.items() if item.is_open and identity not in over}


def _is_doubtful(run: Run, ask: Ask, live: Mapping[Identity, Run]) -> bool:
    known_or_live = run.identity in ask.known or run.identity in live
    return not known_or_live and run.ended_at is None and (run.started_at or 0) >= ask.since


def _may_be_restart(run: Run, since: int) -> bool:
    """Whether, in a window with all states, the job may have runs that the window does not show.

    A requeue gives a new submit time after the end of the run before.
    """
    if run.restarts is None:
        return run.identity.submitted_at < since
    return run.restarts > 0


def _unresized(runs: Iterable[Run]) -> dict[Identity, Run]:
    """One run an identity; what a resize split is put together again.

    slurmdbd closes the record of the old size (RESIZING) and opens one whose submit time is the time of the resize;
    slurmctld keeps the first submit time and start.
    """
    newest = {run.identity: run for run in sorted(runs, key=lambda run: run.word in OVER)}
    resized = {run.identity.job_id for run in newest.values() if run.word == "RESIZING"}
    if not resized:
        return newest
    whole = {identity: run for identity, run in newest.items() if identity.job_id not in resized}
    before: Run | None = None
    for identity in sorted(identity for identity in newest if identity.job_id in resized):
        run = newest[identity]
        if before and before.identity.job_id == identity.job_id:
            run = replace(run, identity=before.identity, started_at=before.started_at)
        before = run if run.word == "RESIZING" else None
        whole[run.identity] = run
    return whole
