"""From what Slurm's commands print to one observation."""

import pytest
from fakes import FakeSlurm, Record, a_document, known_of

from cvagent.clients.slurm import Slurm
from cvagent.errors import CommandFailed, SourceError, Unreadable
from cvagent.model import Ask, Identity, State
from cvagent.sources.slurm_jobs import SlurmJobs

SINCE, NOW = 10_000, 10_600
RUNNING = Record(1, "RUNNING", 9_000, 9_010, nodes="node[1-2]")
ENDED = Record(2, "COMPLETED", 10_100, 10_110, 10_200, "node3")


def source_of(*, live=(), accounted=(), accounting=True) -> tuple[SlurmJobs, FakeSlurm]:
    fake = FakeSlurm(live, accounted, accounting=accounting)
    return SlurmJobs(Slurm(fake, timeout_s=10)), fake


def ask(*documents, since=SINCE, now=NOW, cold=False) -> Ask:
    return Ask(now=now, since=since, known=known_of(*documents), cold=cold)


def document_of(job: Record, **changes):
    return a_document(
        f"{job.job_id}@lab", **({"submitted_at": job.submitted_at, "started_at": job.started_at} | changes)
    )


def asked_ids(fake: FakeSlurm) -> list[str]:
    return [command[command.index("-j") + 1] for command in fake.asked("sacct") if "-j" in command]


def test_an_idle_cluster_is_an_empty_observation():
    source, _ = source_of()
    seen = source.observe(ask())
    assert (seen.live, seen.accounted, seen.earlier) == ({}, {}, {})
    assert (seen.at, seen.since, seen.accounting) == (NOW, SINCE, True)


@pytest.mark.parametrize("program", ["scontrol", "squeue", "sacct"])
@pytest.mark.parametrize(("answer", "error"), [("no answer", CommandFailed), (b"garbage", Unreadable)])
def test_one_question_without_an_answer_is_no_observation(program, answer, error):
    source, fake = source_of(live=[RUNNING], accounted=[ENDED])
    fake.broken[program] = answer
    with pytest.raises(error):
        source.observe(ask())
    fake.broken.clear()
    assert set(source.observe(ask()).live) == {Identity(1, 9_000)}


def test_a_question_by_id_without_an_answer_is_no_observation():
    source, fake = source_of()
    source.observe(ask())
    fake.broken["sacct"] = "Connection refused"
    with pytest.raises(SourceError):
        source.observe(ask(document_of(RUNNING)))


def test_live_and_ended_runs_come_together():
    source, _ = source_of(live=[RUNNING], accounted=[ENDED])
    seen = source.observe(ask())
    assert [(run.word, run.ended_at) for run in seen.live.values()] == [("RUNNING", None)]
    assert [(run.word, run.ended_at) for run in seen.accounted.values()] == [("COMPLETED", 10_200)]


def test_the_window_reaches_a_little_ahead_as_clocks_differ():
    source, fake = source_of(accounted=[ENDED._replace(ended_at=NOW + 59)])
    assert set(source.observe(ask()).accounted) == {Identity(2, 10_100)}
    assert fake.asked("sacct")[0][-6:-2] == ["-S", "uts10000", "-E", "uts10660"]


def test_a_cold_start_looks_at_all_states():
    runaway = Record(7, "RUNNING", 9_000, 9_010, nodes="node1")
    source, fake = source_of(accounted=[runaway])
    assert set(source.observe(ask(cold=True)).accounted) == {Identity(7, 9_000)}
    assert "-s" not in fake.asked("sacct")[0]


def test_an_idle_round_asks_squeue_once_and_sacct_once():
    source, fake = source_of(live=[RUNNING], accounted=[RUNNING])
    source.observe(ask(document_of(RUNNING)))
    fake.commands.clear()
    source.observe(ask(document_of(RUNNING)))
    assert [command[0] for command in fake.commands] == ["squeue", "sacct"]


def test_the_configuration_is_asked_for_once_an_hour():
    source, fake = source_of()
    for now in (NOW, NOW + 3600, NOW + 3601):
        source.observe(ask(now=now))
    assert len(fake.asked("scontrol")) == 2


def test_a_change_of_accounting_is_noticed():
    source, fake = source_of()
    assert source.observe(ask()).accounting
    fake.accounting = False
    assert not source.observe(ask(now=NOW + 3601)).accounting


def test_without_accounting_sacct_is_never_asked():
    source, fake = source_of(live=[RUNNING], accounting=False)
    seen = source.observe(ask(document_of(Record(9, "RUNNING", 1, 2)), cold=True))
    assert (set(seen.live), seen.accounted, seen.accounting) == ({Identity(1, 9_000)}, {}, False)
    assert fake.asked("sacct") == []


