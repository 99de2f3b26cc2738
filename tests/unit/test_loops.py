"""The two loops over fakes and the real outbox in memory."""

import re
from collections.abc import Iterator
from contextlib import closing
from threading import Event

import pytest
from fakes import FakeClock, FakeObserver, FakeSink, FakeSource, a_document, an_observation
from msgspec.structs import replace

from cvagent.errors import CommandFailed, StoreError
from cvagent.flows import FLOWS, Flow
from cvagent.loops import OVERLAP_S, Collector, Courier, Horizon, backoff_s, run_out
from cvagent.model import Absence, Accepted, Change, Deferred, Due, Identity, Known, Plan, Refused, Run, State
from cvagent.model.errands import Commands
from cvagent.ports import Surroundings
from cvagent.push.jobs import JobRules
from cvagent.store.outbox import SqlOutbox

SINK = "cloudvision_jobs"
START = 1_000_000
LOOKBACK_S = 86_400
HORIZON = Horizon(LOOKBACK_S)
ANY = re.compile("")
RULES = JobRules("lab", name_filter=ANY, partition_filter=ANY)
DOWN = Deferred("503", everything=True)
NO_ANSWER = CommandFailed("squeue", "Unable to contact slurm controller", 1)


class World:
    """All that the loops work with."""

    def __init__(self, outbox) -> None:
        self.outbox = outbox
        self.clock = FakeClock(START)
        self.observer = FakeObserver()
        self.woken: list[str] = []
        self.stop = Event()
        self.sink = FakeSink(SINK)
        self.around = Surroundings(outbox, self.clock, self.observer, self.woken.append, self.stop)

    def collector(self, source, horizon=HORIZON) -> Collector:
        return Collector(FLOWS[0], source, RULES, horizon, self.around)

    def courier(self, cap_s=0.0) -> Courier:
        return Courier(self.sink, cap_s, self.around)

    def write(self, *documents) -> None:
        changes = [Change(None, document, "new") for document in documents]
        self.outbox.record("jobs", [SINK], Plan(changes=changes), self.clock.now(), None)

    def statuses(self) -> dict[str, str]:
        return {row.document.key: row.status for row in self.outbox.rows(SINK)}

    def error_of(self, key) -> str | None:
        return next(row.error for row in self.outbox.rows(SINK) if row.document.key == key)


@pytest.fixture
def world() -> Iterator[World]:
    with closing(SqlOutbox("sqlite://", "lab")) as outbox:
        yield World(outbox)


def running(job_id=1) -> Run:
    return Run(Identity(job_id, 100), "RUNNING", 110, None, "batch", "node[1-2]", "train", 0)


def test_a_round_reads_decides_and_remembers(world):
    made = world.collector(FakeSource(an_observation(START, [running()]))).round()
    assert [change.after for change in made.changes] == [a_document("1@lab")]
    assert world.statuses() == {"1@lab": "pending"}
    assert world.observer.rounds == [made]


def test_a_round_with_changes_wakes_the_sink_and_one_without_does_not(world):
    collector = world.collector(FakeSource(an_observation(START, [running()])))
    collector.round()
    assert world.woken == [SINK]
    collector.round()
    assert world.woken == [SINK]


def test_a_plan_that_is_only_looked_at_writes_nothing(world):
    collector = world.collector(FakeSource(an_observation(START, [running()])))
    assert len(collector.plan().changes) == 1
    assert (world.statuses(), world.outbox.checkpoint("jobs"), world.woken) == ({}, None, [])


def test_a_skipped_round_changes_nothing(world):
    source = FakeSource(an_observation(START, [running()]), NO_ANSWER, an_observation(START))
    collector = world.collector(source)
    collector.round()
    world.clock.forward(10)
    before = (world.outbox.rows(SINK), world.outbox.known(SINK, 0), world.outbox.checkpoint("jobs"))
    assert collector.round() is None
    assert (world.outbox.rows(SINK), world.outbox.known(SINK, 0), world.outbox.checkpoint("jobs")) == before
    assert world.observer.skipped == [NO_ANSWER]
    assert len(world.observer.rounds) == 1


