"""Tells the portal what becomes of its orders."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from cvagent.clients.portal_orders import PortalOrders
from cvagent.errors import Permanent, Retryable, SourceError
from cvagent.model import Document, Entry, Outcome
from cvagent.model.errands import OrderAnswer, Verdict
from cvagent.model.orders import OrderState
from cvagent.sinks.one_by_one import OneByOne

# slurmctld tells slurmdbd of starts every five seconds. A job that ends before that stands there without its account.
_SETTLED_S = 6.0
# What an order is while it waits for what the portal is told, and what it may be afterwards.
_BEFORE = {
    Verdict.APPROVE: OrderState.PENDING_PROVIDER,
    Verdict.DONE: OrderState.EXECUTING,
    Verdict.ERRED: OrderState.EXECUTING,
}
_AFTER = {
    Verdict.APPROVE: set(OrderState) - {OrderState.PENDING_PROVIDER},
    Verdict.DONE: {OrderState.DONE},
    Verdict.ERRED: {OrderState.ERRED},
}


class OrderAnswers(OneByOne):
    """The sink `portal_orders`.

    Args:
        tell_last: Tells the usage of a resource that is about to end. Raises Retryable.
        changed: See OneByOne.
    """

    name = "portal_orders"

    def __init__(self, portal: PortalOrders, tell_last: Callable[[str], None], changed: Callable[[], None]) -> None:
        super().__init__(changed)
        self._tell_last = tell_last
        self._portal = portal
        self._decided: dict[str, float] = {}

    def deliver(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, Outcome]]:
        """See OneByOne."""
        self._decided = {entry.key: entry.changed_at for entry in entries}
        return super().deliver(entries)

    def write(self, document: Document) -> None:
        """See OneByOne."""
        if not isinstance(document, OrderAnswer):
            raise Permanent(f"{document.key} is no answer to an order")
        try:
            self._tell(document)
        except (Permanent, Retryable) as error:
            if self._closing.is_set() or not _is_doubtful(error):
                raise
            self._look_into(document, error)

    def _tell(self, answer: OrderAnswer) -> None:
        """The resource first: once the order is at its end, nobody would look again."""
        if answer.verdict is Verdict.APPROVE:
            self._portal.approve(answer.key)
        elif answer.verdict is Verdict.DONE:
            if answer.resource_uuid and answer.backend_id:
                self._portal.set_backend_id(answer.resource_uuid, answer.backend_id)
            self._set_allocation(answer, "ok")
            if answer.ending:
                self._await_accounting(answer.key)
                self._tell_last(answer.ending)
            self._portal.set_done(answer.key)
        elif answer.verdict is Verdict.ERRED:
            # Left as scheduled, it would take no other order.
            self._set_allocation(answer, "ok" if answer.as_before else "erred")
            self._portal.set_erred(answer.key, answer.reason)

    def _await_accounting(self, key: str) -> None:
        """Slurm showed the end before this was decided. Raises Retryable when the agent stops meanwhile."""
        left_s = self._decided[key] + _SETTLED_S - time.time()
        if self._closing.wait(min(max(0.0, left_s), _SETTLED_S)):
            raise Retryable("the last usage is not told yet: the agent stops", everything=True)

    def _set_allocation(self, answer: OrderAnswer, state: str) -> None:
        """There may be no allocation yet, and the order's own end may move it."""
        if answer.resource_uuid:
            with suppress(Permanent):
                self._portal.set_allocation_state(answer.resource_uuid, state)

    def _look_into(self, answer: OrderAnswer, failure: Permanent | Retryable) -> None:
        """Nothing is wrong with an order that is where it is to be, or gone. One that waits is told once more, later.

        Whatever the portal said: a proxy in front of one that is away says 404, too. Raises Retryable or Permanent.
        """
        try:
            order = self._portal.order(answer.key)
        except SourceError as error:
            raise failure if isinstance(failure, Retryable) else Retryable(str(error)) from None
        if order is None or order.state in _AFTER[answer.verdict]:
            return
        if order.state is _BEFORE[answer.verdict]:
            raise Retryable(str(failure))
        raise failure


def _is_doubtful(failure: Permanent | Retryable) -> bool:
    """Whether it may concern this order alone, whatever it says. Who asks for a pause means everybody."""
    return isinstance(failure, Permanent) or (failure.everything and failure.after_s is None)
