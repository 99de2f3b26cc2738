"""The portal's state machine: orders, resources, allocations. Everything happens under one lock; no HTTP."""

import datetime as dt
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from cvagent.standin.log import Log
from cvagent.standin.portal.objects import (
    Allocation,
    Component,
    Order,
    Period,
    Person,
    Project,
    Refusal,
    Resource,
    Usage,
    new_uuid,
)

DIALECTS = ("order-items", "orders", "waldur")
OFFERING = "5eab0ca5e5e14f0a9a4d2d3f1f2a6c01"

# What an order does to its resource when it begins to execute, when it is done, and when it failed.
_BEGUN = {"Create": "Creating", "Update": "Updating", "Terminate": "Terminating", "Restore": "Creating"}
_DONE = {"Create": "OK", "Update": "OK", "Terminate": "Terminated", "Restore": "OK"}
_ERRED = {"Create": "Erred", "Update": "Erred", "Terminate": "OK", "Restore": "Terminated"}
# What the order that begins to execute makes of the allocation.
_SCHEDULED = {"Update": "update_scheduled", "Terminate": "deletion_scheduled"}
# From which states an allocation comes into another; from any where none is named.
_FROM = {
    "creating": {"creation_scheduled"},
    "updating": {"update_scheduled"},
    "update_scheduled": {"ok", "erred"},
    "deletion_scheduled": {"ok", "erred"},
    "deleting": {"deletion_scheduled"},
    "ok": None,
    "erred": None,
}

_T = TypeVar("_T", Order, Resource, Project, Person, Usage)