def test_skipped_rounds_are_no_observations_of_absence(world):
    source = FakeSource(an_observation(START, [running()]), NO_ANSWER, NO_ANSWER, NO_ANSWER, an_observation(START + 40))
    collector = world.collector(source)
    for _ in range(5):
        collector.round()
    assert world.outbox.known(SINK, 0) == {Identity(1, 100): Known(a_document("1@lab"), Absence(1, START + 40))}


def test_a_store_that_does_not_answer_skips_the_round(world):
    class Broken(SqlOutbox):
        def record(self, *_args):
            raise StoreError("the store does not answer")

    with closing(Broken("sqlite://", "lab")) as outbox:
        collector = Collector(
            FLOWS[0], FakeSource(an_observation(START)), RULES, HORIZON, world.around._replace(outbox=outbox)
        )
        assert collector.round() is None
    assert [str(error) for error in world.observer.skipped] == ["the store does not answer"]


def test_without_a_checkpoint_a_round_looks_back_and_asks_for_all(world):
    source = FakeSource(an_observation(START))
    world.collector(source).round()
    assert (source.asked[0].since, source.asked[0].cold, source.asked[0].known) == (START - LOOKBACK_S, True, {})
    assert world.outbox.checkpoint("jobs") == START


def test_with_a_checkpoint_a_round_overlaps_the_one_before(world):
    source = FakeSource(an_observation(START))
    collector = world.collector(source)
    collector.round()
    world.clock.forward(30)
    collector.round()
    assert (source.asked[1].since, source.asked[1].cold) == (START - OVERLAP_S, False)
    assert world.outbox.checkpoint("jobs") == START + 30


def test_after_a_long_absence_a_round_looks_back_no_further_than_told(world):
    world.outbox.record("jobs", [SINK], Plan(), START, START - 10 * LOOKBACK_S)
    source = FakeSource(an_observation(START))
    world.collector(source).round()
    assert source.asked[0].since == START - LOOKBACK_S


def test_a_clock_that_was_set_back_leaves_a_window_all_the_same(world):
    world.outbox.record("jobs", [SINK], Plan(), START, START + 5000)
    source = FakeSource(an_observation(START))
    world.collector(source).round()
    assert source.asked[0].since == START - OVERLAP_S


def test_what_a_round_asks_for_is_what_the_store_knows(world):
    world.write(a_document("1@lab"), a_document("2@lab", state=State.COMPLETED, ended_at=START - LOOKBACK_S - 1))
    source = FakeSource(an_observation(START, [running()]))
    world.collector(source).round()
    assert set(source.asked[0].known) == {Identity(1, 100)}


def checkpoints(world, collector, seconds) -> list[int]:
    seen = []
    for second in seconds:
        world.clock.at = START + second
        collector.round()
        seen.append(world.outbox.checkpoint("jobs") - START)
    return seen


def test_after_a_failed_round_the_checkpoint_stays_for_the_overlap(world):
    ok = an_observation(START)
    collector = world.collector(FakeSource(ok, ok, NO_ANSWER, NO_ANSWER, ok))
    assert checkpoints(world, collector, [0, 10, 20, 30]) == [0, 10, 10, 10]
    assert checkpoints(world, collector, [500, 510, 1099, 1100, 1110]) == [10, 10, 10, 1100, 1110]


def test_the_window_stays_as_wide_as_long_as_the_checkpoint_stays(world):
    ok = an_observation(START)
    source = FakeSource(ok, NO_ANSWER, ok)
    checkpoints(world, world.collector(source), [0, 10, 500, 1000, 1100, 1110])
    assert [ask.since - START for ask in source.asked[1:]] == [-600, -600, -600, -600, 500]


