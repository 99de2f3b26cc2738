"""Decides what CloudVision is to be told about jobs.

A run is followed from the first time it is seen running until its end is known. Its end comes from accounting,
from slurmctld, or, when neither shows it for some rounds, is inferred. A run that ended is never set back.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import chain

from msgspec import Struct
from msgspec.structs import replace

from cvagent.guard import absences, overdue, refusal
from cvagent.model import (
    SLURM_STATES,
    Change,
    Identity,
    JobConfig,
    Known,
    Observation,
    Plan,
    Run,
    State,
)
from cvagent.push.sharing import Ladder, SharingRules

_NO_ACCOUNTING = "this cluster keeps no accounting: ends are seen in slurmctld alone, for MinJobAge, without look-back"
# squeue is asked before sacct: what began just now may stand in the second answer alone.
_GRACE_S = 60


class JobRules(Struct, frozen=True):
    """What the operator decided.

    Attributes:
        cluster: Slurm's ClusterName, part of every key.
        name_filter: Jobs whose name it finds are reported.
        partition_filter: Likewise for the partition.
        absent_rounds: Good observations in a row after which a run that Slurm no longer shows is taken as ended.
        removal_share: A plan that would end more than this share of the open runs by inference refuses to.
        force: Let it.
        sharing: How runs that share nodes are told.
    """

    cluster: str
    name_filter: re.Pattern[str]
    partition_filter: re.Pattern[str]
    absent_rounds: int = 3
    removal_share: float = 0.3
    force: bool = False
    sharing: SharingRules = SharingRules()


def plan_jobs(observed: Observation, known: Mapping[Identity, Known[JobConfig]], rules: JobRules) -> Plan:
    """Compare what Slurm says with what is known, and say what must change."""
    ended = {identity: run for identity, run in observed.accounted.items() if run.ended_at is not None}
    changes = _Changes(observed, known, rules)
    changes.follow(ended)
    lost = [item for item in changes.gone.values() if _is_lost(item.document, observed)]
    ends = [changes.infer(item) for item in overdue(lost, rules)]
    runaways = [change for run in observed.accounted.values() for change in changes.runaway(run)]
    ends += runaways
    withheld = None
    if ends:
        open_runs = sum(item.document.ended_at is None for item in known.values()) or len(observed.live)
        what = "running jobs are no longer shown by Slurm: their ends are"
        withheld = refusal(len(ends), open_runs + len(runaways), rules, what)
    return Plan(
        changes=changes.made if withheld else [*changes.made, *ends],
        absences=absences(known.values(), lost, observed.at),
        refused=ends if withheld else (),
        refusal=withheld,
        unchanged=changes.unchanged,
        problems=_unknown_words(observed),
        note=None if observed.accounting else _NO_ACCOUNTING,
    )


class _Changes:
    """Gathers the changes of one plan."""

    def __init__(self, observed: Observation, known: Mapping[Identity, Known[JobConfig]], rules: JobRules) -> None:
        self.made: list[Change] = []
        self.unchanged = 0
        self.gone = dict(known)
        self._observed = observed
        self._known = known
        self._rules = rules
        self._ladder = Ladder(observed, rules.sharing)
        self._new: list[Run] = []

    def follow(self, ended: Mapping[Identity, Run]) -> None:
        """Add what these runs and the live ones need. What is known and not among them stays in `gone`.

        One run per identity: accounting's end beats all that slurmctld says, its word that a run is running nothing.
        """
        for run in ended.values():
            self._follow(run)
        for identity, run in self._observed.live.items():
            item = self.gone.get(identity)
            # Nearly all runs are as they were, and nothing more is to be spent on them.
            if item is not None and _stands(item.document, run):
                del self.gone[identity]
                self.unchanged += 1
            elif identity not in ended:
                self._follow(run)
        for run in self._new:
            if _may_be_told(run, self._observed.since):
                self.made += [Change(None, document, "new") for document in self._documents(run)]

    def _follow(self, run: Run) -> None:
        item = self.gone.pop(run.identity, None)
        if item is None:
            self._new.append(run)
        elif _stands(item.document, run):
            self.unchanged += 1
        elif run.ended_at is not None or _may_be_told(run, self._observed.since):
            self._update(item.document, run)

    def _update(self, document: JobConfig, run: Run) -> None:
        after = self._updated(document, run)
        if after == document:
            self.unchanged += 1
        else:
            self.made.append(Change(document, after, "ended" if after.ended_at else "changed"))

    def infer(self, item: Known[JobConfig]) -> Change:
        """The end of a run that Slurm no longer shows."""
        before = item.document
        later = [at for at in self._submissions(before.job_id) if at > before.submitted_at]
        ended_at = min(later, default=item.absence.since or self._observed.at)
        state = State.FAILED if self._observed.accounting else State.COMPLETED
        after = replace(before, state=state, ended_at=max(ended_at, before.started_at), inferred=True)
        return Change(before, after, "lost")

    def runaway(self, run: Run) -> Iterator[Change]:
        """The end of a run that accounting calls running for ever, as slurmctld forgot it before the store knew it.

        A sink may have been told of it by an agent whose store is gone.
        """
        unseen = run.identity not in self._known and run.identity not in self._observed.live
        if not unseen or run.ended_at or SLURM_STATES.get(run.word) is not State.RUNNING:
            return
        if self._observed.since <= (run.started_at or 0) < self._observed.at - _GRACE_S:
            for document in self._documents(run):
                yield self.infer(Known(document))._replace(before=None)

    def _documents(self, run: Run) -> Iterator[JobConfig]:
        """What a sink is to know about a run that the store does not know; nothing while it cannot be told."""
        if run.started_at is None or not run.nodes or run.word == "COMPLETING":
            return
        if self._is_early(run) or not self._is_wanted(run) or (told := self._ladder.told(run)) is None:
            return
        document = JobConfig(
            key=self._key(run),
            job_id=run.identity.job_id,
            submitted_at=run.identity.submitted_at,
            state=SLURM_STATES[run.word] or State.RUNNING,
            started_at=run.started_at,
            ended_at=run.ended_at and max(run.ended_at, run.started_at),
            name=run.name,
            partition=run.partition,
            nodes=run.nodes,
            sharing=told.sharing,
            holdings=told.holdings,
        )
        self._keys.add(document.key)
        yield document

    def _updated(self, document: JobConfig, run: Run) -> JobConfig:
        after = _updated(document, run)
        return after if after.nodes == document.nodes else self._ladder.moved(after, run)

    def _is_wanted(self, run: Run) -> bool:
        rules = self._rules
        return bool(rules.name_filter.search(run.name) and rules.partition_filter.search(run.partition))

    def _is_early(self, run: Run) -> bool:
        """Whether the runs that number a restarted one may be untold: accounting is late, but keeps the order.

        slurmctld repeats what it has to tell until slurmdbd took it.
        """
        told = self._observed.earlier.get(run.identity.job_id, ())
        return self._observed.accounting and bool(run.restarts) and run.identity.submitted_at not in told

    def _key(self, run: Run) -> str:
        """The first run has a bare key; the run after the n-th restart has `.n`."""
        job_id, submitted_at = run.identity
        nth = sum(other < submitted_at for other in self._submissions(job_id))
        if not self._observed.accounting:
            nth = max(nth, run.restarts or 0)
        while (key := job_key(job_id, nth, self._rules.cluster)) in self._keys:
            nth += 1
        return key

    def _submissions(self, job_id: int) -> set[int]:
        """Submit times of all runs of a job that anybody knows of."""
        return self._times.get(job_id, set()).union(self._observed.earlier.get(job_id, ()))

    @cached_property
    def _keys(self) -> set[str]:
        return {
            item.document.key
            for job_id, times in self._times.items()
            for at in times
            if (item := self._known.get(Identity(job_id, at)))
        }

    @cached_property
    def _times(self) -> dict[int, set[int]]:
        """The submit times of all runs, known or new, of the jobs that have one that is new or gone: of few."""
        new = [run.identity for run in self._new]
        asked = {job_id for job_id, _ in chain(self.gone, new, self._observed.accounted)}
        times: dict[int, set[int]] = {}
        for job_id, submitted_at in chain((run for run in self._known if run[0] in asked), new):
            times.setdefault(job_id, set()).add(submitted_at)
        return times


def job_key(job_id: int, restarts: int, cluster: str) -> str:
    """The key of one run.

    >>> job_key(4711, 0, "lab"), job_key(4711, 2, "lab")
    ('4711@lab', '4711.2@lab')
    """
    return f"{job_id}.{restarts}@{cluster}" if restarts else f"{job_id}@{cluster}"


def _may_be_told(run: Run, since: int) -> bool:
    """Ends before the window have been told before or are too old; slurmctld may hold jobs for long."""
    if SLURM_STATES.get(run.word) is State.RUNNING:
        return True
    return run.ended_at is not None and run.ended_at >= since


def _stands(document: JobConfig, run: Run) -> bool:
    """Whether what is known stands, seen at a glance; most runs of a round are as they were."""
    if document.ended_at is not None:  # an end is only ever corrected by accounting
        return run.ended_at is None or (run.restarts is not None and not document.inferred)
    if run.word == "COMPLETING":  # nodes leave its list one by one, and its start may move
        return True
    return (
        run.ended_at is None
        and run.nodes == document.nodes
        and run.started_at == document.started_at
        and run.name == document.name
        and run.partition == document.partition
    )


def _updated(document: JobConfig, run: Run) -> JobConfig:
    """The document as this run makes it.

    Accounting mangles names that slurmctld holds byte for byte, so a known name stays.
    """
    started_at = run.started_at or document.started_at
    return JobConfig(
        key=document.key,
        job_id=document.job_id,
        submitted_at=document.submitted_at,
        state=SLURM_STATES[run.word] or document.state,
        started_at=started_at,
        ended_at=run.ended_at and max(run.ended_at, started_at),
        name=document.name if run.restarts is None else run.name,
        partition=run.partition or document.partition,
        nodes=run.nodes or document.nodes,
        sharing=document.sharing,
        holdings=document.holdings,
    )


def _is_lost(document: JobConfig, observed: Observation) -> bool:
    """Whether a run that slurmctld does not hold is not shown to have ended either."""
    run = observed.accounted.get(document.identity)
    told = run is not None and run.word not in SLURM_STATES
    return not told and document.ended_at is None and document.identity not in observed.unfinished


def _unknown_words(observed: Observation) -> list[str]:
    words = {run.word for run in chain(observed.live.values(), observed.accounted.values())} - SLURM_STATES.keys()
    return [f"job state '{word[:40]}' is not known here: jobs in it stay as they are" for word in sorted(words)]
