"""Decides whom a portal that keeps Slurm allocations is to believe in them: whom Slurm shows in their accounts."""

from collections.abc import Mapping

from cvagent.model import Change, Known, Plan
from cvagent.model.errands import Associated
from cvagent.model.orders import Resource
from cvagent.model.tenancy import WITH_MEMBERS, Tenancy
from cvagent.pull.accounts import AccountRules


def plan_associations(observed: Tenancy, known: Mapping[str, Known[Associated]], _rules: AccountRules) -> Plan:
    """Tell of each account whose users the portal was not told of. One that is not there says nothing."""
    wanted = [told for resource in observed.resources.values() if (told := _associated(resource, observed))]
    changes = [
        Change(before, told, "changed" if before else "new")
        for told in wanted
        if (before := known[told.key].document if told.key in known else None) != told
    ]
    return Plan(changes=changes, unchanged=len(wanted) - len(changes), problems=observed.problems)


def _associated(resource: Resource, observed: Tenancy) -> Associated | None:
    account = observed.tree.accounts.get(resource.backend_id.lower())
    if not observed.keeps_allocations or not resource.allocation_uuid or resource.state not in WITH_MEMBERS:
        return None
    if account is None or account.name == "root":
        return None
    return Associated(resource.uuid, resource.allocation_uuid, account.name, tuple(sorted(account.users - {"root"})))