def test_an_agent_that_was_away_holds_the_checkpoint_too(world):
    world.outbox.record("jobs", [SINK], Plan(), START, START - 5000)
    collector = world.collector(FakeSource(an_observation(START)))
    assert checkpoints(world, collector, [0, 10, 599, 600]) == [-5000, -5000, -5000, 600]


def test_old_documents_are_purged_and_young_ones_stay(world):
    old, young = (
        a_document(f"{job}@lab", state=State.COMPLETED, ended_at=START - ago) for job, ago in ((1, 90_000), (2, 80_000))
    )
    world.write(old, young)
    world.courier().run()
    world.collector(FakeSource(an_observation(START)), Horizon(LOOKBACK_S, 86_400, 0)).round()
    assert set(world.statuses()) == {"2@lab"}


def test_what_no_round_needs_is_forgotten_but_for_the_newest(world):
    world.write(*(a_document(f"{job}@lab", state=State.COMPLETED, ended_at=START - 9_000 + job) for job in range(1, 6)))
    world.courier().run()
    world.outbox.record("jobs", [SINK], Plan(), START, START)
    world.collector(FakeSource(an_observation(START)), Horizon(LOOKBACK_S, 0, 2)).round()
    assert set(world.statuses()) == {"4@lab", "5@lab"}


def test_what_may_still_be_asked_about_is_not_forgotten(world):
    running, late = a_document("1@lab"), a_document("2@lab", state=State.COMPLETED, ended_at=START - OVERLAP_S)
    world.write(running, late)
    world.courier().run()
    world.outbox.record("jobs", [SINK], Plan(), START, START)
    world.collector(FakeSource(an_observation(START)), Horizon(LOOKBACK_S, 0, 0)).round()
    assert set(world.statuses()) == {"1@lab", "2@lab"}


def test_a_round_counts_when_only_forgetting_failed(world, caplog):
    class Hoarding(SqlOutbox):
        def purge(self, *_args):
            raise StoreError("the store does not answer")

    with closing(Hoarding("sqlite://", "lab")) as outbox:
        around = world.around._replace(outbox=outbox)
        assert Collector(FLOWS[0], FakeSource(an_observation(START)), RULES, HORIZON, around).round() is not None
    assert world.observer.skipped == []
    assert "old documents stay for now: the store does not answer" in caplog.text


def test_what_is_due_is_delivered(world):
    world.write(a_document("1@lab"), a_document("2@lab"))
    world.courier().run()
    assert world.sink.held == {"1@lab": a_document("1@lab"), "2@lab": a_document("2@lab")}
    assert world.statuses() == {"1@lab": "accepted", "2@lab": "accepted"}
    assert world.observer.outcomes == [Accepted(), Accepted()]


def test_nothing_due_is_no_call(world):
    world.courier().run()
    assert world.sink.calls == []


def test_more_than_a_batch_is_delivered_in_one_run(world):
    world.write(*(a_document(f"{number}@lab") for number in range(1, 2502)))
    world.courier().run()
    assert [len(call) for call in world.sink.calls] == [2000, 501]
    assert world.outbox.waiting(SINK, START) == Due(0, 0, 0.0)


def test_a_refused_entry_is_set_aside_and_blocks_nobody(world):
    world.write(*(a_document(f"{number}@lab") for number in (1, 2, 3)))
    world.sink.outcomes = {"2@lab": [Refused("400: no such node")]}
    world.courier().run()
    assert world.statuses() == {"1@lab": "accepted", "2@lab": "set_aside", "3@lab": "accepted"}
    assert world.error_of("2@lab") == "400: no such node"
    assert len(world.sink.calls) == 1


