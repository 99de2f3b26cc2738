"""What a round of pull mode saw."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from msgspec import Struct

from cvagent.model.accounts import AccountTree
from cvagent.model.orders import Order, Resource, ResourceState

WITH_MEMBERS = frozenset({ResourceState.OK, ResourceState.UPDATING, ResourceState.ERRED})
"""In these states an allocation has users."""


class Failure(NamedTuple):
    """Commands of an order that Slurm refused.

    Attributes:
        commands: All that the order needed when they were decided.
        reason: In Slurm's words.
    """

    commands: tuple[tuple[str, ...], ...]
    reason: str


class Tenancy(Struct, frozen=True):
    """The portal's orders and resources beside Slurm's accounts.

    Attributes:
        at: Epoch seconds when asking began.
        orders: Those that wait for the provider or are executing.
        resources: By uuid, all that are not terminated.
        keeps_allocations: The portal makes a Slurm allocation for each order, from whose uuid the account is named.
        shown: Resources that CloudVision was told have nodes: before they end it must hear of that.
        failures: By order, what Slurm refused before the tree was read.
        problems: What could not be read, a line each.
    """

    at: int
    orders: Sequence[Order]
    resources: Mapping[str, Resource]
    tree: AccountTree
    keeps_allocations: bool
    shown: AbstractSet[str] = frozenset()
    failures: Mapping[str, Failure] = {}
    problems: Sequence[str] = ()


class Members(Struct, frozen=True):
    """Who may use which allocation.

    Attributes:
        teams: By resource, the names that its members have on the cluster, as far as they have any.
        unsure: Resources whose team could be read in part only: nobody has left it for sure.
        missed: By `account/user`, for somebody who is in the account and not in its team: in how many good readings of
            the team in a row they were missed. None, or 0, for whom it was not read since.
        strangers: Names to be added that the cluster's machine does not know as users (yet).
        problems: What could not be read, a line each.
    """

    tenancy: Tenancy
    teams: Mapping[str, AbstractSet[str]]
    unsure: AbstractSet[str] = frozenset()
    missed: Mapping[str, int] = {}
    strangers: AbstractSet[str] = frozenset()
    problems: Sequence[str] = ()
