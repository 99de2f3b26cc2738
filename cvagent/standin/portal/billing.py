"""What the portal accepts as usage, to the letter of its dialect. Raises Refusal."""

import datetime as dt
from collections.abc import Collection, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from cvagent.standin.portal.market import Market
from cvagent.standin.portal.objects import Refusal, Resource, Usage

_BILLED = {"OK", "Updating", "Terminating"}
# The oldest dialect knows three figures of a user, under names of their own.
_USER_FIELDS = {"cpu_usage": "cpu", "ram_usage": "mem", "gpu_usage": "gres/gpu"}


def set_usage(market: Market, body: Any) -> None:
    """Take a resource's figures of a month: absolute, each in place of the one before."""
    dated = market.dialect == "waldur"
    _only(body, {"resource", "date", "usages"} if dated else {"plan_period", "usages"}, optional={"date"})
    resource = _resource(market, body["resource"]) if dated else _of_period(market, body["plan_period"])
    month = _month(market, body.get("date")) if dated else market.month()
    if resource.state not in _BILLED:
        raise Refusal(409, {"detail": f"a resource that is {resource.state} takes no usage"})
    amounts = [_usage(market, entry) for entry in _list(body["usages"], "usages")]
    with market.changed:
        for component, amount in amounts:
            usage_of(market, resource, component, month).amount = amount
        market.changed.notify_all()


def set_user_usage(market: Market, usage: Usage, body: Any) -> None:
    """Take one user's share of a figure: `{"username", "usage"}`."""
    _only(body, {"username", "usage"})
    _note_user(market, usage, body)


def set_user_usages(market: Market, usage: Usage, body: Any) -> None:
    """Take the shares of many users: `{"usages": [{"username", "usage", "date"}]}`."""
    _only(body, {"usages"})
    for entry in _list(body["usages"], "usages"):
        _only(entry, {"username", "usage", "date"}, optional={"date"})
        if _month(market, entry.get("date")) != usage.month:
            raise Refusal(400, {"date": ["is not in the month of the usage"]})
        _note_user(market, usage, entry)


def set_allocation_usage(market: Market, resource: Resource, body: Any) -> None:
    """Take one user's figures of a month, as the oldest dialect wants them."""
    _only(body, {"username", "year", "month", *_USER_FIELDS}, optional=set(_USER_FIELDS))
    month = f"{body['year']:04d}-{body['month']:02d}"
    for field, component in _USER_FIELDS.items():
        if field in body:
            amount = _amount(market, body[field])
            with market.changed:
                usage_of(market, resource, component, month).users[_username(body)] = amount
                market.changed.notify_all()


def usage_of(market: Market, resource: Resource, component: str, month: str) -> Usage:
    """The figure of a component in a month under the plan of now, made when there is none."""
    for usage in market.usages.values():
        found = (usage.type, usage.month, usage.period) == (component, month, resource.period)
        if usage.resource is resource and found:
            return usage
    made = Usage(resource, component, month, resource.period, Decimal(0))
    market.usages[made.uuid] = made
    return made


def _note_user(market: Market, usage: Usage, entry: Mapping[str, Any]) -> None:
    with market.changed:
        usage.users[_username(entry)] = _amount(market, entry["usage"])
        market.changed.notify_all()


def _username(entry: Mapping[str, Any]) -> str:
    name = entry["username"]
    if not isinstance(name, str) or not name:
        raise Refusal(400, {"username": ["This field may not be blank."]})
    return name


def _usage(market: Market, entry: Any) -> tuple[str, Decimal]:
    _only(entry, {"type", "amount", "description"}, optional={"description"})
    if entry["type"] not in market.components:
        raise Refusal(400, {"usages": [f"component {entry['type']!r} is not known to the offering"]})
    return entry["type"], _amount(market, entry["amount"])


def _amount(market: Market, value: Any) -> Decimal:
    """A number or its text; never negative, never with more places than the dialect has."""
    places = 0 if market.dialect == "order-items" else 2
    try:
        amount = Decimal(str(value)) if isinstance(value, (int, float, str)) else Decimal("NaN")
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise Refusal(400, {"amount": ["A valid number is required."]})
    if amount != round(amount, places) or (places == 0 and not str(value).isdigit()):
        raise Refusal(400, {"amount": [f"Ensure that there are no more than {places} decimal places."]})
    return amount


def _of_period(market: Market, period: Any) -> Resource:
    for resource in market.resources.values():
        if resource.period == period:
            return resource
    raise Refusal(400, {"plan_period": ["Object does not exist."]})


def _resource(market: Market, uuid: Any) -> Resource:
    if not isinstance(uuid, str) or uuid not in market.resources:
        raise Refusal(400, {"resource": ["Object does not exist."]})
    return market.resources[uuid]


def _month(market: Market, date: Any) -> str:
    """The month of an RFC 3339 time; the clock's without one."""
    if date is None:
        return market.month()
    try:
        named = dt.datetime.fromisoformat(date.replace("Z", "+00:00")).astimezone(dt.timezone.utc)
    except (ValueError, AttributeError):
        raise Refusal(400, {"date": ["Datetime has wrong format."]}) from None
    if named.timestamp() > market.clock() + 86_400:
        raise Refusal(400, {"date": ["is in the future"]})
    return named.strftime("%Y-%m")


def _list(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise Refusal(400, {field: ["This field is required."]})
    return value


def _only(body: Any, fields: set[str], optional: Collection[str] = ()) -> None:
    """Refuse a body with a field too many or too few."""
    if not isinstance(body, dict):
        raise Refusal(400, ["Invalid data. Expected a dictionary."])
    for field in sorted(fields - {*optional} - body.keys()):
        raise Refusal(400, {field: ["This field is required."]})
    for field in sorted(body.keys() - fields):
        raise Refusal(400, {field: ["Unknown field."]})