def test_a_deferred_entry_waits_alone(world):
    world.write(*(a_document(f"{number}@lab") for number in (1, 2, 3)))
    world.sink.outcomes = {"2@lab": [Deferred("429", after_s=30.0)] * 2}
    courier = world.courier()
    courier.run()
    assert world.statuses() == {"1@lab": "accepted", "2@lab": "pending", "3@lab": "accepted"}
    assert world.outbox.next_due(SINK) == START + 30
    world.clock.forward(29.9)
    courier.run()
    assert len(world.sink.calls) == 1
    world.clock.forward(0.1)
    courier.run()
    assert [row.attempts for row in world.outbox.rows(SINK, "pending")] == [2]
    world.clock.forward(30)
    courier.run()
    assert set(world.statuses().values()) == {"accepted"}
    assert world.observer.pauses == []


def test_an_entry_backs_off_no_longer_than_the_cap(world):
    world.write(a_document("1@lab"))
    courier = world.courier(cap_s=60.0)
    world.sink.outcomes = {"1@lab": [Deferred("409")] * 40}
    for attempts in range(1, 41):
        world.sink.calls.clear()
        world.clock.at = max(world.clock.at, world.outbox.next_due(SINK))
        entries = world.outbox.due(SINK, world.clock.now(), 1)
        courier._send(entries)
        wait_s = (world.outbox.next_due(SINK) or world.clock.now()) - world.clock.now()
        assert 0 <= wait_s <= min(60.0, 2.0 ** (attempts - 1))
    assert [row.attempts for row in world.outbox.rows(SINK)] == [40]


def test_a_server_that_is_down_pauses_the_sink(world):
    world.write(a_document("1@lab"), a_document("2@lab"))
    world.sink.down = Deferred("503", after_s=30.0, everything=True)
    courier = world.courier()
    courier.run()
    assert world.observer.pauses == [("503", START + 30)]
    world.clock.forward(29.9)
    courier.run()
    assert len(world.sink.calls) == 1
    world.clock.forward(0.1)
    courier.run()
    assert len(world.sink.calls) == 2


def test_the_pause_grows_with_each_failure_up_to_the_cap(world):
    world.write(a_document("1@lab"))
    world.sink.down = DOWN
    courier = world.courier(cap_s=20.0)
    for _ in range(200):
        courier._send(world.outbox.due(SINK, world.clock.now(), 10))
    waits = [until - START for _, until in world.observer.pauses]
    assert all(0 <= wait_s <= min(20.0, 2.0**index) for index, wait_s in enumerate(waits))
    assert max(waits[20:]) > 15


def test_a_server_may_ask_for_more_than_the_cap(world):
    world.write(a_document("1@lab"))
    world.sink.down = Deferred("429", after_s=3600.0, everything=True)
    world.courier(cap_s=20.0).run()
    assert world.observer.pauses == [("429", START + 3600)]


def test_a_server_that_is_down_burns_no_tries_and_all_is_due_once_it_is_back(world):
    world.write(*(a_document(f"{number}@lab") for number in (1, 2, 3)))
    world.sink.down = Deferred("503", after_s=30.0, everything=True)
    courier = world.courier()
    for _ in range(10):
        courier.run()
        world.clock.forward(30)
    assert [entry.attempts for entry in world.outbox.due(SINK, world.clock.now(), 10)] == [0, 0, 0]
    assert world.error_of("1@lab") == "503"
    world.sink.down = None
    courier.run()
    assert set(world.statuses().values()) == {"accepted"}
    assert world.error_of("1@lab") is None


def test_a_success_ends_the_growth_of_the_pause(world):
    courier = world.courier(cap_s=1e9)
    for _ in range(2):
        for number in range(20):
            world.write(a_document("1@lab", name=f"step {number}"))
            world.sink.down = DOWN
            courier._send(world.outbox.due(SINK, world.clock.now(), 1))
        world.sink.down = None
        courier._send(world.outbox.due(SINK, world.clock.now(), 1))
    again = [until - START for _, until in world.observer.pauses[20:]]
    assert all(wait_s <= 2.0**index for index, wait_s in enumerate(again))


