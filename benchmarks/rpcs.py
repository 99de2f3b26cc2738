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
        yield from _held(lab, "without a change", lambda: None)
        yield from _held(lab, f"in which {_CHANGING} jobs began and ended", lambda: lab.pass_through(_CHANGING))
        asked = per_round(lab, lambda: lab.pass_through(_CHANGING), by_interface=True)
        lists = sum(asked[name] for name in _LISTS)
        yield seen(
            "the same, where the jobs are on shared nodes and told by interfaces", Reading(lists, f"{lists:.2g}")
        )


def _held(lab: Lab, where: str, happen: Callable[[], object]) -> Iterator[Row]:
    asked = per_round(lab, happen)
    lists = sum(asked[name] for name in _LISTS)
    single = sum(asked[name] for name in _OF_ONE_JOB)
    yield below(f"list RPCs of a round {where}", Reading(lists, f"{lists:.2g}"), Reading(2, "2"))
    yield below(f"RPCs for single jobs in a round {where}", Reading(single, f"{single:.2g}"), Reading(0, "0"))
    words = ", ".join(f"{name} {count:.2g}" for name, count in sorted(asked.items())) or "none"
    yield seen(f"all RPCs of a round {where}", Reading(sum(asked.values()), words))


def per_round(lab: Lab, happen: Callable[[], object], *, by_interface: bool = False) -> Counter[str]:
    """RPCs by type that a steady round causes, in the mean of several, each after something happened."""
    rounds = Rounds(RealSlurm(lab), by_interface=by_interface)
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
