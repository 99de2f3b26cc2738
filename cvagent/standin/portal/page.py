"""The page at `/`, on which people order, and the control for other processes under `/standin`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from cvagent.standin.local import controls, fields, local, page, problem
from cvagent.standin.portal.api import PortalApi
from cvagent.standin.portal.market import Market
from cvagent.standin.portal.objects import Order, Person, Project, Refusal, Resource

_PAGE = Path(__file__).with_name("page.html")
_FLAGS = ("paused", "downscaled", "restrict_member_access")


def application(market: Market) -> Starlette:
    """Build the whole web application of a portal."""
    routes = [
        Mount("/api", app=PortalApi(market)),
        Route("/", local(market, page(_PAGE))),
        Route("/standin/market", local(market, _market)),
        Route("/standin/order", local(market, _order), methods=["POST"]),
        Route("/standin/resource", local(market, _resource), methods=["POST"]),
        Route("/standin/decide", local(market, _decide), methods=["POST"]),
        Route("/standin/member", local(market, _member), methods=["POST"]),
        *controls(market),
    ]
    return Starlette(routes=routes)


async def _market(market: Market, _request: Request) -> Response:
    """Answer with all that the page shows."""
    with market.changed:
        return JSONResponse(
            {
                "dialect": market.dialect,
                "month": market.month(),
                "requests": market.requests_total,
                "faults": market.faults.left(),
                "violations": market.violations,
                "components": list(market.components) or ["cpu"],
                "units": {component.type: component.measured_unit for component in market.components.values()},
                "projects": [_project(project) for project in market.projects.values()],
                "resources": [_shown(market, resource) for resource in reversed(market.resources.values())],
                "orders": [_ordered(order) for order in reversed(market.orders.values())],
            }
        )


async def _order(market: Market, request: Request) -> Response:
    """Order an allocation: `{"project", "name", "limits"}`."""
    project, name, limits = await fields(request, "project", "name", "limits")
    return _done(lambda: market.create(market.find(market.projects, project), str(name), _numbers(limits)))


async def _resource(market: Market, request: Request) -> Response:
    """Order a change of an allocation, or set a flag: `{"resource", "action", "limits"}`."""
    uuid, action, limits = await fields(request, "resource", "action", "limits")

    def act() -> None:
        resource = market.find(market.resources, uuid)
        if action in _FLAGS:
            with market.changed:
                setattr(resource, action, not getattr(resource, action))
                market.changed.notify_all()
        elif action == "change":
            market.change(resource, _numbers(limits))
        else:
            {"terminate": market.terminate, "restore": market.restore}[action](resource)

    return _done(act)


async def _decide(market: Market, request: Request) -> Response:
    """Take or decline an order, as the provider's staff may: `{"order", "action"}`."""
    uuid, action = await fields(request, "order", "action")
    return _done(lambda: {"approve": market.approve, "reject": market.reject}[action](market.find(market.orders, uuid)))


async def _member(market: Market, request: Request) -> Response:
    """Take someone into a project's team, or out of it when they are in: `{"project", "username"}`."""
    uuid, username = await fields(request, "project", "username")

    def act() -> None:
        project = market.find(market.projects, uuid)
        with market.changed:
            left = [person for person in project.team if person.username != username]
            if len(left) == len(project.team):
                known = (person for person in market.people.values() if person.username == username)
                person = next(known, None) or Person(str(username), str(username).title(), str(username))
                market.people[person.uuid] = person
                left.append(person)
            project.team = left
            market.changed.notify_all()

    return _done(act)


def _done(act: Callable[[], object]) -> Response:
    try:
        act()
    except Refusal as refusal:
        return problem(str(refusal), refusal.status)
    except KeyError as error:
        return problem(f"there is no action {error}")
    return JSONResponse({})


def _numbers(limits: Any) -> dict[str, Any]:
    if not isinstance(limits, Mapping) or not all(type(value) in {int, float} for value in limits.values()):
        raise ValueError("limits must be numbers by component")
    return dict(limits)


def _project(project: Project) -> dict[str, Any]:
    team = [person.username for person in project.team]
    return {"uuid": project.uuid, "name": project.name, "customer": project.customer.name, "team": team}


def _shown(market: Market, resource: Resource) -> dict[str, Any]:
    usages = [usage for usage in market.usages.values() if usage.resource is resource]
    return {
        "uuid": resource.uuid,
        "name": resource.name,
        "project": resource.project.name,
        "state": resource.state,
        "backend_id": resource.backend_id,
        "limits": resource.limits,
        "flags": [flag for flag in _FLAGS if getattr(resource, flag)],
        "usages": {
            f"{usage.type} {usage.month}{' (earlier plan)' * (usage.period != resource.period)}": {
                "total": str(usage.amount),
                "users": {name: str(amount) for name, amount in usage.users.items()},
            }
            for usage in usages
        },
    }


def _ordered(order: Order) -> dict[str, Any]:
    return {
        "uuid": order.uuid,
        "type": order.type,
        "state": order.state,
        "name": order.resource.name,
        "limits": order.limits,
        "error": order.error_message,
    }
