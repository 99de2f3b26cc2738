"""What is decided about jobs: tables of cases, no I/O."""

import re

import pytest
from fakes import a_document, an_observation, known_of
from msgspec.structs import replace

from cvagent.model import SEEN, Absence, Change, Identity, JobConfig, Known, Observation, Plan, Run, State
from cvagent.push.jobs import JobRules, plan_jobs

ANY = re.compile("")
RULES = JobRules("lab", name_filter=ANY, partition_filter=ANY)
NOW = 1000
NOTHING = Plan(changes=[], problems=[])
RUNNING = a_document("1@lab")
ENDED = replace(RUNNING, state=State.COMPLETED, ended_at=200)


def live(word="RUNNING", ended_at=None, job_id=1, submitted_at=100, started_at=110, **changes) -> Run:
    told = {"partition": "batch", "nodes": "node[1-2]", "name": "train", "restarts": 0} | changes
    return Run(Identity(job_id, submitted_at), word, started_at, ended_at, **told)


def told(word="COMPLETED", ended_at=200, **changes) -> Run:
    return live(word, ended_at, **({"restarts": None} | changes))


def plan(seen: Observation, *documents: JobConfig | Known, rules=RULES) -> Plan:
    known = [item if isinstance(item, Known) else Known(item) for item in documents]
    return plan_jobs(seen, {item.document.identity: item for item in known}, rules)


def afters(made: Plan) -> list[JobConfig]:
    return [change.after for change in made.changes]


def test_nothing_seen_and_nothing_known_is_an_empty_plan():
    assert plan(an_observation(NOW)) == NOTHING


def test_a_running_job_is_told():
    assert plan(an_observation(NOW, [live()])).changes == [Change(None, RUNNING, "new")]


def test_a_job_that_is_as_it_should_be_changes_nothing():
    made = plan(an_observation(NOW, [live()]), RUNNING)
    assert (made.changes, made.unchanged, made.absences) == ([], 1, {})


FINAL = [
    ("COMPLETED", State.COMPLETED),
    ("FAILED", State.FAILED),
    ("NODE_FAIL", State.FAILED),
    ("BOOT_FAIL", State.FAILED),
    ("OUT_OF_MEMORY", State.FAILED),
    ("DEADLINE", State.FAILED),
    ("TIMEOUT", State.FAILED),
    ("PREEMPTED", State.FAILED),
    ("LAUNCH_FAILED", State.FAILED),
    ("CANCELLED", State.CANCELLED),
    ("REVOKED", State.CANCELLED),
    ("REQUEUED", State.CANCELLED),
]
GOES_ON = ["RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"]
SILENT = ["PENDING", "CONFIGURING", "RESIZING", "SPECIAL_EXIT", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD"]


@pytest.mark.parametrize(("word", "state"), FINAL)
@pytest.mark.parametrize("known", [(), (RUNNING,)])
@pytest.mark.parametrize("run", [live, told])
def test_every_final_word_has_its_state(word, state, known, run):
    seen = {"live": [run(word, 200)]} if run is live else {"accounted": [run(word, 200)]}
    assert afters(plan(an_observation(NOW, **seen), *known)) == [replace(RUNNING, state=state, ended_at=200)]


@pytest.mark.parametrize("word", GOES_ON)
def test_a_job_that_goes_on_is_running(word):
    assert afters(plan(an_observation(NOW, [live(word)]))) == [RUNNING]
    assert afters(plan(an_observation(NOW, [live(word)]), RUNNING)) == []


@pytest.mark.parametrize("word", SILENT)
def test_words_that_say_nothing_yet_neither_begin_nor_end_a_job(word):
    assert plan(an_observation(NOW, [live(word)])) == NOTHING
    made = plan(an_observation(NOW, [live(word)]), Known(RUNNING, Absence(2, 900)))
    assert (made.changes, made.absences, made.problems) == ([], {"1@lab": SEEN}, [])


@pytest.mark.parametrize("seen", [{"live": [live("ODD_WORD")]}, {"accounted": [told("ODD_WORD", None)]}])
def test_an_unknown_word_leaves_the_job_as_it_is_and_is_named(seen):
    made = plan(an_observation(NOW, **seen), Known(RUNNING, Absence(2, 900)))
    assert (made.changes, made.absences) == ([], {"1@lab": SEEN})
    assert made.problems == ["job state 'ODD_WORD' is not known here: jobs in it stay as they are"]
    assert plan(an_observation(NOW, **seen)).changes == []


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(live("PENDING", None, started_at=None, nodes=""), id="pending"),
        pytest.param(live("RUNNING", None, nodes=""), id="no nodes yet"),
        pytest.param(live("COMPLETING", None, nodes="node2"), id="completing, its nodes already fewer"),
        pytest.param(told("CANCELLED", 150, started_at=None, nodes=""), id="cancelled while pending"),
        pytest.param(told("DEADLINE", 150, started_at=150, nodes=""), id="deadline before it started"),
        pytest.param(told("COMPLETED", None), id="over, and no end"),
        pytest.param(live("COMPLETED", None), id="over in squeue, and no end"),
        pytest.param(told("RUNNING", None, started_at=941), id="running in accounting alone: it began just now"),
        pytest.param(told("PENDING", None, started_at=None, nodes=""), id="pending in accounting alone"),
    ],
)
def test_what_is_not_reported(run):
    where = "accounted" if run.restarts is None else "live"
    assert plan(an_observation(NOW, **{where: [run]})).changes == []


