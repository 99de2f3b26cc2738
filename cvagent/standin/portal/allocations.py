"""What the older dialects have for Slurm allocations, and how limits are told."""

from cvagent.standin.portal import billing, views
from cvagent.standin.portal.market import Market
from cvagent.standin.portal.objects import Refusal, Resource, new_uuid
from cvagent.standin.portal.wire import Answer, Call, fields, not_found, page


def set_allocation_usage(market: Market, call: Call, uuid: str) -> Answer:
    """Take one user's figures."""
    billing.set_allocation_usage(market, market.find(market.resources, uuid), call.document)
    return Answer(201, None)


def set_state(market: Market, call: Call, uuid: str) -> Answer:
    """Move an allocation into a state."""
    (state,) = fields(call.document, ("state",))
    market.move(market.find(market.resources, uuid), state)
    return Answer(200, None)


def set_limits(market: Market, call: Call, uuid: str) -> Answer:
    """The body is the dict itself, or holds it under `limits` in the newest dialect."""
    resource = market.find(market.resources, uuid)
    body = call.document if isinstance(call.document, dict) else {}
    limits = body if market.allocates else body.get("limits", {})
    if not limits or not all(type(value) in (int, float) for value in limits.values()):
        raise Refusal(400, {"limits": ["A valid number is required."]})
    with market.changed:
        resource.limits = dict(limits)
        market.changed.notify_all()
    return Answer(200, {"status": "Limits are set."})


def create_association(market: Market, call: Call, uuid: str) -> Answer:
    """Note a user: 201 when that is news, else 200."""
    members = market.allocation_of(market.find(market.resources, uuid)).members
    (username,) = fields(call.document, ("username",))
    status = 200 if username in members else 201
    with market.changed:
        members.setdefault(username, new_uuid())
        market.changed.notify_all()
    return Answer(status, {"uuid": members[username]})


def delete_association(market: Market, call: Call, uuid: str) -> Answer:
    """Strike a user out: 400 when there is none."""
    members = market.allocation_of(market.find(market.resources, uuid)).members
    (username,) = fields(call.document, ("username",))
    if username not in members:
        raise Refusal(400, {"username": [f"association for {username} does not exist"]})
    with market.changed:
        del members[username]
        market.changed.notify_all()
    return Answer(200, None)


def associations(market: Market, call: Call, _uuid: str) -> Answer:
    """List users by `allocation_uuid`."""
    wanted = call.query.get("allocation_uuid", [])
    found = [one for one in market.resources.values() if one.allocation and one.allocation.uuid in wanted]
    return page(call, [shown for resource in found for shown in views.associations(market, resource)])


def allocation(market: Market, _call: Call, uuid: str) -> Answer:
    """Show one allocation."""
    found: list[Resource] = [one for one in market.resources.values() if one.allocation and one.allocation.uuid == uuid]
    return Answer(200, views.allocation(market, found[0])) if found else not_found()
