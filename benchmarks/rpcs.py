"""What rounds ask of a real slurmctld, by its own count."""

from collections import Counter
from collections.abc import Callable, Iterator

from benchmarks.measure import Reading, Row, below, seen
from benchmarks.rounds import Rounds
from benchmarks.slurm_lab import Lab, RealSlurm, real_slurm

_ROUNDS = 10
_CHANGING = 50
# What a round may ask for: lists, however many jobs are in them.
_LISTS = {"REQUEST_JOB_INFO", "REQUEST_PARTITION_INFO", "REQUEST_NODE_INFO"}
_OF_ONE_JOB = {"REQUEST_JOB_INFO_SINGLE", "REQUEST_JOB_USER_INFO", "REQUEST_JOB_STEP_INFO", "REQUEST_JOB_STEP_STAT"}
# Nodes report by themselves, and sdiag counts its own question.
_OF_OTHERS = {
    "MESSAGE_EPILOG_COMPLETE",
    "MESSAGE_NODE_REGISTRATION_STATUS",
    "REQUEST_COMPLETE_BATCH_SCRIPT",
    "REQUEST_STATS_INFO",
}


def measure() -> Iterator[Row]:
    """See the module."""
    with real_slurm() as lab:
        for changing in (0, _CHANGING):
            asked = per_round(lab, lambda jobs=changing: jobs and lab.pass_through(jobs))
            lists = sum(asked[name] for name in _LISTS)
            single = sum(asked[name] for name in _OF_ONE_JOB)
            where = f"a round in which {changing} jobs began and ended" if changing else "a round without a change"
            yield below(f"list RPCs of {where}", Reading(lists, f"{lists:.2g}"), Reading(2, "2"))
            yield below(f"RPCs for single jobs in {where}", Reading(single, f"{single:.2g}"), Reading(0, "0"))
            words = ", ".join(f"{name} {count:.2g}" for name, count in sorted(asked.items())) or "none"
            yield seen(f"all RPCs of {where}", Reading(sum(asked.values()), words))


def per_round(lab: Lab, happen: Callable[[], object]) -> Counter[str]:
    """RPCs by type that a steady round causes, in the mean of several, each after something happened."""
    rounds = Rounds(RealSlurm(lab))
    rounds.cpu_s()
    rounds.deliver()
    asked: Counter[str] = Counter()
    for _ in range(_ROUNDS):
        happen()
        before = lab.rpcs()
        rounds.cpu_s()
        asked.update({name: count - before.get(name, 0) for name, count in lab.rpcs().items()})
        rounds.deliver()
    ours = {name: count / _ROUNDS for name, count in asked.items() if count and name not in _OF_OTHERS}
    return Counter(ours)
