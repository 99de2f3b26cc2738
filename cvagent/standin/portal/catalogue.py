"""The offering, its components and its users."""

from typing import Any

from cvagent.standin.portal import views
from cvagent.standin.portal.market import Market
from cvagent.standin.portal.objects import Component, Refusal
from cvagent.standin.portal.wire import Answer, Call, fields, not_found, page


def offering_users(market: Market, call: Call, _uuid: str) -> Answer:
    """List the offering's users."""
    return page(call, [views.offering_user(market, person) for person in market.people.values()])


def profiles(market: Market, call: Call, _uuid: str) -> Answer:
    """List people in FreeIPA."""
    return page(call, [views.profile(person) for person in market.people.values() if person.cluster_username])


def offering(market: Market, _call: Call, uuid: str) -> Answer:
    """Show the offering."""
    return Answer(200, views.offering(market)) if uuid == market.offering else not_found()


def replace_components(market: Market, call: Call, _uuid: str) -> Answer:
    """Replace the price list."""
    found = [_component(one) for one in call.document or []]
    with market.changed:
        market.components = {component.type: component for component in found}
        market.changed.notify_all()
    return Answer(200, None)


def create_component(market: Market, call: Call, _uuid: str) -> Answer:
    """Add a line to the price list: once."""
    component = _component(call.document)
    if component.type in market.components:
        raise Refusal(400, {"type": ["A component of this type is there already."]})
    with market.changed:
        market.components[component.type] = component
        market.changed.notify_all()
    return Answer(201, None)


def update_component(market: Market, call: Call, _uuid: str) -> Answer:
    """Change a line, which its uuid names."""
    body = dict(call.document) if isinstance(call.document, dict) else {}
    uuid = body.pop("uuid", "")
    component = _component(body)
    if market.components.get(component.type, component).uuid != uuid:
        raise Refusal(400, {"uuid": ["Component is not found."]})
    component.uuid = uuid
    with market.changed:
        market.components[component.type] = component
        market.changed.notify_all()
    return Answer(200, None)


def _component(body: Any) -> Component:
    names = ("billing_type", "type", "name", "measured_unit")
    billing_type, kind, name, unit = fields(body, names)
    if billing_type not in {"usage", "limit", "fixed", "one"}:
        raise Refusal(400, {"billing_type": [f'"{billing_type}" is not a valid choice.']})
    return Component(kind, name, unit, billing_type)
