"""The routes of each dialect: one call in, one answer out. No sockets."""

import re
from collections.abc import Mapping

from cvagent.standin.portal import actions, allocations, catalogue
from cvagent.standin.portal.market import Market
from cvagent.standin.portal.objects import Refusal
from cvagent.standin.portal.wire import Answer, Call, Route, not_found

_UUID = "([0-9a-f-]{32,36})"


def answer(market: Market, call: Call) -> Answer:
    """Do what the call asks for."""
    scheme, _, token = call.authorization.partition(" ")
    schemes = {"token"} if market.allocates else {"token", "bearer"}
    if scheme.lower() not in schemes or token != market.token:
        return Answer(401, {"detail": "Invalid token."})
    rule = market.faults.refusal(call.path)
    if rule:
        return Answer(400, {"detail": f"refused by the rule {rule}"})
    try:
        return _answer(market, call)
    except Refusal as refusal:
        return Answer(refusal.status, refusal.body)


def _answer(market: Market, call: Call) -> Answer:
    known = False
    for method, pattern, route in _TABLES[market.dialect]:
        if found := pattern.fullmatch(call.path):
            known = True
            if method == call.method:
                return route(market, call, found[1] if pattern.groups else "")
    return Answer(405, {"detail": f'Method "{call.method}" not allowed.'}) if known else not_found()


def _orders(route: str, *, approves: bool) -> Mapping[str, Route]:
    """Routes of the orders, whatever they are called."""
    taken: dict[str, Route] = {
        f"POST {route}/*/approve_by_provider/": actions.approve,
        f"POST {route}/*/reject_by_provider/": actions.reject,
    }
    return {
        f"GET {route}/": actions.orders,
        f"GET {route}/*/": actions.order,
        f"POST {route}/*/set_state_done/": actions.done,
        f"POST {route}/*/set_state_erred/": actions.erred,
        **(taken if approves else {}),
    }


def _resources(route: str) -> Mapping[str, Route]:
    """Routes of the resources, whatever they are called."""
    return {
        f"GET {route}/": actions.resources,
        f"GET {route}/*/": actions.resource,
        f"GET {route}/*/team/": actions.team,
        f"POST {route}/*/set_backend_id/": actions.set_backend_id,
    }


_EVERYWHERE: Mapping[str, Route] = {
    "GET freeipa-profiles/": catalogue.profiles,
    "GET marketplace-component-usages/": actions.usages,
    "POST marketplace-component-usages/set_usage/": actions.set_usage,
}
_OFFERING_USERS: Mapping[str, Route] = {"GET marketplace-offering-users/": catalogue.offering_users}
_ALLOCATIONS: Mapping[str, Route] = {
    "GET marketplace-resources/*/plan_periods/": actions.plan_periods,
    "POST marketplace-slurm-remote/*/set_state/": allocations.set_state,
    "POST marketplace-slurm-remote/*/set_limits/": allocations.set_limits,
    "POST marketplace-slurm-remote/*/create_association/": allocations.create_association,
    "POST marketplace-slurm-remote/*/delete_association/": allocations.delete_association,
    "GET slurm-associations/": allocations.associations,
    "GET slurm-allocations/*/": allocations.allocation,
}
_ROUTES: Mapping[str, Mapping[str, Route]] = {
    "order-items": {
        **_EVERYWHERE,
        **_orders("marketplace-order-items", approves=False),
        **_resources("marketplace-resources"),
        **_ALLOCATIONS,
        "POST marketplace-slurm-remote/*/set_usage/": allocations.set_allocation_usage,
        "GET marketplace-offerings/*/": catalogue.offering,
        "POST marketplace-offerings/*/update_components/": catalogue.replace_components,
    },
    "orders": {
        **_EVERYWHERE,
        **_OFFERING_USERS,
        **_orders("marketplace-orders", approves=True),
        **_resources("marketplace-resources"),
        **_ALLOCATIONS,
        "POST marketplace-component-usages/*/set_user_usage/": actions.set_user_usage,
        "GET marketplace-public-offerings/*/": catalogue.offering,
        "POST marketplace-provider-offerings/*/create_offering_component/": catalogue.create_component,
    },
    "waldur": {
        **_EVERYWHERE,
        **_OFFERING_USERS,
        **_orders("marketplace-orders", approves=True),
        **_resources("marketplace-provider-resources"),
        "POST marketplace-provider-resources/*/set_limits/": allocations.set_limits,
        "POST marketplace-provider-resources/*/set_backend_metadata/": actions.set_backend_metadata,
        "POST marketplace-component-usages/*/set_user_usages/": actions.set_user_usages,
        "GET marketplace-provider-offerings/*/": catalogue.offering,
        "POST marketplace-provider-offerings/*/create_offering_component/": catalogue.create_component,
        "POST marketplace-provider-offerings/*/update_offering_component/": catalogue.update_component,
    },
}


def _compiled(line: str) -> tuple[str, re.Pattern[str]]:
    method, path = line.split(" ")
    return method, re.compile(f"/api/{path.replace('*', _UUID)}")


_TABLES = {
    dialect: [(*_compiled(line), route) for line, route in routes.items()] for dialect, routes in _ROUTES.items()
}
