"""What is done with orders, resources and usage."""

from cvagent.standin.portal import billing, views
from cvagent.standin.portal.market import Market
from cvagent.standin.portal.objects import Refusal
from cvagent.standin.portal.wire import Answer, Call, fields, page


def orders(market: Market, call: Call, _uuid: str) -> Answer:
    """List orders; soon after, what they need is allocated."""
    states = call.query.get("state")
    found = [
        order
        for order in market.orders.values()
        if call.query.get("offering_uuid", [market.offering]) == [market.offering]
        and (states is None or order.state in states)
    ]
    shown = page(call, [views.order(market, order) for order in found])
    market.allocate(found)
    return shown


def order(market: Market, _call: Call, uuid: str) -> Answer:
    """Show one order; likewise."""
    order = market.find(market.orders, uuid)
    shown = views.order(market, order)
    market.allocate([order])
    return Answer(200, shown)


def approve(market: Market, _call: Call, uuid: str) -> Answer:
    """Take an order."""
    market.approve(market.find(market.orders, uuid))
    return Answer(200, None)


def reject(market: Market, _call: Call, uuid: str) -> Answer:
    """Decline an order."""
    market.reject(market.find(market.orders, uuid))
    return Answer(200, None)


def done(market: Market, _call: Call, uuid: str) -> Answer:
    """End an order well."""
    market.done(market.find(market.orders, uuid))
    return Answer(200, None)


def erred(market: Market, call: Call, uuid: str) -> Answer:
    """End an order badly: `{"error_message", "error_traceback"}`."""
    body = fields(call.document, ("error_message", "error_traceback"))
    market.erred(market.find(market.orders, uuid), *body)
    return Answer(200, None)


def resources(market: Market, call: Call, _uuid: str) -> Answer:
    """List resources, perhaps with the named fields alone."""
    states = call.query.get("state")
    backend_id = call.query.get("backend_id")
    found = [
        views.resource(market, resource)
        for resource in market.resources.values()
        if call.query.get("offering_uuid", [market.offering]) == [market.offering]
        and (states is None or resource.state in states)
        and (backend_id is None or [resource.backend_id] == backend_id)
    ]
    wanted = call.query.get("field")
    return page(call, [{name: one[name] for name in wanted if name in one} for one in found] if wanted else found)


def resource(market: Market, _call: Call, uuid: str) -> Answer:
    """Show one resource."""
    return Answer(200, views.resource(market, market.find(market.resources, uuid)))


def set_backend_id(market: Market, call: Call, uuid: str) -> Answer:
    """Note what the provider calls it."""
    resource = market.find(market.resources, uuid)
    (backend_id,) = fields(call.document, ("backend_id",))
    with market.changed:
        resource.backend_id = backend_id
        market.changed.notify_all()
    return Answer(200, {"status": "Resource backend_id has been changed."})


def set_backend_metadata(market: Market, call: Call, uuid: str) -> Answer:
    """Replace what the provider notes: the whole object."""
    resource = market.find(market.resources, uuid)
    if not isinstance(call.document, dict) or list(call.document) != ["backend_metadata"]:
        raise Refusal(400, {"backend_metadata": ["This field is required."]})
    resource.backend_metadata = call.document["backend_metadata"]
    return Answer(200, {"status": "Resource backend_metadata has been changed."})


def team(market: Market, call: Call, uuid: str) -> Answer:
    """List who may use it."""
    return page(call, [views.member(market, person) for person in market.find(market.resources, uuid).project.team])


def plan_periods(market: Market, _call: Call, uuid: str) -> Answer:
    """List the spans of its plan."""
    return Answer(200, views.plan_periods(market, market.find(market.resources, uuid)))


def usages(market: Market, call: Call, _uuid: str) -> Answer:
    """List figures."""
    wanted, period = call.query.get("resource_uuid"), call.query.get("billing_period")
    shown = [views.usage(usage) for usage in market.usages.values()]
    return page(
        call,
        [
            one
            for one in shown
            if (wanted is None or [one["resource_uuid"]] == wanted)
            and (period is None or [one["billing_period"]] == period)
        ],
    )


def set_usage(market: Market, call: Call, _uuid: str) -> Answer:
    """Take figures."""
    billing.set_usage(market, call.document)
    return Answer(201, None)


def set_user_usage(market: Market, call: Call, uuid: str) -> Answer:
    """Take one user's share of a figure."""
    billing.set_user_usage(market, market.find(market.usages, uuid), call.document)
    return Answer(201, None)


def set_user_usages(market: Market, call: Call, uuid: str) -> Answer:
    """Take the shares of many users."""
    billing.set_user_usages(market, market.find(market.usages, uuid), call.document)
    return Answer(201, None)
