"""Decides what CloudVision is to be told about jobs.

A run is followed from the first time it is seen running until its end is known. Its end comes from accounting,
from slurmctld, or, when neither shows it for some rounds, is inferred. A run that ended is never set back.
"""

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from cvagent.model import (
    SEEN,
    Absence,
    Change,
    Identity,
    JobConfig,
    Known,
    Observation,
    Plan,
    Run,
    State,
)

# With this many open runs or fewer the share guard is silent.
_FEW = 10


class JobRules(Struct, frozen=True):
    """What the operator decided.

    Attributes:
        cluster: Slurm's ClusterName, part of every key.
        name_filter: Jobs whose name it finds are reported.
        partition_filter: Likewise for the partition.
        absent_rounds: Good observations in a row after which a run that Slurm no longer shows is taken as ended.
        removal_share: A plan that would end more than this share of the open runs by inference refuses to.
        force: Let it.
    """

    cluster: str
    name_filter: re.Pattern[str]
    partition_filter: re.Pattern[str]
    absent_rounds: int = 3
    removal_share: float = 0.3
    force: bool = False


def plan_jobs(observed: Observation, known: Mapping[str, Known], rules: JobRules) -> Plan:
    """Compare what Slurm says with what is known, and say what must change."""
    by_identity = {item.document.identity: item for item in known.values()}
    truth = _truth(observed.runs)
    changes = _Changes(observed, by_identity, rules)
    for run in truth.values():
        changes.follow(run)
    lost = [item for item in known.values() if _is_open(item) and _is_lost(item, truth, observed)]
    ends = [changes.infer(item) for item in lost if item.absence.rounds + 1 >= rules.absent_rounds]
    refusal = _refusal(len(ends), sum(map(_is_open, known.values())), rules)
    return Plan(
        changes=changes.made if refusal else [*changes.made, *ends],
        absences={**_seen_again(known.values(), lost), **_not_seen(lost, observed.at)},
        refused=ends if refusal else (),
        refusal=refusal,
        unchanged=changes.unchanged,
        problems=observed.problems,
    )


class _Changes:
    """Gathers the changes of one plan."""

    def __init__(self, observed: Observation, known: Mapping[Identity, Known], rules: JobRules) -> None:
        self.made: list[Change] = []
        self.unchanged = 0
        self._observed = observed
        self._known = known
        self._rules = rules
        self._keys = {item.document.key for item in known.values()}
        self._submissions: dict[int, set[int]] = {}
        for job_id, submitted_at in known:
            self._submissions.setdefault(job_id, set()).add(submitted_at)

    def follow(self, run: Run) -> None:
        """Add what this run needs."""
        item = self._known.get(run.identity)
        if item is None:
            self._begin(run)
        elif self._is_final(item.document, run) or (after := _updated(item.document, run)) == item.document:
            self.unchanged += 1
        else:
            self.made.append(Change(item.document, after, "ended" if after.ended_at else "changed"))

    def infer(self, item: Known) -> Change:
        """The end of a run that Slurm no longer shows."""
        before = item.document
        later = [at for at in self._observed.earlier.get(before.job_id, ()) if at > before.submitted_at]
        later += [run.submitted_at for run in self._observed.runs if run.job_id == before.job_id]
        ended_at = min(
            (at for at in later if at > before.submitted_at), default=item.absence.since or self._observed.at
        )
        state = State.FAILED if self._observed.accounting else State.COMPLETED
        after = replace(before, state=state, ended_at=max(ended_at, before.started_at), inferred=True)
        return Change(before, after, "Slurm no longer shows it and accounting names no end")

    def _begin(self, run: Run) -> None:
        if run.started_at is None or not run.nodes or run.completing or not self._is_wanted(run):
            return
        document = JobConfig(
            key=self._key(run),
            job_id=run.job_id,
            submitted_at=run.submitted_at,
            state=run.state or State.RUNNING,
            started_at=run.started_at,
            ended_at=run.ended_at and max(run.ended_at, run.started_at),
            name=run.name,
            partition=run.partition,
            nodes=run.nodes,
        )
        self._keys.add(document.key)
        self.made.append(Change(None, document, "new"))

    def _is_wanted(self, run: Run) -> bool:
        rules = self._rules
        return bool(rules.name_filter.search(run.name) and rules.partition_filter.search(run.partition))

    def _is_final(self, document: JobConfig, run: Run) -> bool:
        """Whether what is known stands: an end, unless accounting corrects it."""
        return document.ended_at is not None and (run.ended_at is None or (run.is_live and not document.inferred))

    def _key(self, run: Run) -> str:
        """The first run has a bare key; the run after the n-th restart has `.n`."""
        others = self._submissions.get(run.job_id, set()) | self._observed.earlier.get(run.job_id, frozenset())
        nth = sum(submitted_at < run.submitted_at for submitted_at in others)
        if not self._observed.accounting:
            nth = max(nth, run.restarts or 0)
        key = job_key(run.job_id, nth, self._rules.cluster)
        while key in self._keys:
            nth += 1
            key = job_key(run.job_id, nth, self._rules.cluster)
        return key


