"""The table. A line says what is read, who decides, and where it goes.

    Slurm ─▶ clients ─▶ sources ─▶ push.plan_*(observed, known) ─▶ Plan ─▶ store ─▶ sinks ─▶ CloudVision, portal

The scheduler runs `loops.collect` for each flow and `loops.deliver` for each sink. A mode selects flows.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cvagent.model import Known, Plan
from cvagent.pull.accounts import plan_accounts
from cvagent.pull.associations import plan_associations
from cvagent.pull.members import plan_members
from cvagent.pull.orders import plan_order_states
from cvagent.pull.tenants import plan_tenants
from cvagent.push.jobs import plan_jobs
from cvagent.push.nodes import plan_nodes
from cvagent.push.usage import plan_usage


class Flow(NamedTuple):
    """One line of the table.

    Attributes:
        mode: push (cluster to the outside) or pull (portal to the cluster).
        source: Name of the source, as `app` builds it.
        plan: Pure: what was observed and what is known make a plan.
        sinks: Names of the sinks the plan's changes go to.
        follows: Names of sinks after whose deliveries there is a reason to look.
        errands: Its documents say what was needed at the last look; nothing is done that no look of late still wants.
    """

    name: str
    mode: str
    source: str
    plan: Callable[[Any, Mapping[Any, Known[Any]], Any], Plan]
    sinks: tuple[str, ...]
    follows: tuple[str, ...] = ()
    errands: bool = False


FLOWS = (
    Flow("jobs", mode="push", source="slurm_jobs", plan=plan_jobs, sinks=("cloudvision_jobs",)),
    Flow("nodes", mode="push", source="slurm_nodes", plan=plan_nodes, sinks=("cloudvision_nodes",)),
    Flow("usage", mode="push", source="slurm_usage", plan=plan_usage, sinks=("portal_usage",)),
    Flow(
        "accounts",
        mode="pull",
        source="tenancy",
        plan=plan_accounts,
        sinks=("slurm_accounts",),
        follows=("portal_orders",),
        errands=True,
    ),
    Flow(
        "tenants",
        mode="pull",
        source="tenants",
        plan=plan_tenants,
        sinks=("cloudvision_tenants",),
        follows=("portal_orders",),
    ),
    Flow(
        "order_states",
        mode="pull",
        source="tenancy",
        plan=plan_order_states,
        sinks=("portal_orders",),
        follows=("slurm_accounts", "cloudvision_tenants", "portal_orders"),
        errands=True,
    ),
    Flow(
        "members",
        mode="pull",
        source="members",
        plan=plan_members,
        sinks=("slurm_members",),
        follows=("slurm_accounts", "portal_orders"),
        errands=True,
    ),
    Flow(
        "associations",
        mode="pull",
        source="tenancy",
        plan=plan_associations,
        sinks=("portal_associations",),
        follows=("slurm_members",),
        errands=True,
    ),
)


def flows_of(mode: str) -> tuple[Flow, ...]:
    """The flows that a mode runs: push, pull or both.

    >>> [flow.name for flow in flows_of("push")]
    ['jobs', 'nodes', 'usage']
    """
    return tuple(flow for flow in FLOWS if mode in {"both", flow.mode})
