"""The portal's orders and resources beside Slurm's accounts, as one observation for all flows of pull mode."""

import time
from collections.abc import Container, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from threading import Lock
from typing import Protocol

from msgspec.structs import replace

from cvagent.clients.accounts import SlurmAccounts
from cvagent.clients.portal_orders import PortalOrders
from cvagent.errors import Unreadable
from cvagent.model import Ask
from cvagent.model.orders import Order, Resource, ResourceState
from cvagent.model.tenancy import Failure, Tenancy

_LIVING = tuple(state for state in ResourceState if state is not ResourceState.TERMINATED)


class Held(Protocol):
    """What our own sinks hold."""

    def failures(self) -> Mapping[str, Failure]:
        """By order, what Slurm refused and why."""
        ...

    def shown(self) -> AbstractSet[str]:
        """Resources that CloudVision was told have nodes."""
        ...


class TenancySource:
    """A `ports.Source`. Flows that look within the same interval share one look, unless something was written since.

    Args:
        held: What our sinks hold that matters to orders.
        fresh_s: For so long a look may be shared, in seconds.

    Attributes:
        fresh_s: See there.
    """

    def __init__(self, portal: PortalOrders, slurm: SlurmAccounts, held: Held, fresh_s: float) -> None:
        self._portal = portal
        self._slurm = slurm
        self._held = held
        self.fresh_s = fresh_s
        self._looking = Lock()
        self._seen: tuple[float, int, Tenancy] | None = None
        self._writes = 0

    def observe(self, ask: Ask) -> Tenancy:
        """Ask the portal and Slurm. Raises SourceError when either does not answer."""
        with self._looking:
            # Asked for before the look: what Slurm refuses during it may not be needed any more.
            failures = self._held.failures()
            return replace(self._look(ask.now), failures=failures, shown=self._held.shown())

    def forget(self) -> None:
        """Something was written: the next flow looks anew."""
        self._writes += 1

    def _look(self, now: int) -> Tenancy:
        began, writes = time.monotonic(), self._writes
        if self._seen and self._seen[0] > began - self.fresh_s and self._seen[1] == writes:
            return self._seen[2]
        orders, resources = self._portal.orders(), self._portal.resources(_LIVING)
        listed = {resource.uuid: resource for resource in resources.items}
        seen = Tenancy(
            at=now,
            orders=orders.items,
            resources=listed | self._left_out(orders.items, listed),
            tree=self._slurm.tree(),
            keeps_allocations=self._portal.keeps_allocations,
            problems=orders.problems + resources.problems,
        )
        self._seen = (began, writes, seen)
        return seen

    def _left_out(self, orders: Iterable[Order], listed: Container[str]) -> dict[str, Resource]:
        """What orders are about and no list by state holds: a state that is not known here."""
        found: dict[str, Resource] = {}
        for uuid in {order.resource_uuid for order in orders}:
            if uuid and uuid not in listed:
                with suppress(Unreadable):  # the list said so
                    resource = self._portal.resource(uuid)
                    if resource and resource.state is not ResourceState.TERMINATED:
                        found[uuid] = resource
        return found