@pytest.mark.parametrize(
    "run", [live("COMPLETED", None), live("COMPLETING", None, nodes=""), live("RUNNING", nodes="")]
)
def test_half_an_answer_about_a_known_run_leaves_it_as_it_is(run):
    made = plan(an_observation(NOW, [run]), RUNNING)
    assert (made.changes, made.absences) == ([], {})


def test_suspended_jobs_keep_their_nodes():
    assert plan(an_observation(NOW, [live("SUSPENDED")]), RUNNING).changes == []


def test_a_completing_job_keeps_the_nodes_it_had():
    shrunk = live("COMPLETING", nodes="node2")
    assert plan(an_observation(NOW, [shrunk]), RUNNING).changes == []
    made = plan(an_observation(NOW, [shrunk], [told(nodes="node[1-2]")]), RUNNING)
    assert afters(made) == [ENDED]


def test_the_end_in_accounting_wins_over_completing():
    assert afters(plan(an_observation(NOW, [live("COMPLETING")], [told("FAILED", 300)]), RUNNING)) == [
        replace(RUNNING, state=State.FAILED, ended_at=300)
    ]


def test_the_end_in_accounting_wins_over_slurmctlds():
    seen = an_observation(NOW, [live("FAILED", 301)], [told("TIMEOUT", 300)])
    assert afters(plan(seen, RUNNING)) == [replace(RUNNING, state=State.FAILED, ended_at=300)]


def test_slurmctlds_later_word_does_not_change_an_end():
    assert plan(an_observation(NOW, [live("COMPLETED", 201)]), ENDED).changes == []


def test_accounting_corrects_an_end():
    made = plan(an_observation(NOW, accounted=[told("CANCELLED", 205)]), ENDED)
    assert afters(made) == [replace(ENDED, state=State.CANCELLED, ended_at=205)]


@pytest.mark.parametrize("word", [*GOES_ON, "COMPLETING", *SILENT])
@pytest.mark.parametrize("document", [ENDED, replace(ENDED, inferred=True)])
def test_a_run_that_ended_is_never_set_back(word, document):
    seen = an_observation(NOW, [live(word)], [told(word, None)])
    assert plan(seen, document).changes == []


def test_a_resized_job_has_its_new_nodes_under_the_same_key():
    made = plan(an_observation(NOW, [live(nodes="node1")]), RUNNING)
    assert made.changes == [Change(RUNNING, replace(RUNNING, nodes="node1"), "changed")]


def test_a_job_that_began_again_for_slurmctld_has_its_new_start():
    assert afters(plan(an_observation(NOW, [live(started_at=112)]), RUNNING)) == [replace(RUNNING, started_at=112)]


def test_an_end_is_never_before_its_start():
    assert afters(plan(an_observation(NOW, accounted=[told(ended_at=105)]))) == [
        replace(RUNNING, state=State.COMPLETED, ended_at=110)
    ]


def test_a_name_that_accounting_mangled_does_not_replace_the_known_one():
    known = a_document(name='a "b"')
    assert afters(plan(an_observation(NOW, accounted=[told(name="a `b`")]), known))[0].name == 'a "b"'


def test_a_live_job_may_be_renamed_or_moved():
    made = plan(an_observation(NOW, [live(name="other", partition="gpu")]), RUNNING)
    assert afters(made) == [replace(RUNNING, name="other", partition="gpu")]


