"""Tenants: which nodes or interfaces an allocation has, as a sink is to be told."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from cvagent.model.jobs import State, utc
from cvagent.model.orders import Resource
from cvagent.model.tenancy import Tenancy

OBJECT = "cloudvision"
"""What the portal may say of a tenant's place is called so in a resource's metadata, attributes or options."""


class Places(NamedTuple):
    """What gives nodes to accounts: hostlists by account, from the places of Slurm's that name it.

    Attributes:
        reservations: Active ones that hold the account.
        partitions: Those that allow this account and no other.
        jobs: Of its running jobs.
    """

    reservations: Mapping[str, Sequence[str]] = {}
    partitions: Mapping[str, Sequence[str]] = {}
    jobs: Mapping[str, Sequence[str]] = {}


class TenantConfig(Struct, frozen=True, array_like=True, tag="tenant"):
    """What a sink is to know about one tenant: absolute, so that it may be sent again.

    Attributes:
        key: The resource's uuid; with `.<n>` behind it when it came back after its end.
        name: The account.
        nodes: In order; none when interfaces are told.
        interfaces: MACs; none when nodes are told.
        started_at: Epoch seconds of the first time it was RUNNING; it never changes.
    """

    key: str
    resource: str
    name: str
    state: State
    started_at: int
    nodes: tuple[str, ...]
    interfaces: tuple[str, ...] = ()
    ended_at: int | None = None

    @property
    def inferred(self) -> bool:
        """The portal says what became of it."""
        return False

    @property
    def identity(self) -> str:
        """The key."""
        return self.key

    @property
    def word(self) -> str:
        """Its state in a word."""
        return self.state.value

    def __str__(self) -> str:
        """One line for people."""
        where = f"{len(self.interfaces)} interfaces" if self.interfaces else ",".join(self.nodes)[:60]
        span = f"from {utc(self.started_at)}" + (f" to {utc(self.ended_at)}" if self.ended_at else "")
        return f"{self.name}  {where}  {span}"


class TenantsSeen(Struct, frozen=True):
    """All that a round saw of tenants.

    Attributes:
        ports: By node and interface name, the MAC, as far as nodes told; only where it is asked for.
        told: By key, what CloudVision was told in time gone by, beyond what the round is given as known.
        sought: Resources of known tenants that the portal's list leaves out, as it shows them when it is asked for
            each; None for what it does not know. Those it was not asked for, or could not show, are not here.
    """

    tenancy: Tenancy
    places: Places
    ports: Mapping[str, Mapping[str, str]] = {}
    told: Mapping[str, TenantConfig] = {}
    sought: Mapping[str, Resource | None] = {}