def job_key(job_id: int, restarts: int, cluster: str) -> str:
    """The key of one run.

    >>> job_key(4711, 0, "lab"), job_key(4711, 2, "lab")
    ('4711@lab', '4711.2@lab')
    """
    return f"{job_id}.{restarts}@{cluster}" if restarts else f"{job_id}@{cluster}"


def _truth(runs: Iterable[Run]) -> dict[Identity, Run]:
    """One run per identity: an end beats running, accounting's end beats slurmctld's.

    That accounting calls a run running proves nothing; only slurmctld's word counts for that.
    """
    truth: dict[Identity, Run] = {}
    for run in runs:
        if run.state is None or (run.ended_at is None and not run.is_live):
            continue
        identity = run.identity
        before = truth.get(identity)
        if before is None or before.ended_at is None or (run.ended_at is not None and before.is_live):
            truth[identity] = run
    return truth


def _updated(document: JobConfig, run: Run) -> JobConfig:
    """The document as this run makes it. Node lists shrink while a job completes: then the known one stays.

    Accounting mangles names that slurmctld holds byte for byte, so a known name stays too.
    """
    keep = run.completing or not run.nodes
    started_at = run.started_at or document.started_at
    return JobConfig(
        key=document.key,
        job_id=document.job_id,
        submitted_at=document.submitted_at,
        state=run.state or document.state,
        started_at=started_at,
        ended_at=run.ended_at and max(run.ended_at, started_at),
        name=run.name if run.is_live else document.name,
        partition=run.partition or document.partition,
        nodes=document.nodes if keep else run.nodes,
    )


def _is_open(item: Known) -> bool:
    return item.document.ended_at is None


def _is_lost(item: Known, truth: Mapping[Identity, Run], observed: Observation) -> bool:
    identity = item.document.identity
    return identity not in truth and identity not in observed.present


def _seen_again(known: Iterable[Known], lost: Iterable[Known]) -> dict[str, Absence]:
    gone = {item.document.key for item in lost}
    return {item.document.key: SEEN for item in known if item.absence.rounds and item.document.key not in gone}


def _not_seen(lost: Iterable[Known], at: int) -> dict[str, Absence]:
    return {item.document.key: Absence(item.absence.rounds + 1, item.absence.since or at) for item in lost}


def _refusal(ends: int, open_runs: int, rules: JobRules) -> str | None:
    if rules.force or open_runs <= _FEW or ends <= rules.removal_share * open_runs:
        return None
    return (
        f"{ends} of {open_runs} running jobs are no longer shown by Slurm, more than the share of "
        f"{rules.removal_share:.0%} (CVAGENT_REMOVAL_SHARE): their ends are withheld until 'cvagent run --once --force'"
    )
