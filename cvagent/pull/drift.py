"""Compares portal, Slurm and CloudVision, and says for each difference what mends it. Changes nothing."""

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from cvagent.clients.sacctmgr_commands import Command, Sacctmgr, cancel_jobs
from cvagent.errors import Permanent
from cvagent.model import Known
from cvagent.model.errands import Commands
from cvagent.model.orders import Order, OrderKind, OrderState, Resource, ResourceState
from cvagent.model.tenancy import Members, Tenancy
from cvagent.model.tenants import TenantConfig, TenantsSeen
from cvagent.pull.accounts import AccountRules, commands_for, removal
from cvagent.pull.members import MemberRules, plan_members
from cvagent.pull.tenants import TenantRules, plan_tenants

_SETTLED = {ResourceState.OK, ResourceState.ERRED}
_TELL_ANEW: Command = ("env", "CVAGENT_MODE=pull", "CVAGENT_STORE_URL=sqlite://", "cvagent", "run", "--once")


class DriftRules(Struct, frozen=True):
    """The rules of the flows."""

    accounts: AccountRules
    members: MemberRules
    tenants: TenantRules


class Drift(Struct, frozen=True):
    """One difference.

    Attributes:
        between: The two that differ; the first one is right.
        what: The account or the tenant.
        how: What differs, in a few words.
        mend: Commands; none when a person must decide.
    """

    between: tuple[str, str]
    what: str
    how: str
    mend: tuple[Command, ...] = ()


def find_drift(
    members: Members, tenants: TenantsSeen | None, told: Mapping[str, TenantConfig] | None, rules: DriftRules
) -> list[Drift]:
    """Every difference. What an open order is about is under way, and no drift.

    What CloudVision was told is None when it does not tell, as is `tenants` when it hears of none.
    """
    found = [*_accounts(members.tenancy, rules.accounts), *_orphans(members.tenancy, rules.accounts)]
    found += _members(members, rules.members)
    if tenants and told is not None:
        found += _tenants(tenants, told, rules.tenants)
    return found


def _settled(seen: Tenancy) -> Iterator[Resource]:
    under_way = {order.resource_uuid for order in seen.orders}
    for resource in seen.resources.values():
        if resource.state in _SETTLED and resource.backend_id and resource.uuid not in under_way:
            yield resource


def _accounts(seen: Tenancy, rules: AccountRules) -> Iterator[Drift]:
    for resource in _settled(seen):
        name = resource.backend_id.lower()
        try:
            commands = commands_for(_as_order(resource), seen, rules)
        except Permanent as error:
            yield Drift(("portal", "Slurm"), name, str(error))
            continue
        if commands:
            how = "its place or its limits differ" if name in seen.tree.accounts else "Slurm has no such account"
            yield Drift(("portal", "Slurm"), name, how, commands)


def _as_order(resource: Resource) -> Order:
    """What would make it as it should be."""
    return Order(
        uuid=resource.uuid,
        kind=OrderKind.UPDATE,
        state=OrderState.EXECUTING,
        name=resource.name,
        owner=resource.owner,
        resource_uuid=resource.uuid,
        allocation_uuid=resource.allocation_uuid,
        limits=resource.limits,
        backend_id=resource.backend_id,
    )


def _orphans(seen: Tenancy, rules: AccountRules) -> Iterator[Drift]:
    """Accounts of allocations that the portal has no resource for. Nobody is believed who could not be read in full."""
    if seen.problems or not seen.resources:
        return
    ours = re.compile(f"{re.escape(rules.names.allocation_prefix.lower())}[0-9a-f]{{5}}_.*")
    named = {resource.backend_id.lower() for resource in seen.resources.values()}
    arriving = {order.allocation_uuid or order.resource_uuid or "" for order in seen.orders}
    make = Sacctmgr(rules.cluster)
    for name, account in seen.tree.accounts.items():
        digits = name.removeprefix(rules.names.allocation_prefix.lower())[:5]
        if ours.fullmatch(name) and name not in named and not any(uuid.startswith(digits) for uuid in arriving):
            out = [command for user in sorted(account.users) for command in removal(name, user, seen, make)]
            mend = (cancel_jobs(name), *out, make.delete_account(name, shared=seen.tree.shared))
            yield Drift(("portal", "Slurm"), name, "the portal has no such allocation", mend)


def _members(seen: Members, rules: MemberRules) -> Iterator[Drift]:
    settled = {resource.uuid: resource for resource in _settled(seen.tenancy)}
    calm = replace(seen, tenancy=replace(seen.tenancy, resources=settled))
    for change in plan_members(calm, {}, replace(rules, force=True)).changes:
        if isinstance(change.after, Commands):
            name = change.after.key.partition("/")[0]
            yield Drift(("portal", "Slurm"), name, change.after.about, change.after.commands)


def _tenants(seen: TenantsSeen, told: Mapping[str, TenantConfig], rules: TenantRules) -> Iterator[Drift]:
    known = {key: Known(config) for key, config in told.items()}
    for change in plan_tenants(seen, known, replace(rules, absent_rounds=1, force=True)).changes:
        how = {"new": "CloudVision does not know it", "ended": "it is over, and CloudVision says that it runs"}
        yield Drift(
            ("Slurm", "CloudVision"),
            f"{change.after.key}",
            how.get(change.why, "its nodes or interfaces differ"),
            (_TELL_ANEW,),
        )