@pytest.mark.parametrize(
    ("name", "live", "accounted", "changes", "asked"),
    [
        ("running", [RUNNING], [RUNNING], {}, []),
        ("gone", [], [RUNNING], {}, ["1"]),
        ("completing", [RUNNING._replace(state="COMPLETING")], [RUNNING], {}, ["1"]),
        ("ended in squeue", [RUNNING._replace(state="FAILED", ended_at=10_300)], [RUNNING], {}, []),
        ("ended in sacct", [], [RUNNING._replace(state="FAILED", ended_at=10_300)], {}, []),
        ("ended before the window", [], [RUNNING._replace(state="FAILED", ended_at=9_500)], {}, ["1"]),
        ("ended by inference", [], [RUNNING], {"ended_at": 10_000, "inferred": True}, ["1"]),
        ("ended", [], [RUNNING], {"ended_at": 10_000, "state": State.FAILED}, []),
    ],
)
def test_what_a_sink_shows_as_running_is_found_or_asked_for(name, live, accounted, changes, asked):  # noqa: ARG001
    source, fake = source_of(live=live, accounted=accounted)
    source.observe(ask(document_of(RUNNING, **changes)))
    assert asked_ids(fake) == asked


def test_all_that_is_open_is_asked_for_in_one_call():
    source, fake = source_of()
    source.observe(ask(*(document_of(RUNNING._replace(job_id=number)) for number in (3, 1, 2))))
    assert asked_ids(fake) == ["1,2,3"]


FIRST = Record(5, "REQUEUED", 8_000, 8_010, 9_000, "node1")
SECOND = Record(5, "RUNNING", 9_000, 10_010, None, "node2", restarts=1)


def test_the_runs_before_a_restarted_one_are_asked_for_once():
    source, fake = source_of(live=[SECOND], accounted=[FIRST, SECOND])
    for _ in range(3):
        assert source.observe(ask()).earlier == {5: (8_000, 9_000)}
    assert asked_ids(fake) == ["5"]


def test_they_are_asked_for_again_when_the_question_failed():
    source, fake = source_of(live=[SECOND], accounted=[FIRST, SECOND])
    fake.broken["sacct"] = "Connection refused"
    with pytest.raises(SourceError):
        source.observe(ask())
    fake.broken.clear()
    assert source.observe(ask()).earlier == {5: (8_000, 9_000)}


def test_they_are_asked_for_until_accounting_knows_the_run_itself():
    source, fake = source_of(live=[SECOND], accounted=[])
    assert source.observe(ask()).earlier == {}
    fake.accounted = [FIRST, SECOND]
    assert source.observe(ask()).earlier == {5: (8_000, 9_000)}


def test_a_run_that_came_and_went_unseen_is_numbered_by_all_before_it():
    """Only the last two of four are in the window, and the last but one is known."""
    runs = [FIRST._replace(submitted_at=at, started_at=at + 10, ended_at=at + 500) for at in (8_000, 8_500, 9_600)]
    last = Record(5, "COMPLETED", 10_100, 10_110, 10_200, "node1")
    source, _ = source_of(accounted=[*runs, last])
    seen = source.observe(ask(document_of(runs[2], ended_at=10_100)))
    assert seen.earlier == {5: (8_000, 8_500, 9_600, 10_100)}


def test_a_job_id_that_was_handed_out_twice_shows_both():
    runaway = Record(6, "RUNNING", 9_900, 9_901, nodes="node1")
    again = Record(6, "RUNNING", 10_000, 10_001, nodes="node2")
    source, _ = source_of(live=[again], accounted=[runaway, again])
    assert source.observe(ask()).earlier == {6: (9_900, 10_000)}


def test_a_long_list_of_new_runs_is_not_asked_for_at_a_cold_start():
    source, fake = source_of(live=[RUNNING], accounted=[RUNNING, ENDED])
    source.observe(ask(since=8_000, cold=True))
    assert asked_ids(fake) == []


def test_at_a_cold_start_runs_that_began_before_the_window_may_be_restarts():
    source, fake = source_of(live=[SECOND], accounted=[FIRST, SECOND, ENDED._replace(submitted_at=9_500)])
    assert source.observe(ask(cold=True)).earlier[5] == (8_000, 9_000)
    assert asked_ids(fake) == ["2,5"]


SMALL = Record(8, "RESIZING", 9_000, 9_010, 9_800, "node[1-4]")
LARGE = Record(8, "COMPLETED", 9_800, 9_800, 10_300, "node[1-2]")


