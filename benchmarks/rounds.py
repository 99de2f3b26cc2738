"""What a round costs beside the squeue that it reads."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from threading import Event

from benchmarks.measure import Row, at_most, below, command_cpu_s, median, ms, own_cpu_s, process_cpu_s, seen
from benchmarks.replay import Replay
from benchmarks.slurm_lab import Lab, real_slurm
from cvagent.api.observer import Board
from cvagent.clients.runner import slurm_environment
from cvagent.clients.slurm import Slurm
from cvagent.flows import FLOWS
from cvagent.loops import Collector, Horizon
from cvagent.model import Accepted, JobConfig
from cvagent.ports import Surroundings
from cvagent.push.jobs import JobRules
from cvagent.settings import Settings
from cvagent.sources.slurm_allocations import Allocations
from cvagent.sources.slurm_jobs import SlurmJobs
from cvagent.store.outbox import SqlOutbox

JOBS = 10_000
MANY_JOBS = 100_000
CHANGED = 0.01
_ROUNDS = 15
_QUESTIONS = 50
_FLOW = FLOWS[0]
_SINK = _FLOW.sinks[0]


class Rounds:
    """A collector with everything real but Slurm, whose text is replayed.

    Args:
        by_interface: Whether jobs on shared nodes are asked about, as they are unless CVAGENT_JOB_RESOURCES is node.
    """

    def __init__(self, slurm: Replay, store_url: str = "sqlite://", *, by_interface: bool = True) -> None:
        logging.getLogger("cvagent").setLevel(logging.ERROR)
        given = Settings(cloudvision_url="https://cvp", cloudvision_token="none")  # noqa: S106
        self._slurm = slurm
        self.outbox = SqlOutbox(store_url, "bench")
        board = Board(flows={_FLOW.name: 0.0}, sinks={_SINK: 0.0})
        around = Surroundings(self.outbox, slurm, board, lambda _: None, Event())
        rules = JobRules("bench", given.job_name_filter, given.partition_filter)
        client = Slurm(slurm, 60)
        allocations = Allocations(client, self.outbox.facts()) if by_interface else None
        source = SlurmJobs(client, allocations)
        self.collector = Collector(_FLOW, source, rules, Horizon(given.lookback_h * 3600), around)

    def cpu_s(self) -> float:
        """CPU seconds of one round, the replay's own taken off."""
        before = self._slurm.cpu_s
        spent = own_cpu_s(self._round)
        return spent - (self._slurm.cpu_s - before)

    def changed_cpu_s(self, jobs: int) -> float:
        """Likewise, of the next round, for which so many jobs ended and as many began."""
        self._slurm.turn_over(jobs)
        try:
            return self.cpu_s()
        finally:
            self.deliver()

    def deliver(self) -> None:
        """Let a sink take all that waits."""
        while entries := self.outbox.due(_SINK, self._slurm.now(), 2000):
            self.outbox.settle(_SINK, [(entry, Accepted(), 0.0) for entry in entries], self._slurm.now())

    def told(self) -> list[JobConfig]:
        """All documents."""
        return [item.document for item in self.outbox.known(_SINK, 0).values()]

    def _round(self) -> None:
        assert self.collector.round() is not None


def first_s(jobs: int, store_url: str = "sqlite://") -> float:
    """CPU seconds of a first round, to which every job is new."""
    return Rounds(Replay(jobs), store_url).cpu_s()


def steady_s(jobs: int, store_url: str = "sqlite://") -> float:
    """CPU seconds of a round in which one job of a hundred ended and as many began."""
    rounds = Rounds(Replay(jobs), store_url)
    rounds.cpu_s()
    rounds.deliver()
    try:
        return median(lambda: rounds.changed_cpu_s(int(jobs * CHANGED)), _ROUNDS)
    finally:
        rounds.outbox.close()


def measure() -> Iterator[Row]:
    """See the module."""
    few, many = steady_s(JOBS), steady_s(MANY_JOBS)
    with real_slurm() as lab:
        lab.hold(JOBS)
        squeue = median(lambda: squeue_s(lab), _ROUNDS)
        slurmctld = slurmctld_s(lab)
    name = f"CPU of a steady round over {JOBS:,} jobs: 1 % ended, as many began"
    yield at_most(name, ms(few), ms(squeue, "of the squeue that prints as many"), 2)
    yield below(f"CPU of a first round over {JOBS:,} jobs", ms(median(lambda: first_s(JOBS), 3)), ms(1))
    name = f"CPU of a steady round over {MANY_JOBS:,} jobs"
    yield at_most(name, ms(many), ms(few, f"over {JOBS:,}"), 12)
    yield seen(f"CPU of slurmctld for a squeue of {JOBS:,} jobs", ms(slurmctld), ms(squeue, "of the squeue"))


def squeue_s(lab: Lab) -> float:
    """CPU seconds of the agent's own question to a real slurmctld, asked for pending jobs too: these it holds."""
    question = _Ask()
    Slurm(question, 60).live_jobs()
    command = [lab.bin_dir / question.command[0], *question.command[1:]]
    command[command.index("-t") + 1] = "all"
    return command_cpu_s(*command, env=slurm_environment(None, None, ""))


def slurmctld_s(lab: Lab) -> float:
    """CPU seconds that slurmctld spends on one such question."""
    slurmctld = lab.slurmctld()
    before = process_cpu_s(slurmctld)
    for _ in range(_QUESTIONS):
        squeue_s(lab)
    return (process_cpu_s(slurmctld) - before) / _QUESTIONS


class _Ask:
    """A runner that only notes what it was to run."""

    command: Sequence[str] = ()

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> bytes:  # noqa: ARG002
        self.command = command
        return b""

    def stop(self) -> None: ...