class Market(Log):
    """All state of one portal with one offering; it outlives its listener.

    Args:
        dialect: One of DIALECTS.
        token: See Log; so are the others.

    Attributes:
        offering: Its uuid.
        clock: May be replaced: the month of a usage is this clock's.
    """

    def __init__(self, dialect: str, token: str, faults: str = "", *, clock: Callable[[], float] = time.time) -> None:
        if dialect not in DIALECTS:
            raise ValueError(f"dialect {dialect!r} is none of {', '.join(DIALECTS)}")
        super().__init__(token, faults, clock=clock)
        self.dialect = dialect
        self.offering = OFFERING
        self.people: dict[str, Person] = {}
        self.projects: dict[str, Project] = {}
        self.components: dict[str, Component] = {}
        self.resources: dict[str, Resource] = {}
        self.orders: dict[str, Order] = {}
        self.usages: dict[str, Usage] = {}

    @property
    def allocates(self) -> bool:
        """Whether it keeps Slurm allocations of its own."""
        return self.dialect != "waldur"

    def month(self) -> str:
        """The billing month now.

        >>> Market("waldur", "t", clock=lambda: 0).month()
        '1970-01'
        """
        return self.now()[:7]

    def now(self) -> str:
        """RFC 3339."""
        return dt.datetime.fromtimestamp(self.clock(), dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

    def add_project(self, project: Project) -> Project:
        """Take in a project and its people."""
        with self.changed:
            self.projects[project.uuid] = project
            self.people.update({person.uuid: person for person in project.team})
            self.changed.notify_all()
        return project

    def create(self, project: Project, name: str, limits: dict[str, Any], **attributes: Any) -> Order:
        """A tenant orders an allocation."""
        with self.changed:
            wanted = {"name": name, **attributes}
            resource = Resource(name, project, {}, wanted, started=self.now())
            self.resources[resource.uuid] = resource
            return self._order("Create", resource, dict(limits))

    def change(self, resource: Resource, limits: dict[str, Any]) -> Order:
        """A tenant orders other limits."""
        return self._order_for(resource, "Update", {"OK", "Erred"}, dict(limits))

    def terminate(self, resource: Resource) -> Order:
        """A tenant gives an allocation back."""
        return self._order_for(resource, "Terminate", {"OK", "Erred"}, {})

    def restore(self, resource: Resource) -> Order:
        """A tenant wants it again. Today's dialect only."""
        if self.allocates:
            raise Refusal(409, {"detail": "this portal restores nothing"})
        return self._order_for(resource, "Restore", {"Terminated"}, dict(resource.limits))

    def change_plan(self, resource: Resource) -> None:
        """The resource has another plan from now on."""
        with self.changed:
            resource.past.append(Period(resource.period, resource.started, self.now()))
            resource.period, resource.started = new_uuid(), self.now()
            self.changed.notify_all()

    def approve(self, order: Order) -> None:
        """Someone takes the order: it executes."""
        with self.changed:
            self._must_be(order, "pending-provider")
            resource = order.resource
            if resource.allocation and order.type in _SCHEDULED:
                self._move(resource.allocation, _SCHEDULED[order.type])
            order.state = "executing"
            resource.state = _BEGUN[order.type]
            self.changed.notify_all()

    def reject(self, order: Order) -> None:
        """The provider declines the order."""
        with self.changed:
            self._must_be(order, "pending-provider")
            order.state = "rejected"
            if order.type == "Create":
                order.resource.state = "Terminated"
            self.changed.notify_all()

    def done(self, order: Order) -> None:
        """The provider has done what was ordered."""
        with self.changed:
            self._must_be(order, "executing")
            order.state = "done"
            order.resource.state = _DONE[order.type]
            if order.type != "Terminate" and order.limits is not None:
                order.resource.limits = dict(order.limits)
            self.changed.notify_all()

    def erred(self, order: Order, message: str, traceback: str) -> None:
        """The provider could not."""
        with self.changed:
            self._must_be(order, "executing")
            order.state, order.error_message, order.error_traceback = "erred", message, traceback
            order.resource.state = _ERRED[order.type]
            self.changed.notify_all()

    def move(self, resource: Resource, state: str) -> None:
        """The provider moves a Slurm allocation into a state."""
        if state not in _FROM:
            raise Refusal(400, {"state": [f'"{state}" is not a valid choice.']})
        with self.changed:
            self._move(self.allocation_of(resource), state)
            self.changed.notify_all()

    def allocation_of(self, resource: Resource) -> Allocation:
        """The Slurm allocation of a resource, which there is soon after its order began to execute."""
        if resource.allocation is None:
            raise Refusal(404, {"detail": "Not found."})
        return resource.allocation

    def allocate(self, orders: Iterable[Order]) -> None:
        """Make what allocations are due: the portal does so a moment after an order was looked at first."""
        with self.changed:
            for order in orders:
                if self.allocates and order.state == "executing" and order.resource.allocation is None:
                    order.resource.allocation = Allocation()

    def find(self, kept: dict[str, _T], uuid: str) -> _T:
        """One object by its uuid."""
        with suppress(KeyError):
            return kept[uuid.replace("-", "").lower()]
        raise Refusal(404, {"detail": "Not found."})

    def _order_for(self, resource: Resource, kind: str, states: set[str], limits: dict[str, Any]) -> Order:
        with self.changed:
            open_states = {"pending-provider", "executing"}
            under_way = any(order.resource is resource and order.state in open_states for order in self.orders.values())
            if resource.state not in states or under_way:
                raise Refusal(409, {"detail": f"a resource that is {resource.state} takes no such order now"})
            return self._order(kind, resource, limits)

    def _order(self, kind: str, resource: Resource, limits: dict[str, Any]) -> Order:
        attributes = dict(resource.attributes)
        if kind == "Update":
            attributes["old_limits"] = dict(resource.limits)
        order = Order(kind, "pending-provider", resource, limits, attributes)
        self.orders[order.uuid] = order
        self.changed.notify_all()
        return order

    @staticmethod
    def _move(allocation: Allocation, state: str) -> None:
        sources = _FROM[state]
        if sources is not None and allocation.state not in sources:
            raise Refusal(409, {"detail": f"an allocation that is {allocation.state} cannot become {state}"})
        allocation.state = state

    @staticmethod
    def _must_be(order: Order, state: str) -> None:
        if order.state != state:
            raise Refusal(409, {"detail": f"an order that is {order.state} is not {state}"})
