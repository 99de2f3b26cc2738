"""Objects as the portal shows them, in its dialect."""

from typing import Any

from cvagent.standin.portal.market import Market
from cvagent.standin.portal.objects import Order, Person, Project, Resource, Usage


def order(market: Market, order: Order) -> dict[str, Any]:
    """An order, or an order item."""
    resource = order.resource
    return {
        "uuid": order.uuid,
        "type": order.type,
        "state": order.state,
        "attributes": order.attributes,
        "limits": order.limits,
        "resource_name": resource.name,
        "marketplace_resource_uuid": resource.uuid,
        "resource_uuid": resource.allocation.uuid if resource.allocation else None,
        "offering_uuid": market.offering,
        "backend_id": resource.backend_id,
        "error_message": order.error_message,
        "error_traceback": order.error_traceback,
        **_owner(resource.project),
    }


def resource(market: Market, resource: Resource) -> dict[str, Any]:
    """A resource. Flags came with the newest dialect."""
    shown = {
        "uuid": resource.uuid,
        "name": resource.name,
        "slug": resource.name.lower(),
        "state": resource.state,
        "backend_id": resource.backend_id,
        "resource_uuid": resource.allocation.uuid if resource.allocation else None,
        "offering_uuid": market.offering,
        "limits": resource.limits,
        "attributes": resource.attributes,
        "options": resource.options,
        "end_date": None,
        "current_usages": {
            usage.type: str(usage.amount)
            for usage in market.usages.values()
            if usage.resource is resource and usage.month == market.month()
        },
        **_owner(resource.project),
    }
    flags = ("paused", "downscaled", "restrict_member_access", "backend_metadata")
    return shown if market.allocates else shown | {flag: getattr(resource, flag) for flag in flags}


def member(market: Market, person: Person) -> dict[str, Any]:
    """A member of a resource's team."""
    shown: dict[str, Any] = {
        "uuid": person.uuid,
        "username": person.username,
        "full_name": person.full_name,
        "role": "member",
        "expiration_time": None,
    }
    if market.dialect == "order-items":
        return shown
    shown |= {
        "email": f"{person.username}@example.org",
        "offering_user_username": person.cluster_username or None,
    }
    return shown if market.allocates else shown | {"offering_user_state": _user_state(person)}


def offering_user(market: Market, person: Person) -> dict[str, Any]:
    """A person's name at the offering."""
    shown = {
        "uuid": person.uuid,
        "user_uuid": person.uuid,
        "username": person.cluster_username or None,
        "offering_uuid": market.offering,
    }
    return shown if market.allocates else shown | {"state": _user_state(person)}


def profile(person: Person) -> dict[str, Any]:
    """A person in FreeIPA."""
    return {"uuid": person.uuid, "user_uuid": person.uuid, "username": person.cluster_username}


def offering(market: Market) -> dict[str, Any]:
    """What is on sale."""
    return {
        "uuid": market.offering,
        "name": "Slurm",
        "state": "Active",
        "components": [
            {
                "uuid": component.uuid,
                "type": component.type,
                "name": component.name,
                "measured_unit": component.measured_unit,
                "billing_type": component.billing_type,
            }
            for component in market.components.values()
        ],
    }


def plan_periods(market: Market, resource: Resource) -> list[dict[str, Any]]:
    """The spans of a resource's plans, each with what it was told this month."""
    month = market.month()
    return [
        {
            "uuid": period,
            "plan_name": "Default",
            "start": start,
            "end": end,
            "components": [usage(one) for one in market.usages.values() if (one.period, one.month) == (period, month)],
        }
        for period, start, end in [*resource.past, (resource.period, resource.started, None)]
    ]


def usage(usage: Usage) -> dict[str, Any]:
    """A component's figure of a month."""
    return {
        "uuid": usage.uuid,
        "resource_uuid": usage.resource.uuid,
        "type": usage.type,
        "usage": str(usage.amount),
        "billing_period": f"{usage.month}-01",
    }


def allocation(market: Market, resource: Resource) -> dict[str, Any]:
    """The Slurm allocation of the older dialects."""
    found = market.allocation_of(resource)
    return {"uuid": found.uuid, "name": resource.name, "state": found.state, "backend_id": resource.backend_id}


def associations(market: Market, resource: Resource) -> list[dict[str, Any]]:
    """Who is in a Slurm allocation."""
    found = market.allocation_of(resource)
    return [
        {"uuid": uuid, "username": username, "allocation": f"/api/slurm-allocations/{found.uuid}/"}
        for username, uuid in found.members.items()
    ]


def _user_state(person: Person) -> str:
    return "OK" if person.cluster_username else "Requested"


def _owner(project: Project) -> dict[str, Any]:
    customer = project.customer
    return {
        "project_uuid": project.uuid,
        "project_name": project.name,
        "project_slug": project.name.lower(),
        "customer_uuid": customer.uuid,
        "customer_name": customer.name,
        "customer_slug": customer.name.lower(),
    }
