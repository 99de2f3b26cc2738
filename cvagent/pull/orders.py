"""Decides what the portal is to hear about each order. An order is done when Slurm shows what it asks for.

An allocation that ends is CloudVision's to hear of first.
"""

from collections.abc import Iterator, Mapping

from cvagent.errors import Permanent
from cvagent.model import Change, Known, Plan
from cvagent.model.errands import OrderAnswer, Verdict
from cvagent.model.orders import Order, OrderKind, OrderState
from cvagent.model.tenancy import Tenancy
from cvagent.pull.accounts import AccountRules, account_of, commands_for


def plan_order_states(observed: Tenancy, known: Mapping[str, Known[OrderAnswer]], rules: AccountRules) -> Plan:
    """An answer for each order that waits for the provider, is done, or cannot be carried out."""
    answers = {answer.key: answer for order in observed.orders if (answer := _answer(order, observed, rules))}
    return Plan(
        changes=list(_changes(answers, known)),
        unchanged=len(observed.orders) - len(answers),
        problems=observed.problems,
    )


def _changes(answers: Mapping[str, OrderAnswer], known: Mapping[str, Known[OrderAnswer]]) -> Iterator[Change]:
    for key, answer in answers.items():
        before = known[key].document if key in known else None
        if before != answer:
            yield Change(before, answer, "changed" if before else "new")
    for key, item in known.items():
        if key not in answers and item.document.verdict is not Verdict.NOTHING:
            yield Change(item.document, OrderAnswer(key, Verdict.NOTHING, item.document.name), "ended")


def _answer(order: Order, observed: Tenancy, rules: AccountRules) -> OrderAnswer | None:
    if order.state is OrderState.PENDING_PROVIDER:
        return OrderAnswer(order.uuid, Verdict.APPROVE, order.name)
    if order.state is not OrderState.EXECUTING:
        return None
    if order.kind is OrderKind.TERMINATE and order.resource_uuid in observed.shown:
        return None
    try:
        commands = commands_for(order, observed, rules)
        if commands == ():
            return _done(order, observed, rules)
    except Permanent as error:
        return _erred(order, str(error))
    failure = observed.failures.get(order.uuid)
    # Where something else is needed by now, that is tried first.
    return _erred(order, failure.reason) if failure and failure.commands == commands else None


def _done(order: Order, observed: Tenancy, rules: AccountRules) -> OrderAnswer:
    if order.kind is OrderKind.TERMINATE:
        return OrderAnswer(order.uuid, Verdict.DONE, order.name, ending=order.resource_uuid)
    account = account_of(order, observed, rules) or ""
    return OrderAnswer(order.uuid, Verdict.DONE, order.name, order.resource_uuid, account)


def _erred(order: Order, reason: str) -> OrderAnswer:
    stays = order.kind is OrderKind.TERMINATE
    return OrderAnswer(order.uuid, Verdict.ERRED, order.name, order.resource_uuid, reason=reason, as_before=stays)
