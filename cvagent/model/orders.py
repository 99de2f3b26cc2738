"""What the tenant portal says: orders, allocations and who is in them. The words are the portal's, in all its dialects.

A uuid is 32 hex digits in lower case, without hyphens. Limits are in the component's own unit.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct

_T = TypeVar("_T")


class OrderKind(Enum):
    """What an order wants."""

    CREATE = "Create"
    UPDATE = "Update"
    TERMINATE = "Terminate"
    RESTORE = "Restore"


class OrderState(Enum):
    """How far an order is. The portal approves only what is pending with the provider, and ends only what executes."""

    PENDING_PROJECT = "pending-project"
    PENDING_CONSUMER = "pending-consumer"
    PENDING_PROVIDER = "pending-provider"
    EXECUTING = "executing"
    DONE = "done"
    ERRED = "erred"
    CANCELED = "canceled"
    REJECTED = "rejected"


class ResourceState(Enum):
    """How an allocation stands at the portal."""

    CREATING = "Creating"
    OK = "OK"
    ERRED = "Erred"
    UPDATING = "Updating"
    TERMINATING = "Terminating"
    TERMINATED = "Terminated"


class Owner(NamedTuple):
    """A project and the customer it belongs to. A name is for people: any text, even none."""

    project_uuid: str
    project_name: str
    customer_uuid: str
    customer_name: str


class Order(Struct, frozen=True):
    """One order for one allocation.

    Attributes:
        name: What the tenant calls the allocation: any text.
        limits: The wanted amount by component (a TRES).
        resource_uuid: Of the resource, which the marketplace keeps.
        allocation_uuid: Of the portal's Slurm allocation, from which an account takes its name. None until the portal
            has made it, and in the dialect `waldur`, which has none: there the resource's own uuid stands for it.
        backend_id: The account's name; empty while there is none.
    """

    uuid: str
    kind: OrderKind
    state: OrderState
    name: str
    owner: Owner
    resource_uuid: str | None
    allocation_uuid: str | None
    limits: Mapping[str, Decimal] = {}
    backend_id: str = ""


class Resource(Struct, frozen=True):
    """One allocation as the marketplace keeps it.

    Attributes:
        uuid: Of the resource.
        name: What the tenant calls it: any text.
        state: None for one that is not known here: leave it alone.
        allocation_uuid: See Order.
        backend_id: The account's name; empty while there is none.
        limits: See Order.
        attributes: What the tenant chose when ordering; so are options. Never to be trusted.
        backend_metadata: What the provider wrote.
        paused: No job may start. None where the portal does not say; so is downscaled.
        downscaled: Jobs get as little as there is.
        restrict_member_access: None of its members may use it.
    """

    uuid: str
    name: str
    state: ResourceState | None
    owner: Owner
    allocation_uuid: str | None
    backend_id: str = ""
    limits: Mapping[str, Decimal] = {}
    attributes: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}
    backend_metadata: Mapping[str, Any] = {}
    paused: bool | None = None
    downscaled: bool | None = None
    restrict_member_access: bool = False


class TeamMember(Struct, frozen=True):
    """A person who may use an allocation.

    Attributes:
        uuid: Of the person.
        username: At the portal.
        offering_username: On the cluster, where the portal tells it with the team; empty where it does not.
    """

    uuid: str
    username: str
    offering_username: str = ""


class Username(NamedTuple):
    """A person's name on the cluster, from the offering's users or from FreeIPA."""

    person_uuid: str
    username: str


class Association(NamedTuple):
    """A user whom the portal believes to be in a Slurm allocation."""

    uuid: str
    username: str


class PlanPeriod(NamedTuple):
    """The span of a resource's plan to which usage is told.

    Attributes:
        start: RFC 3339, or empty: since ever.
        end: RFC 3339, or empty: until now.
        used: What it was told this month, by component.
    """

    uuid: str
    start: str
    end: str
    used: Mapping[str, Decimal] = {}


class KeptUsage(NamedTuple):
    """A figure that the portal keeps: of one component of one resource in one month.

    Attributes:
        type: The component's TRES.
        billing_period: The month's first day, such as 2026-03-01.
    """

    uuid: str
    type: str
    billing_period: str


class OfferingComponent(NamedTuple):
    """A component as the offering has it.

    Attributes:
        type: The TRES, such as cpu or gres/gpu.
        billing_type: usage or limit, as a rule.
    """

    uuid: str
    type: str
    name: str
    measured_unit: str
    billing_type: str


class Offering(NamedTuple):
    """What is on sale."""

    uuid: str
    name: str
    components: tuple[OfferingComponent, ...]


class Listing(Struct, Generic[_T], frozen=True):
    """What a list of the portal held.

    Attributes:
        items: What could be read.
        problems: A line for each item that could not: with any, an item that is not here is not gone.
    """

    items: tuple[_T, ...]
    problems: tuple[str, ...] = ()
