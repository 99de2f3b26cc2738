"""Reads the portal's objects, which gain fields, states and nulls over time: what is not needed may be anything."""

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, TypeVar

from msgspec import Struct

from cvagent.errors import Unreadable
from cvagent.model.orders import (
    Association,
    KeptUsage,
    Listing,
    Offering,
    OfferingComponent,
    Order,
    OrderKind,
    OrderState,
    Owner,
    PlanPeriod,
    Resource,
    ResourceState,
    TeamMember,
    Username,
)

_MAX_SHOWN = 60
_UUID = re.compile(r"[0-9a-f]{32}")

Raw = Mapping[str, Any]
# Records, never texts.
_T = TypeVar("_T", bound=Struct | tuple[Any, ...])
_E = TypeVar("_E", bound=Enum)


def listing(raws: Iterable[Any], read: Callable[[Raw], _T], what: str) -> Listing[_T]:
    """Read each of a list; one that cannot be read is a problem and spoils no other.

    Args:
        raws: As they came.
        read: Raises ValueError.
        what: Names one of them, for the problem.
    """
    found = [_read(raw, read, what) for raw in raws]
    problems = tuple(one for one in found if isinstance(one, str))
    return Listing(tuple(one for one in found if not isinstance(one, str)), problems)


def one(raw: Any, read: Callable[[Raw], _T], what: str) -> _T:
    """Read one; see `listing`. Raises Unreadable."""
    found = _read(raw, read, what)
    if isinstance(found, str):
        raise Unreadable(found)
    return found


def _read(raw: Any, read: Callable[[Raw], _T], what: str) -> _T | str:
    """What was read, or a line that says why it could not be."""
    if not isinstance(raw, dict):
        return f"{what} {_shown(raw)}: is no object"
    try:
        return read(raw)
    except ValueError as error:
        return f"{what} {_shown(raw.get('uuid'))}: {error}"


def order(raw: Raw) -> Order:
    """Read an order. Raises ValueError."""
    attributes = _mapping(raw, "attributes")
    return Order(
        uuid=_uuid(raw, "uuid"),
        kind=_word(raw, "type", OrderKind),
        state=_word(raw, "state", OrderState),
        name=_text(attributes, "name") or _text(raw, "resource_name"),
        owner=_owner(raw),
        resource_uuid=_uuid_or_none(raw, "marketplace_resource_uuid"),
        allocation_uuid=_uuid_or_none(raw, "resource_uuid"),
        limits=_limits(raw),
        backend_id=_text(raw, "backend_id"),
    )


def resource(raw: Raw) -> Resource:
    """Read a resource. Raises ValueError."""
    return Resource(
        uuid=_uuid(raw, "uuid"),
        name=_text(raw, "name"),
        state=_resource_state(raw),
        owner=_owner(raw),
        allocation_uuid=_uuid_or_none(raw, "resource_uuid"),
        backend_id=_text(raw, "backend_id"),
        limits=_limits(raw),
        attributes=_mapping(raw, "attributes"),
        options=_mapping(raw, "options"),
        backend_metadata=_mapping(raw, "backend_metadata"),
        paused=_told(raw, "paused"),
        downscaled=_told(raw, "downscaled"),
        restrict_member_access=raw.get("restrict_member_access") is True,
    )


def member(raw: Raw) -> TeamMember:
    """Read a member of a team. Raises ValueError."""
    return TeamMember(_uuid(raw, "uuid"), _text(raw, "username"), _text(raw, "offering_user_username"))


def username(raw: Raw) -> Username:
    """Read an offering's user or a FreeIPA profile. Raises ValueError."""
    return Username(_uuid(raw, "user_uuid"), _text(raw, "username"))


def association(raw: Raw) -> Association:
    """Read an association of an allocation. Raises ValueError."""
    return Association(_uuid(raw, "uuid"), _text(raw, "username"))