def test_array_tasks_and_het_components_are_jobs_of_their_own():
    runs = [live(job_id=18, nodes="node1"), live(job_id=19, nodes="node2"), told("FAILED", 200, job_id=20)]
    made = plan(an_observation(NOW, runs[:2], runs[2:]))
    assert sorted((after.key, after.nodes, after.state) for after in afters(made)) == [
        ("18@lab", "node1", State.RUNNING),
        ("19@lab", "node2", State.RUNNING),
        ("20@lab", "node[1-2]", State.FAILED),
    ]


SECOND = live(submitted_at=300, started_at=310, restarts=1)
SECOND_ROW = told("RUNNING", None, submitted_at=300, started_at=310)


@pytest.mark.parametrize("word", ["REQUEUED", "NODE_FAIL", "PREEMPTED"])
def test_a_requeued_job_ends_one_run_and_begins_another(word):
    state = State.CANCELLED if word == "REQUEUED" else State.FAILED
    made = plan(an_observation(NOW, [SECOND], [told(word, 300), told("RUNNING", None, submitted_at=300)]), RUNNING)
    assert {after.key: (after.state, after.started_at, after.ended_at) for after in afters(made)} == {
        "1@lab": (state, 110, 300),
        "1.1@lab": (State.RUNNING, 310, None),
    }


def keys(made: Plan) -> dict[int, str]:
    return {after.submitted_at: after.key for after in afters(made)}


def test_three_runs_that_are_all_new_are_numbered_in_their_order():
    accounted = [told("COMPLETED", 700, submitted_at=500, started_at=510), told("REQUEUED", 500, submitted_at=300)]
    made = plan(an_observation(NOW, accounted=[*accounted, told("REQUEUED", 300)]))
    assert keys(made) == {100: "1@lab", 300: "1.1@lab", 500: "1.2@lab"}


def test_a_first_run_that_ended_before_the_window_counts():
    seen = an_observation(NOW, [SECOND], [told("REQUEUED", 300), SECOND_ROW], since=400)
    assert keys(plan(seen)) == {300: "1.1@lab"}


def test_the_same_job_gets_the_same_key_whether_its_first_run_is_known_or_not():
    first = replace(RUNNING, state=State.CANCELLED, ended_at=300)
    seen = an_observation(NOW, [SECOND], [told("REQUEUED", 300), SECOND_ROW])
    assert keys(plan(seen, first)) == {300: "1.1@lab"}
    assert keys(plan(seen)) == {100: "1@lab", 300: "1.1@lab"}


def test_a_job_id_that_was_handed_out_twice_has_two_keys():
    seen = an_observation(NOW, [live(submitted_at=105, started_at=115)], [told("RUNNING", None)])
    assert keys(plan(seen, RUNNING)) == {105: "1.1@lab"}
    assert keys(plan(seen)) == {100: "1@lab", 105: "1.1@lab"}


def test_a_key_is_never_given_twice():
    stray = a_document("1.1@lab", submitted_at=900)
    assert keys(plan(an_observation(NOW, [SECOND, live(submitted_at=900)], [SECOND_ROW]), RUNNING, stray)) == {
        300: "1.2@lab"
    }


def test_a_restarted_run_waits_until_accounting_tells_of_the_run_before():
    assert plan(an_observation(400, [SECOND])) == plan(an_observation(40_000, [SECOND])) == NOTHING
    rows = [told("REQUEUED", 300), SECOND_ROW]
    assert keys(plan(an_observation(400, [SECOND], rows))) == {100: "1@lab", 300: "1.1@lab"}


def test_it_does_not_wait_for_a_run_that_accounting_never_had():
    assert keys(plan(an_observation(400, [SECOND], [told("RUNNING", None, submitted_at=300)]))) == {300: "1@lab"}


def test_without_accounting_the_restart_count_numbers_the_runs():
    seen = an_observation(NOW, [live(restarts=2)], accounting=False)
    assert keys(plan(seen)) == {100: "1.2@lab"}
    assert keys(plan(an_observation(NOW, [SECOND], accounting=False), RUNNING)) == {300: "1.1@lab"}


def test_without_accounting_slurmctld_tells_of_ends():
    seen = an_observation(NOW, [live("TIMEOUT", 200)], accounting=False)
    assert afters(plan(seen, RUNNING)) == [replace(RUNNING, state=State.FAILED, ended_at=200)]


