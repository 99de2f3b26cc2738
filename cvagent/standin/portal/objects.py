"""What a portal keeps: plain records that change in place, under the market's lock."""

import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple


def new_uuid() -> str:
    """Make a uuid as the portal writes them."""
    return uuid.uuid4().hex


class Refusal(Exception):
    """The portal says no.

    Args:
        status: HTTP status.
        body: What it answers.
    """

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body


@dataclass
class Person:
    """Someone with an account at the portal.

    Attributes:
        cluster_username: The offering's user; empty while there is none.
    """

    username: str
    full_name: str
    cluster_username: str = ""
    uuid: str = field(default_factory=new_uuid)


@dataclass
class Customer:
    """Who pays."""

    name: str
    uuid: str = field(default_factory=new_uuid)


@dataclass
class Project:
    """What a customer pays for, and its people."""

    name: str
    customer: Customer
    team: list[Person] = field(default_factory=list)
    uuid: str = field(default_factory=new_uuid)


@dataclass
class Component:
    """A line of the price list."""

    type: str
    name: str = ""
    measured_unit: str = ""
    billing_type: str = "usage"
    uuid: str = field(default_factory=new_uuid)


@dataclass
class Allocation:
    """The older dialects' own record of a Slurm account.

    Attributes:
        state: creation_scheduled, creating, ok, update_scheduled, updating, deletion_scheduled, deleting or erred.
        members: Association's uuid by username.
    """

    state: str = "creation_scheduled"
    members: dict[str, str] = field(default_factory=dict)
    uuid: str = field(default_factory=new_uuid)


class Period(NamedTuple):
    """The span of a plan that a resource had; times are RFC 3339."""

    uuid: str
    started: str
    ended: str


@dataclass
class Resource:
    """An allocation as the marketplace sees it.

    Attributes:
        team: Whom the project's team is: None; or who may use it beside them.
        period: Uuid of its plan's period.
        started: RFC 3339, of that period.
        past: Periods of plans that it had before.
    """

    name: str
    project: Project
    limits: dict[str, Any]
    attributes: dict[str, Any]
    started: str
    state: str = "Creating"
    backend_id: str = ""
    allocation: Allocation | None = None
    options: dict[str, Any] = field(default_factory=dict)
    backend_metadata: Any = field(default_factory=dict)
    paused: bool = False
    downscaled: bool = False
    restrict_member_access: bool = False
    period: str = field(default_factory=new_uuid)
    past: list[Period] = field(default_factory=list)
    uuid: str = field(default_factory=new_uuid)


@dataclass
class Order:
    """What a tenant wants.

    Attributes:
        limits: None: those that the resource has.
    """

    type: str
    state: str
    resource: Resource
    limits: dict[str, Any] | None
    attributes: dict[str, Any]
    error_message: str = ""
    error_traceback: str = ""
    uuid: str = field(default_factory=new_uuid)


@dataclass
class Usage:
    """What one component of one resource used in one month.

    Attributes:
        month: Such as 2026-03.
        period: Uuid of the plan's period.
        users: Amount by username.
    """

    resource: Resource
    type: str
    month: str
    period: str
    amount: Decimal
    users: dict[str, Decimal] = field(default_factory=dict)
    uuid: str = field(default_factory=new_uuid)