@pytest.mark.parametrize("known", [(), (document_of(SMALL),)])
@pytest.mark.parametrize("since", [9_000, 9_900])
def test_a_resized_run_is_one_run_with_its_first_start(since, known):
    source, _ = source_of(accounted=[SMALL, LARGE])
    [run] = source.observe(ask(*known, since=since)).accounted.values()
    assert (run.identity, run.word, run.started_at, run.ended_at, run.nodes) == (
        Identity(8, 9_000),
        "COMPLETED",
        9_010,
        10_300,
        "node[1-2]",
    )


def test_a_run_that_was_resized_and_goes_on_has_not_ended():
    live = Record(8, "RUNNING", 9_000, 9_010, nodes="node[1-2]")
    source, _ = source_of(live=[live], accounted=[SMALL, LARGE._replace(state="RUNNING", ended_at=None)])
    seen = source.observe(ask(document_of(SMALL), since=9_700))
    assert [run.ended_at for run in seen.accounted.values()] == [None]
    assert seen.live[Identity(8, 9_000)].nodes == "node[1-2]"


def test_resized_twice_then_requeued():
    rows = [
        SMALL,
        Record(8, "RESIZING", 9_800, 9_800, 9_900, "node[1-3]"),
        Record(8, "REQUEUED", 9_900, 9_900, 10_000, "node[1-2]"),
        Record(8, "COMPLETED", 10_000, 10_200, 10_300, "node9"),
    ]
    source, _ = source_of(accounted=rows)
    seen = source.observe(ask(since=9_850))
    assert {(run.identity, run.word, run.started_at, run.ended_at) for run in seen.accounted.values()} == {
        (Identity(8, 9_000), "REQUEUED", 9_010, 10_000),
        (Identity(8, 10_000), "COMPLETED", 10_200, 10_300),
    }
    assert seen.earlier == {8: (9_000, 10_000)}


def test_one_run_that_is_told_twice_is_told_with_its_end():
    """By window and by id, and it ended in between."""
    over = RUNNING._replace(state="FAILED", ended_at=10_500)
    source, _ = source_of(accounted=[over, RUNNING])
    [run] = source.observe(ask(cold=True)).accounted.values()
    assert run.ended_at == 10_500


def test_some_jobs_can_be_asked_for_whatever_their_age():
    source, fake = source_of(live=[RUNNING, SECOND], accounted=[FIRST, SECOND, ENDED])
    seen = source.observe_jobs(ask(), {5})
    assert set(seen.live) == {Identity(5, 9_000)}
    assert set(seen.accounted) == {Identity(5, 8_000), Identity(5, 9_000)}
    assert asked_ids(fake) == ["5"]


def test_half_a_record_is_waited_for():
    """Just after the end of a job accounting may have a part of it, without partition and with its first node only."""
    half = ENDED._replace(partition="", ended_at=NOW - 300)
    source, _ = source_of(accounted=[half])
    assert source.observe(ask()).accounted == {}
    [run] = source.observe(ask(now=NOW + 1)).accounted.values()
    assert (run.ended_at, run.nodes) == (NOW - 300, "")


YOUNG = Record(7, "RUNNING", 10_550, 10_555, nodes="node1")


def test_what_accounting_alone_calls_running_is_asked_for_until_it_is_known_or_old():
    source, fake = source_of(accounted=[YOUNG])
    source.observe(ask(cold=True))
    assert set(source.observe(ask()).accounted) == {Identity(7, 10_550)}
    assert asked_ids(fake) == ["7"]
    source.observe(ask(document_of(YOUNG, ended_at=10_600)))
    source.observe(ask(document_of(YOUNG, ended_at=10_600)))
    assert asked_ids(fake) == ["7", "7"]


def test_a_runaway_that_began_before_the_window_is_left_alone():
    source, fake = source_of(accounted=[YOUNG])
    source.observe(ask(cold=True, since=10_556))
    source.observe(ask(since=10_556))
    assert asked_ids(fake) == ["7"]


def test_half_a_record_is_neither_an_end_nor_a_loss():
    """slurmdbd may show a job as ended, with its first node and no partition, for some seconds after the end."""
    half = Record(1, "COMPLETED", 9_000, 9_010, NOW - 1, "node1", partition="")
    source, fake = source_of(accounted=[half])
    seen = source.observe(ask(document_of(RUNNING)))
    assert seen.accounted == {}
    assert seen.unfinished == {Identity(1, 9_000)}
    assert asked_ids(fake) == ["1"]


def test_a_record_that_stays_half_counts_after_some_minutes():
    half = Record(1, "COMPLETED", 9_000, 9_010, NOW - 301, "node1", partition="")
    source, _ = source_of(accounted=[half])
    seen = source.observe(ask(document_of(RUNNING)))
    assert seen.accounted[Identity(1, 9_000)].ended_at == NOW - 301
    assert seen.accounted[Identity(1, 9_000)].nodes == ""
