"""The portal's orders and resources beside Slurm's accounts, as one observation for all flows of pull mode."""

import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from threading import Lock
from typing import Protocol

from msgspec.structs import replace

from cvagent.clients.accounts import SlurmAccounts
from cvagent.clients.portal_orders import PortalOrders
from cvagent.model import Ask
from cvagent.model.orders import ResourceState
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
        seen = Tenancy(
            at=now,
            orders=orders.items,
            resources={resource.uuid: resource for resource in resources.items},
            tree=self._slurm.tree(),
            keeps_allocations=self._portal.keeps_allocations,
            problems=orders.problems + resources.problems,
        )
        self._seen = (began, writes, seen)
        return seen
