"""Whatever happens in whatever order: once all works again, the sink shows what is true."""

import re
from threading import Event

import pytest
from fakes import FakeClock, FakeObserver, FakeSink
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from slurm_model import FINAL, SlurmModel, Truth

from cvagent.clients.slurm import Slurm
from cvagent.flows import FLOWS
from cvagent.loops import Collector, Courier, Horizon
from cvagent.model import Deferred, State
from cvagent.ports import Surroundings
from cvagent.push.jobs import JobRules
from cvagent.sources.slurm_jobs import SlurmJobs
from cvagent.store.outbox import SqlOutbox

START = 1_700_000_000
LOOKBACK_S = 86_400
BACKOFF_CAP_S = 60.0
ABSENT_ROUNDS = 3
ANY = re.compile("")
# A plan that refuses itself waits for a person: not here.
RULES = JobRules("lab", name_filter=ANY, partition_filter=ANY, absent_rounds=ABSENT_ROUNDS, removal_share=1.0)
PICK = st.integers(0, 7)


class Convergence(RuleBasedStateMachine):
    """A cluster, an agent and a sink, each of which may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(START)
        self.sink = FakeSink()
        self.outbox = SqlOutbox("sqlite://", "lab")
        self.checked = 0
        self.failed = False

    @initialize(min_job_age_s=st.sampled_from([2, 300]))
    def cluster(self, min_job_age_s):
        self.slurm = SlurmModel(self.clock, min_job_age_s)
        self.start_agent()

    def start_agent(self) -> None:
        around = Surroundings(self.outbox, self.clock, FakeObserver(), lambda _name: None, Event())
        self.source = SlurmJobs(Slurm(self.slurm.commands, timeout_s=10))
        self.collector = Collector(FLOWS[0], self.source, RULES, Horizon(LOOKBACK_S, 0, 0), around)
        self.courier = Courier(self.sink, BACKOFF_CAP_S, around)

    # What Slurm does.

    @rule(nodes=st.integers(1, 3))
    def submit_and_start(self, nodes):
        self.slurm.submit()
        self.slurm.start(self.slurm.held("PENDING")[-1], nodes)

    @rule(seen=st.booleans())
    def slurmctld_crashes_at_once(self, seen):
        self.submit_and_start(nodes=1)
        if seen:
            self.rounds_and_delivery()
        self.slurm.crash(self.slurm.held("RUNNING")[-1])
        self.slurm.print()

    @rule()
    def submit(self):
        self.slurm.submit()

    @precondition(lambda self: self.slurm.held("PENDING"))
    @rule(pick=PICK, nodes=st.integers(1, 3))
    def start(self, pick, nodes):
        self.slurm.start(chosen(self.slurm.held("PENDING"), pick), nodes)

    @rule()
    def submit_and_cancel(self):
        self.slurm.submit()
        self.slurm.cancel_pending(self.slurm.held("PENDING")[-1])

    @precondition(lambda self: self.slurm.held("RUNNING", "SUSPENDED"))
    @rule(pick=PICK, final=st.sampled_from(FINAL), completing=st.booleans())
    def end(self, pick, final, completing):
        self.slurm.end(chosen(self.slurm.held("RUNNING", "SUSPENDED"), pick), final, completing=completing)

    @precondition(lambda self: self.slurm.held("COMPLETING"))
    @rule(pick=PICK)
    def clean(self, pick):
        self.slurm.clean(chosen(self.slurm.held("COMPLETING"), pick))
        self.slurm.print()

    @precondition(lambda self: self.slurm.held("RUNNING"))
    @rule(pick=PICK, final=st.sampled_from(["REQUEUED", "NODE_FAIL", "PREEMPTED"]), waits=st.booleans())
    def requeue(self, pick, final, waits):
        self.slurm.requeue(chosen(self.slurm.held("RUNNING"), pick), final)
        if not waits:
            self.slurm.start(self.slurm.held("PENDING")[-1], nodes=1)

    @precondition(lambda self: self.slurm.held("RUNNING", "SUSPENDED"))
    @rule(pick=PICK)
    def suspend_or_resume(self, pick):
        self.slurm.suspend_or_resume(chosen(self.slurm.held("RUNNING", "SUSPENDED"), pick))

    @precondition(lambda self: self.slurm.held("RUNNING"))
    @rule(pick=PICK, nodes=st.integers(1, 3))
    def resize(self, pick, nodes):
        self.slurm.resize(chosen(self.slurm.held("RUNNING"), pick), nodes)

    @precondition(lambda self: self.slurm.held("PENDING"))
    @rule()
    def slurmctld_crashes(self):
        """The youngest pending job is lost, if no other came after it."""
        job = self.slurm.held("PENDING")[-1]
        if self.slurm.is_last(job):
            self.slurm.crash(job)
            self.slurm.print()

    @rule(seconds=st.sampled_from([1, 10, 60, 900]))
    def time_passes(self, seconds):
        self.slurm.forward(seconds)

    @rule(count=st.integers(1, 4))
    def accounting_catches_up(self, count):
        if "sacct" not in self.slurm.commands.broken:
            self.slurm.account_late_rows(count)

    # What the order of the rules above seldom makes.

    @rule()
    def requeued_at_once(self):
        self.submit_and_start(nodes=1)
        self.requeue(pick=-1, final="REQUEUED", waits=False)

    @rule()
    def completing_for_long(self):
        self.submit_and_start(nodes=1)
        self.slurm.end(self.slurm.held("RUNNING")[-1], "COMPLETED", completing=True)
        self.slurm.account_late_rows(10_000)
        self.collector.round()
        self.slurm.forward(900)

    @rule()
    def ends_during_the_delivery_of_its_start(self):
        self.submit_and_start(nodes=1)
        self.collector.round()
        self.slurm.end(self.slurm.held("RUNNING")[-1], "FAILED", completing=False)
        self.delivery(round_meanwhile=True)

    @rule()
    def the_whole_controller_crashes(self):
        self.slurmctld_crashes_at_once(seen=True)
        self.agent_restarts(lost=True)

    # What fails.

    @rule()
    def slurmdbd_goes_down(self):
        self.slurm.database_down()
        self.collector.round()

    @rule(answer=st.sampled_from(["Unable to contact slurm controller", b"half a rec", b"\n"]))
    def squeue_fails(self, answer):
        self.slurm.commands.broken["squeue"] = answer

    @rule()
    def slurm_works_again(self):
        self.slurm.commands.broken.pop("squeue", None)
        self.slurm.database_up()

    @rule(seconds=st.sampled_from([100, 700, 2000]))
    def slurmdbd_was_down_while_a_job_came_and_went(self, seconds):
        self.slurmdbd_goes_down()
        self.submit_and_start(nodes=1)
        self.slurm.end(self.slurm.held("RUNNING")[-1], "FAILED", completing=False)
        self.slurm.forward(seconds)
        self.slurm.database_up()
        self.collector.round()

    @rule(down=st.booleans())
    def sink_fails_or_works(self, down):
        self.sink.down = Deferred("503", everything=True) if down else None

    @rule()
    def answers_are_lost(self):
        self.sink.lost = {entry.key for entry in self.outbox.due(self.sink.name, self.clock.now(), 100)}

    @rule(lost=st.booleans())
    def agent_restarts(self, lost):
        """A runaway that began within the minute before a store was lost is remembered by the process alone."""
        if self.source._doubtful and not lost:
            return
        if lost:
            self.outbox.close()
            self.outbox = SqlOutbox("sqlite://", "lab")
            self.slurm.account_what_is_due(outages_forgiven=False)
        self.start_agent()
        if "sacct" in self.slurm.commands.broken:
            self.collector.round()

    # What the agent does.

    @rule()
    def round(self):
        self.slurm.forward(1)
        self.collector.round()

    @rule()
    def rounds_and_delivery(self):
        self.slurm.forward(10)
        self.collector.round()
        self.collector.round()
        self.courier.run()

    @precondition(lambda self: self.slurm.held("RUNNING"))
    @rule(pick=PICK, final=st.sampled_from(FINAL), requeued=st.booleans())
    def something_ends_during_a_round(self, pick, final, requeued):
        job = chosen(self.slurm.held("RUNNING"), pick)

        def ends():
            if requeued:
                self.slurm.requeue(job, "REQUEUED")
            else:
                self.slurm.end(job, final, completing=False)
            self.slurm.account_late_rows(100)

        self.slurm.commands.after_squeue = ends
        self.collector.round()
        self.slurm.commands.after_squeue = None

    @rule(round_meanwhile=st.booleans())
    def delivery(self, round_meanwhile):
        self.sink.meanwhile = self.collector.round if round_meanwhile else None
        self.courier.run()
        self.sink.meanwhile = None

    @rule()
    def all_works_again(self):
        self.slurm_works_again()
        self.sink.down, self.sink.lost = None, set()
        self.slurm.account_late_rows(10_000)
        for _ in range(2 + ABSENT_ROUNDS):
            self.slurm.forward(int(BACKOFF_CAP_S) + 1)
            assert self.collector.round() is not None
            self.courier.run()
        self.compare()

    def compare(self) -> None:
        self.failed = True
        truth = dict(self.slurm.truth())
        held = {
            key: Truth(told.state, told.job_id, told.submitted_at, told.started_at, told.ended_at, told.nodes)
            for key, told in self.sink.held.items()
        }
        lost = {key for key, told in truth.items() if told is None}
        assert {key: told for key, told in held.items() if key not in lost} == {
            key: told for key, told in truth.items() if key not in lost
        }
        assert {key for key in lost if key in held and held[key].state is State.RUNNING} == set()
        self.failed = False

    @invariant()
    def what_ended_is_never_set_back(self):
        for told in self.sink.history[self.checked :]:
            before = [earlier for earlier in self.sink.history[: self.checked] if earlier.key == told.key]
            assert told.state is not State.RUNNING or all(old.state is State.RUNNING for old in before)
            self.checked += 1

    def teardown(self):
        if hasattr(self, "slurm") and not self.failed:
            self.all_works_again()
        self.outbox.close()


def chosen(candidates, pick):
    return candidates[pick % len(candidates)]


Convergence.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# Longer than it ever takes, as a failure is made small first.
test_convergence = pytest.mark.timeout(900)(Convergence.TestCase)