def test_ends_before_the_window_are_old_news():
    seen = an_observation(NOW, [live("COMPLETED", 200)], [told("COMPLETED", 200, job_id=2)], since=300)
    assert plan(seen) == NOTHING


def test_ends_before_the_window_of_known_runs_are_news():
    seen = an_observation(NOW, [live("COMPLETED", 200)], [told("FAILED", 200, job_id=2)], since=300)
    made = plan(seen, RUNNING, a_document("2@lab"))
    assert {after.key: after.state for after in afters(made)} == {"1@lab": State.COMPLETED, "2@lab": State.FAILED}


@pytest.mark.parametrize(
    ("rules", "reported"),
    [
        ({}, True),
        ({"name_filter": re.compile("^tra")}, True),
        ({"name_filter": re.compile("^rain")}, False),
        ({"partition_filter": re.compile("batch|gpu")}, True),
        ({"partition_filter": re.compile("gpu")}, False),
    ],
)
def test_filters_choose_which_jobs_are_reported(rules, reported):
    chosen = replace(RULES, **rules)
    assert bool(plan(an_observation(NOW, [live()]), rules=chosen).changes) is reported


def test_a_run_that_is_followed_is_followed_to_its_end_whatever_the_filters_say():
    nothing = replace(RULES, name_filter=re.compile("^$"), partition_filter=re.compile("^$"))
    assert afters(plan(an_observation(NOW, accounted=[told()]), RUNNING, rules=nothing)) == [ENDED]
    assert plan(an_observation(NOW), RUNNING, rules=nothing).absences == {"1@lab": Absence(1, NOW)}


def test_a_lost_job_is_ended_after_some_good_observations_and_no_earlier():
    item = Known(RUNNING)
    for rounds, at in ((1, 1000), (2, 1010)):
        made = plan(an_observation(at), item)
        assert (made.changes, made.absences) == ([], {"1@lab": Absence(rounds, 1000)})
        item = Known(RUNNING, made.absences["1@lab"])
    made = plan(an_observation(1020), item)
    ended = replace(RUNNING, state=State.FAILED, ended_at=1000, inferred=True)
    assert made.changes == [Change(RUNNING, ended, "lost")]


@pytest.mark.parametrize("rounds", [1, 5])
def test_how_many_observations_it_takes_is_a_rule(rounds):
    rules = replace(RULES, absent_rounds=rounds)
    assert plan(an_observation(NOW), Known(RUNNING, Absence(rounds - 1, 900 if rounds > 1 else 0)), rules=rules).changes
    if rounds > 1:
        assert not plan(an_observation(NOW), Known(RUNNING, Absence(rounds - 2, 900)), rules=rules).changes


@pytest.mark.parametrize("seen", [[live()], [live("COMPLETING")], [live("RESIZING")], [live("PENDING")]])
def test_a_job_that_is_seen_again_starts_counting_anew(seen):
    assert plan(an_observation(NOW, seen), Known(RUNNING, Absence(2, 900))).absences == {"1@lab": SEEN}


def test_that_accounting_calls_it_running_is_no_sign_of_life():
    made = plan(an_observation(NOW, accounted=[told("RUNNING", None)]), Known(RUNNING, Absence(2, 900)))
    assert [(after.state, after.ended_at) for after in afters(made)] == [(State.FAILED, 900)]


def test_a_lost_run_ended_at_the_latest_when_its_job_was_submitted_anew():
    seen = an_observation(NOW, [live(submitted_at=500, started_at=510)], [told("RUNNING", None)])
    made = plan(seen, Known(RUNNING, Absence(2, 900)))
    assert {after.key: after.ended_at for after in afters(made)} == {"1@lab": 500, "1.1@lab": None}


def test_without_accounting_a_lost_job_is_taken_as_completed():
    made = plan(an_observation(NOW, accounting=False), Known(RUNNING, Absence(2, 900)))
    assert [(after.state, after.inferred) for after in afters(made)] == [(State.COMPLETED, True)]


def test_the_end_that_accounting_names_later_replaces_the_inferred_one():
    inferred = replace(RUNNING, state=State.FAILED, ended_at=900, inferred=True)
    for seen in ({"accounted": [told()]}, {"live": [live("COMPLETED", 200)]}):
        assert afters(plan(an_observation(NOW, **seen), inferred)) == [ENDED]