def test_a_newer_document_that_came_while_one_was_under_way_is_delivered_too(world):
    ended = a_document("1@lab", state=State.COMPLETED, ended_at=200)

    world.sink.meanwhile = lambda: world.write(ended)
    world.write(a_document("1@lab"))
    world.courier().run()
    assert world.sink.history == [a_document("1@lab"), ended]
    assert world.statuses() == {"1@lab": "accepted"}


def test_a_write_whose_answer_was_lost_is_repeated(world):
    world.write(a_document("1@lab"))
    world.sink.lost = {"1@lab"}
    courier = world.courier()
    courier.run()
    assert world.sink.history == [a_document("1@lab")] * 2
    assert world.statuses() == {"1@lab": "accepted"}


def test_once_stopped_nothing_is_begun(world):
    world.write(a_document("1@lab"))
    world.stop.set()
    world.courier().run()
    assert world.sink.calls == []


def test_what_was_answered_before_the_stop_is_noted_and_the_rest_stays(world):
    class Stopped(FakeSink):
        def deliver(self, entries):
            for answer in super().deliver(entries):
                yield answer
                world.stop.set()
                self.close()

    world.sink = Stopped()
    world.write(a_document("1@lab"), a_document("2@lab"))
    world.courier().run()
    assert sorted(world.statuses().values()) == ["accepted", "pending"]
    assert len(world.sink.calls) == 1


def test_a_store_that_breaks_during_delivery_ends_the_run_quietly(world):
    class Broken(SqlOutbox):
        def settle(self, *_args):
            raise StoreError("the store does not answer")

    with closing(Broken("sqlite://", "lab")) as outbox:
        outbox.record("jobs", [SINK], Plan(changes=[Change(None, a_document("1@lab"), "new")]), START, None)
        courier = Courier(world.sink, 10, world.around._replace(outbox=outbox))
        courier.run()
        courier.run()
        assert len(outbox.due(SINK, START, 10)) == 1
    assert len(world.sink.history) == 2


def test_the_first_back_off_is_within_a_second_and_none_is_negative():
    assert all(0 <= backoff_s(0, 300) <= 1 for _ in range(100))
    assert max(backoff_s(50, 300) for _ in range(200)) > 200


def test_documents_go_out_as_they_were_decided(world):
    source = FakeSource(
        an_observation(START, [running()]),
        an_observation(START, accounted=[replace(running(), word="COMPLETED", ended_at=200, restarts=None)]),
    )
    collector, courier = world.collector(source), world.courier()
    for _ in range(2):
        collector.round()
        courier.run()
    assert [document.state for document in world.sink.history] == [State.RUNNING, State.COMPLETED]


def test_a_delivery_is_a_reason_to_look_for_the_flows_that_follow(world):
    courier = Courier(world.sink, 0.0, world.around, ["order_states"])
    assert not courier.run()
    assert world.woken == []
    world.write(a_document("1@lab"))
    assert courier.run()
    assert world.woken == ["order_states"]


def test_running_out_looks_again_as_long_as_something_was_sent(world):
    flow = FLOWS[0]._replace(follows=(SINK,))
    source = FakeSource(an_observation(START, [running()]))
    collector = Collector(flow, source, RULES, Horizon(LOOKBACK_S), world.around)
    assert run_out([collector], [world.courier()])
    # Once because it was asked for, once because of the delivery; then nothing was sent.
    assert len(source.asked) == 2
    assert not run_out([Collector(flow, FakeSource(NO_ANSWER), RULES, Horizon(LOOKBACK_S), world.around)], [])


ERRANDS = Flow("members", "pull", "members", lambda observed, *_: observed, (SINK,), errands=True)
REMOVAL = Commands("hpc_a/bob", "bob is not in the team", (("sacctmgr", "delete"),))
VALID_S = 120


