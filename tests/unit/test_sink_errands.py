"""The sinks of pull mode, in front of a cluster and a portal that answer what they are told to."""

import pytest
from tenancy import an_order

from cvagent.errors import Conflict, Permanent, Retryable, SourceError
from cvagent.model import Accepted, Deferred, Entry, Refused
from cvagent.model.errands import Commands, OrderAnswer, Verdict
from cvagent.model.orders import OrderState
from cvagent.sinks.portal_orders import OrderAnswers
from cvagent.sinks.slurm_accounts import AccountCommands

DOWN = Retryable("slurmdbd does not answer", everything=True)
REFUSED = Permanent("sacctmgr: no such thing")
HELD = Retryable("jobs are still active in it")
CONFLICT = Conflict("409: not now")
TIMED_OUT = Retryable("504", everything=True)


class Cluster:
    """Runs commands of one word: errors by that word."""

    def __init__(self, **errors):
        self.errors = errors
        self.ran = []

    def run(self, command):
        self.ran.append(command[0])
        if error := self.errors.get(command[0]):
            raise error


class Portal:
    """Takes what is posted, but for what `errors` names; `state` is that of every order, None of none."""

    def __init__(self, state=OrderState.EXECUTING, **errors):
        self.state = state
        self.errors = errors
        self.told = []

    def __getattr__(self, name):
        def tell(*arguments):
            if error := self.errors.get(name):
                raise error
            self.told.append((name, *arguments))

        return tell

    def order(self, uuid):
        del uuid
        if isinstance(self.state, Exception):
            raise self.state
        return self.state and an_order(state=self.state)


def entries(*words):
    """An entry for each text: its commands."""
    return [
        Entry(f"order-{number}", 1, Commands(f"order-{number}", "about", tuple((word,) for word in text.split())))
        for number, text in enumerate(words)
    ]


def delivered(sink, given):
    return {entry.key: outcome for entry, outcome in sink.deliver(given)}


def test_commands_run_in_their_order_and_what_fails_stops_no_other_entry():
    cluster, changed = Cluster(bad=REFUSED, busy=HELD), []
    sink = AccountCommands("slurm_accounts", cluster, lambda: changed.append(1))
    outcomes = delivered(sink, entries("a b", "c bad d", "busy e", "f", ""))
    assert cluster.ran == ["a", "b", "c", "bad", "busy", "f"]
    assert list(outcomes.values()) == [
        Accepted(),
        Refused("sacctmgr: no such thing"),
        Deferred("jobs are still active in it"),
        Accepted(),
        Accepted(),
    ]
    assert len(changed) == 5


def test_while_slurm_does_not_answer_nothing_more_is_tried():
    cluster = Cluster(down=DOWN)
    outcomes = delivered(AccountCommands("slurm_accounts", cluster, lambda: None), entries("a", "down", "b"))
    assert cluster.ran == ["a", "down"]
    assert [outcome == Accepted() for outcome in outcomes.values()] == [True, False, False]
    assert all(outcome.everything for outcome in list(outcomes.values())[1:])


def test_a_closed_sink_begins_nothing_more():
    cluster = Cluster()
    sink = AccountCommands("slurm_accounts", cluster, lambda: None)
    sink.close()
    (outcome,) = delivered(sink, entries("a")).values()
    assert outcome.everything
    assert cluster.ran == []


def said(portal, answer):
    (outcome,) = delivered(
        OrderAnswers(portal, portal.tell_last, lambda: None), [Entry(answer.key, 1, answer)]
    ).values()
    return outcome


def test_the_resource_hears_before_the_order():
    portal = Portal()
    assert said(portal, OrderAnswer("o", Verdict.DONE, "bert", "r", "hpc_x")) == Accepted()
    assert portal.told == [("set_backend_id", "r", "hpc_x"), ("set_allocation_state", "r", "ok"), ("set_done", "o")]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (OrderAnswer("o", Verdict.APPROVE, "bert"), [("approve", "o")]),
        (OrderAnswer("o", Verdict.DONE, "bert"), [("set_done", "o")]),
        (OrderAnswer("o", Verdict.DONE, "bert", ending="r"), [("tell_last", "r"), ("set_done", "o")]),
        (OrderAnswer("o", Verdict.ERRED, "bert", reason="why"), [("set_erred", "o", "why")]),
        (
            OrderAnswer("o", Verdict.ERRED, "bert", "r", reason="why"),
            [("set_allocation_state", "r", "erred"), ("set_erred", "o", "why")],
        ),
        (
            OrderAnswer("o", Verdict.ERRED, "bert", "r", reason="why", as_before=True),
            [("set_allocation_state", "r", "ok"), ("set_erred", "o", "why")],
        ),
        (OrderAnswer("o", Verdict.NOTHING, "bert"), []),
    ],
)
def test_each_verdict_is_told(answer, told):
    portal = Portal()
    assert said(portal, answer) == Accepted()
    assert portal.told == told


def test_an_allocation_that_cannot_move_holds_nothing_up():
    portal = Portal(set_allocation_state=CONFLICT)
    assert said(portal, OrderAnswer("o", Verdict.ERRED, "bert", "r", reason="why")) == Accepted()
    assert portal.told == [("set_erred", "o", "why")]


@pytest.mark.parametrize(
    ("verdict", "call", "state", "outcome"),
    [
        (Verdict.DONE, "set_done", OrderState.DONE, Accepted()),
        (Verdict.DONE, "set_done", None, Accepted()),
        (Verdict.DONE, "set_done", OrderState.EXECUTING, Deferred("409: not now")),
        (Verdict.DONE, "set_done", OrderState.CANCELED, Refused("409: not now")),
        (Verdict.APPROVE, "approve", OrderState.EXECUTING, Accepted()),
        (Verdict.APPROVE, "approve", OrderState.PENDING_PROVIDER, Deferred("409: not now")),
        (Verdict.ERRED, "set_erred", OrderState.ERRED, Accepted()),
        (Verdict.ERRED, "set_erred", OrderState.EXECUTING, Deferred("409: not now")),
        (Verdict.DONE, "set_done", SourceError("no answer"), Deferred("no answer")),
    ],
)
@pytest.mark.parametrize("error", [CONFLICT, Permanent("409: not now")])
def test_an_order_that_still_waits_for_an_answer_that_was_refused_is_told_again(verdict, call, state, outcome, error):
    assert said(Portal(state, **{call: error}), OrderAnswer("o", verdict, "bert")) == outcome


@pytest.mark.parametrize(
    ("error", "state", "outcome"),
    [
        (TIMED_OUT, SourceError("no answer"), Deferred("504", everything=True)),
        (TIMED_OUT, OrderState.EXECUTING, Deferred("504")),
        (TIMED_OUT, OrderState.DONE, Accepted()),
        (Retryable("429", after_s=9, everything=True), OrderState.EXECUTING, Deferred("429", 9, everything=True)),
        (Retryable("500"), OrderState.EXECUTING, Deferred("500")),
    ],
)
def test_a_portal_that_gives_no_answer_for_one_order_may_have_one_for_others(error, state, outcome):
    assert said(Portal(state, set_done=error), OrderAnswer("o", Verdict.DONE, "bert")) == outcome


def test_an_order_waits_for_the_last_usage():
    portal = Portal(tell_last=Retryable("no usage yet"))
    assert said(portal, OrderAnswer("o", Verdict.DONE, "bert", ending="r")) == Deferred("no usage yet")
    assert portal.told == []