def test_an_inferred_end_stays_while_nobody_knows_better():
    inferred = replace(RUNNING, state=State.FAILED, ended_at=900, inferred=True)
    assert plan(an_observation(NOW, accounted=[told("RUNNING", None)]), inferred) == NOTHING


@pytest.mark.parametrize("word", ["RUNNING", "SUSPENDED"])
def test_a_runaway_that_the_store_does_not_know_is_told_as_ended(word):
    """An agent whose store was lost may have told of it before."""
    runaway = told(word, None)
    ended = replace(RUNNING, state=State.FAILED, ended_at=NOW, inferred=True)
    assert plan(an_observation(NOW, accounted=[runaway])).changes == [Change(None, ended, "lost")]
    again = live(submitted_at=305, started_at=315)
    made = plan(an_observation(NOW, [again], [runaway]))
    assert {after.key: after.ended_at for after in afters(made)} == {"1@lab": 305, "1.1@lab": None}


@pytest.mark.parametrize(
    ("seen", "rules"),
    [
        ({"live": [live("SUSPENDED")]}, {}),
        ({"live": [live("COMPLETING", nodes="")]}, {}),
        ({"since": 111}, {}),
        ({}, {"name_filter": re.compile("^$")}),
    ],
)
def test_what_slurmctld_holds_or_began_long_ago_or_nobody_wants_is_no_runaway(seen, rules):
    made = plan(an_observation(NOW, accounted=[told("RUNNING", None)], **seen), rules=replace(RULES, **rules))
    assert [after for after in afters(made) if after.ended_at] == []


def test_many_runaways_at_once_are_withheld():
    """A slurmctld that shows nothing at all may have its reasons."""
    made = plan(an_observation(NOW, accounted=[told("RUNNING", None, job_id=job) for job in range(1, 12)]))
    assert (made.changes, len(made.refused)) == ([], 11)
    running = [live(job_id=job) for job in range(100, 140)]
    made = plan(an_observation(NOW, running, [told("RUNNING", None, job_id=job) for job in range(1, 12)]))
    assert (len(made.changes), made.refusal) == (51, None)


def lost(count: int, of: int) -> tuple[Observation, list[Known]]:
    documents = [a_document(f"{number}@lab") for number in range(1, of + 1)]
    seen = an_observation(NOW, [live(job_id=number) for number in range(count + 1, of + 1)])
    return seen, [Known(document, Absence(2, 900)) for document in documents]


@pytest.mark.parametrize(("count", "of", "withheld"), [(10, 10, False), (3, 11, False), (4, 11, True), (11, 11, True)])
def test_a_plan_that_would_end_a_large_share_refuses_to(count, of, withheld):
    seen, known = lost(count, of)
    made = plan(seen, *known)
    assert len(made.refused) == (count if withheld else 0)
    assert len(made.changes) == (0 if withheld else count)
    assert ("--force" in (made.refusal or "")) is withheld


def test_the_refusal_withholds_nothing_else():
    seen, known = lost(11, 11)
    seen = replace(seen, live={run.identity: run for run in [live(job_id=99)]})
    made = plan(seen, *known)
    assert [after.key for after in afters(made)] == ["99@lab"]
    assert set(made.absences.values()) == {Absence(3, 900)}


def test_force_lets_it():
    seen, known = lost(11, 11)
    made = plan(seen, *known, rules=replace(RULES, force=True))
    assert (len(made.changes), made.refused, made.refusal) == (11, (), None)


def test_ends_that_slurm_tells_are_never_withheld():
    _, known = lost(11, 11)
    made = plan(an_observation(NOW, accounted=[told(job_id=number) for number in range(1, 12)]), *known)
    assert (len(made.changes), made.refusal) == (11, None)


def test_the_same_observation_twice_changes_nothing_the_second_time():
    seen = an_observation(NOW, [SECOND, live(job_id=2)], [told("REQUEUED", 300), told(job_id=3)])
    assert plan(seen, *known_of(*afters(plan(seen))).values()).changes == []


def test_a_run_of_which_accounting_has_half_a_record_is_not_lost():
    seen = replace(an_observation(NOW), unfinished=frozenset({RUNNING.identity}))
    made = plan(seen, Known(RUNNING, Absence(2, 900)))
    assert (made.changes, made.absences) == ([], {"1@lab": SEEN})


def test_a_cluster_without_accounting_is_told_apart():
    assert plan(an_observation(NOW)).note is None
    assert "keeps no accounting" in plan(replace(an_observation(NOW), accounting=False)).note