def plan_period(raw: Raw) -> PlanPeriod:
    """Read a period of a resource's plan. Raises ValueError."""
    found = raw.get("components")
    told = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    used = {_text(one, "type"): amount(one.get("usage") or 0, "its usage") for one in told}
    return PlanPeriod(_uuid(raw, "uuid"), _text(raw, "start"), _text(raw, "end"), used)


def kept_usage(raw: Raw) -> KeptUsage:
    """Read a figure that the portal keeps. Raises ValueError."""
    return KeptUsage(_uuid(raw, "uuid"), _text(raw, "type"), _text(raw, "billing_period"))


def offering(raw: Raw) -> Offering:
    """Read an offering; components without a type are passed over. No list is not an empty one. Raises ValueError."""
    listed = [_component(one) for one in _list(raw, "components") if isinstance(one, dict)]
    return Offering(_uuid(raw, "uuid"), _text(raw, "name"), tuple(one for one in listed if one.type))


def _component(raw: Raw) -> OfferingComponent:
    return OfferingComponent(*(_text(raw, field) for field in OfferingComponent._fields))


def _owner(raw: Raw) -> Owner:
    return Owner(
        project_uuid=_uuid(raw, "project_uuid"),
        project_name=_text(raw, "project_name"),
        customer_uuid=_uuid(raw, "customer_uuid"),
        customer_name=_text(raw, "customer_name"),
    )


def _uuid(raw: Raw, field: str) -> str:
    text = str(raw.get(field) or "").replace("-", "").lower()
    if not _UUID.fullmatch(text):
        raise ValueError(f"its {field} is {_shown(raw.get(field))}, which is no uuid")
    return text


def _uuid_or_none(raw: Raw, field: str) -> str | None:
    return _uuid(raw, field) if raw.get(field) else None


def _text(raw: Raw, field: str) -> str:
    """A text; empty for null and for what is no text."""
    value = raw.get(field)
    return value if isinstance(value, str) else ""


def _told(raw: Raw, field: str) -> bool | None:
    """Yes or no; None for null and for what is neither."""
    value = raw.get(field)
    return value if isinstance(value, bool) else None


def _mapping(raw: Raw, field: str) -> Raw:
    value = raw.get(field)
    return value if isinstance(value, dict) else {}


def _list(raw: Raw, field: str) -> list[Any]:
    value = raw.get(field)
    if isinstance(value, list):
        return value
    raise ValueError(f"its {field} are {_shown(value)}, which is no list")


def _word(raw: Raw, field: str, words: type[_E]) -> _E:
    try:
        return words(raw.get(field))
    except ValueError:
        raise ValueError(f"its {field} is {_shown(raw.get(field))}, which is not known here") from None


def _resource_state(raw: Raw) -> ResourceState | None:
    try:
        return ResourceState(raw.get("state"))
    except ValueError:
        return None


def _limits(raw: Raw) -> dict[str, Decimal]:
    """Limits by component; null is none. Numbers may come as texts."""
    given = {component: value for component, value in _mapping(raw, "limits").items() if value is not None}
    return {component: amount(value, f"its limit of {component}") for component, value in given.items()}


def amount(value: Any, what: str) -> Decimal:
    """A number that is finite. Raises ValueError, which begins with `what`.

    >>> amount(1.5, "it"), amount("2", "it")
    (Decimal('1.5'), Decimal('2'))
    """
    try:
        number = Decimal(str(value)) if not isinstance(value, bool) else Decimal("NaN")
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise ValueError(f"{what} is {_shown(value)}, which is no number")
    return number


def _shown(value: Any) -> str:
    """A value of theirs in a line of ours.

    >>> _shown("Create"), _shown("x" * 100)[-6:]
    ("'Create'", "xx...'")
    """
    text = str(value) if len(str(value)) <= _MAX_SHOWN else f"{str(value)[:_MAX_SHOWN]}..."
    return repr(text) if isinstance(value, str) else text