class Looks:
    """A flow whose rounds decide nothing new, and the courier of what it left."""

    def __init__(self, world, *answers) -> None:
        self.collector = Collector(ERRANDS, FakeSource(*answers), None, Horizon(0, valid_s=VALID_S), world.around)
        self.courier = Courier(world.sink, 0.0, world.around, (), self.collector.vouches)


def test_what_another_process_left_is_not_done_before_a_look_of_this_one(world):
    world.write(REMOVAL)
    looks = Looks(world, NO_ANSWER, NO_ANSWER, Plan())
    assert not run_out([looks.collector], [looks.courier])
    world.outbox.retry(SINK, [])
    assert not run_out([looks.collector], [looks.courier])
    assert world.sink.history == []
    assert run_out([looks.collector], [looks.courier])
    assert world.sink.history == [REMOVAL]


def test_what_the_look_of_this_process_does_not_want_any_more_is_never_done(world):
    world.write(REMOVAL)
    looks = Looks(world, Plan(changes=[Change(REMOVAL, replace(REMOVAL, commands=()), "ended")]))
    assert run_out([looks.collector], [looks.courier])
    assert world.sink.history == [replace(REMOVAL, commands=())]


@pytest.mark.parametrize(("later_s", "done"), [(VALID_S, True), (VALID_S + 1, False), (-1, False)])
def test_an_errand_is_done_only_for_a_while_after_the_last_good_look(world, later_s, done):
    looks = Looks(world, Plan(), NO_ANSWER)
    looks.collector.round()
    world.write(REMOVAL)
    world.clock.forward(later_s)
    looks.collector.round()
    assert looks.courier.run() is done
    assert bool(world.sink.history) is done


def test_errands_do_not_wait_for_what_takes_long(world):
    class Slow(FakeSink):
        def deliver(self, entries):
            world.clock.forward(VALID_S + 1)
            yield from super().deliver(entries)

    world.write(REMOVAL)
    world.outbox.record("nodes", ["cloudvision_nodes"], Plan(changes=[Change(None, a_document(), "new")]), START, None)
    looks, slow = Looks(world, Plan()), Slow("cloudvision_nodes")
    run_out([looks.collector], [Courier(slow, 0.0, world.around), looks.courier])
    assert (world.sink.history, slow.history) == ([REMOVAL], [a_document()])


def test_an_errand_that_a_look_replaced_meanwhile_is_done_in_its_new_form_only(world):
    first, second = replace(REMOVAL, key="hpc_a/alice"), REMOVAL
    newer = replace(second, commands=())
    looks = Looks(world, Plan())
    looks.collector.round()
    world.write(first, second)
    world.sink.meanwhile = lambda: world.write(newer)
    looks.courier.run()
    assert world.sink.history == [first, newer]


def test_an_errand_that_seems_to_stop_everything_lets_the_others_go_first(world):
    good, bad = replace(REMOVAL, key="hpc_b"), replace(REMOVAL, key="hpc_a")
    world.write(bad, good)
    world.sink.outcomes = {"hpc_a": [Deferred("did not end", after_s=1.0, everything=True)] * 3}
    looks = Looks(world, Plan())
    looks.collector.round()
    for _ in range(3):
        looks.courier.run()
        world.clock.forward(30)
    assert world.sink.history == [good]
    assert [(row.attempts, row.error) for row in world.outbox.rows(SINK)] == [(3, "did not end")]
    assert len(world.observer.pauses) == 3


def test_a_run_tries_each_entry_once(world):
    class Slow(FakeSink):
        def deliver(self, entries):
            world.clock.forward(100)
            yield from super().deliver(entries)

    world.sink = Slow(SINK)
    looks = Looks(world, Plan())
    looks.collector.horizon = Horizon(0)
    looks.collector.round()
    world.write(REMOVAL, replace(REMOVAL, key="hpc_a/alice"))
    world.sink.down = Deferred("did not end", after_s=1.0)
    looks.courier.run()
    assert len(world.sink.calls) == 2
