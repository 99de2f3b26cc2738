"""When to look: soon after the last of a burst, again while a job is not told of, and never too often."""

import itertools
import math

import pytest

from cvagent.model import Change, JobConfig, Plan, State
from cvagent.sources.agenda import CREDIT_S, FOLLOW_S, FOLLOWED, GAP_S, GATHER_MOST_S, GATHER_S, Agenda, Note
from cvagent.sources.notes import REST_S

# Slurm's rate limiter as it comes: so many requests at once, and so many a second in the long run.
BUCKET, REFILL = 30, 2

BEGAN, ENDED = Note(7, ends=False), Note(7, ends=True)


@pytest.fixture
def agenda():
    return Agenda()


def told(job_id, *, ended):
    state, end = (State.COMPLETED, 9) if ended else (State.RUNNING, None)
    return Plan(changes=[Change(None, JobConfig(f"{job_id}@lab", job_id, 0, state, 0, end, "name", "p", "n1"), "new")])


def look(agenda, plan=None, took_s=0.1, rest_s=0.0):
    """Has the next look, and returns when it began."""
    at = agenda.due()
    agenda.begin(at)
    assert agenda.due() == math.inf
    agenda.end(plan, at + took_s, rest_s)
    return at


def test_without_notes_there_is_no_reason_to_look(agenda):
    assert agenda.due() == math.inf


def test_one_note_is_looked_at_soon(agenda):
    agenda.add([BEGAN], 100)
    assert agenda.due() == pytest.approx(100 + GATHER_S)


def test_a_burst_is_looked_at_when_it_is_over(agenda):
    for tenth in range(3):
        agenda.add([Note(tenth + 1, ends=False)], 100 + tenth / 10)
    assert agenda.due() == pytest.approx(100.2 + GATHER_S)


def test_notes_without_end_do_not_put_a_look_off(agenda):
    for tenth in range(100):
        agenda.add([Note(tenth + 1, ends=False)], 100 + tenth / 10)
    assert agenda.due() == pytest.approx(100 + GATHER_MOST_S)


def test_a_job_that_was_told_of_is_looked_for_no_more(agenda):
    agenda.add([BEGAN], 100)
    look(agenda, told(7, ended=False))
    assert agenda.due() == math.inf


def test_an_end_is_not_told_by_a_start(agenda):
    agenda.add([BEGAN, ENDED], 100)
    look(agenda, told(7, ended=False))
    assert agenda.due() < math.inf
    look(agenda, told(7, ended=True))
    assert agenda.due() == math.inf


def test_a_job_that_is_not_told_of_is_looked_for_some_seconds(agenda):
    agenda.add([BEGAN], 100)
    looks = []
    while agenda.due() < math.inf:
        looks.append(look(agenda) - 100)
    assert looks == pytest.approx([0.15, 1.15, 2.3, 4.6, 9.2, 18.4])
    assert looks[-2] <= FOLLOW_S


def test_looks_are_a_second_apart_however_many_notes_come(agenda):
    looks = []
    for tenth in range(100):
        agenda.add([Note(tenth + 1, ends=False)], tenth / 10)
        while agenda.due() <= tenth / 10:
            looks.append(look(agenda))
    gaps = [after - before for before, after in itertools.pairwise(looks)]
    assert len(gaps) >= 7
    assert min(gaps) > GAP_S - 1e-9


def test_after_a_round_that_cost_much_slurm_is_left_alone(agenda):
    agenda.add([BEGAN], 100)
    look(agenda, took_s=3, rest_s=30)
    agenda.add([ENDED], 104)
    assert agenda.due() == pytest.approx(100 + GATHER_S + 3 + 30 - CREDIT_S)


def test_in_a_burst_looks_are_a_second_apart_although_answers_take_longer(agenda):
    agenda.add([BEGAN], 100)
    first = look(agenda, took_s=0.3, rest_s=2)
    assert look(agenda, took_s=0.3, rest_s=2) == pytest.approx(first + GAP_S)


def test_on_average_slurm_gets_all_its_rest(agenda):
    looks = []
    for second in range(300):
        agenda.add([BEGAN], second)
        while agenda.due() <= second:
            looks.append(look(agenda, took_s=0.3, rest_s=3))
    assert 300 / len(looks) == pytest.approx(3, rel=0.05)


def test_a_round_that_was_given_up_tells_of_nothing(agenda):
    agenda.add([BEGAN], 100)
    look(agenda, None)
    assert agenda.due() < math.inf


def test_an_empty_list_is_worth_one_look(agenda):
    agenda.add([], 100)
    look(agenda)
    assert agenda.due() == math.inf


def test_no_more_than_so_many_are_followed(agenda):
    agenda.add((Note(number, ends=False) for number in range(1, 3 * FOLLOWED)), 100)
    assert len(agenda._followed) == FOLLOWED
    assert agenda.due() == pytest.approx(100 + GATHER_S)


@pytest.mark.parametrize("commands", [1, 2])
def test_an_hour_of_notes_without_end_stays_within_slurms_rate_limit(agenda, commands):
    tokens, last = BUCKET, 100.0
    for number in itertools.count(1):
        agenda.add([Note(number, ends=False)], last)
        at = look(agenda, rest_s=commands * REST_S)
        # The interval's rounds, nodes and the bill ask beside: 2 requests each 30 s, and some.
        tokens = min(BUCKET, tokens + (REFILL - 0.1) * (at - last)) - 2 * commands
        assert tokens >= 0
        last = at
        if at > 100 + 3600:
            break
    assert number > 3600 / (commands * REST_S + GAP_S)
