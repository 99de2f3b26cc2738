"""Compares portal, Slurm and CloudVision, and says for each difference what mends it. Changes nothing."""

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from cvagent.clients.sacctmgr_commands import Command, Sacctmgr, cancel_jobs
from cvagent.errors import Permanent
from cvagent.model import Known
from cvagent.model.accounts import Account
from cvagent.model.errands import Commands
from cvagent.model.orders import Order, OrderKind, OrderState, Resource, ResourceState
from cvagent.model.tenancy import Members, Tenancy
from cvagent.model.tenants import TenantConfig, TenantsSeen
from cvagent.pull.accounts import AccountRules, commands_for, removal
from cvagent.pull.members import MemberRules, plan_members
from cvagent.pull.names import NameRules, allocation_account, project_account
from cvagent.pull.tenants import TenantRules, plan_tenants

_SETTLED = {ResourceState.OK, ResourceState.ERRED}
# For a shell with the agent's environment. The token comes by standard input: arguments are everybody's to see.
_SET_BACKEND_ID = (
    """printf 'Authorization: token %s' "${{CVAGENT_PORTAL_TOKEN:-$(cat "$CVAGENT_PORTAL_TOKEN_FILE")}}" | """
    """curl -fsS -H @- -H 'Content-Type: application/json' """
    """${{CVAGENT_PORTAL_CA_FILE:+--cacert "$CVAGENT_PORTAL_CA_FILE"}} """
    """-d '{{"backend_id": "{name}"}}' "${{CVAGENT_PORTAL_URL%/}}/api/{path}/set_backend_id/\""""
)
_ANEW = ("CVAGENT_MODE=pull", "CVAGENT_STORE_URL=sqlite://")
_TELL_ANEW: Command = ("env", *_ANEW, "cvagent", "run", "--once")
# A store that is empty has missed a tenant for no round yet. Members count rounds too: only where it is needed.
_TELL_END: Command = ("env", *_ANEW, "CVAGENT_ABSENT_ROUNDS=1", "cvagent", "run", "--once")


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

    `members` must hold every resource that the portal has and that is not terminated, also in states that are not known
    here. What CloudVision was told is None when it does not tell, as is `tenants` when it hears of none.
    """
    seen = members.tenancy
    found = [*_accounts(seen, rules.accounts), *_unnamed(seen, rules.accounts)]
    # Who could not be read in full, or says nothing at all, is not believed to miss anything.
    if seen.resources and not seen.problems:
        found += [*_orphans(seen, rules.accounts), *_empty_projects(seen, rules.accounts)]
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
    """Accounts of allocations that the portal has no resource for."""
    ours = re.compile(f"{re.escape(rules.names.allocation_prefix.lower())}[0-9a-f]{{5}}_.*")
    for name, account in seen.tree.accounts.items():
        if ours.fullmatch(name) and not _is_spoken_for(name, seen, rules.names):
            how = "the portal has no such allocation"
            try:
                yield Drift(("portal", "Slurm"), name, how, tuple(_removed(account, seen, Sacctmgr(rules.cluster))))
            except Permanent as error:
                yield Drift(("portal", "Slurm"), name, f"{how}, and {error}")


def _is_spoken_for(name: str, seen: Tenancy, names: NameRules) -> bool:
    """Whether an account is, or may be, that of a resource or an order, whatever their states."""
    digits = name.removeprefix(names.allocation_prefix.lower())[:5]
    for one in _allocations(seen):
        resource_uuid = one.uuid if isinstance(one, Resource) else one.resource_uuid
        uuids = [uuid for uuid in (one.allocation_uuid, resource_uuid) if uuid]
        # Its name may have been another when the account was made.
        coming = isinstance(one, Order) or not one.backend_id
        if name == one.backend_id.lower() or (coming and any(uuid.startswith(digits) for uuid in uuids)):
            return True
        if any(uuid.startswith(digits) and allocation_account(uuid, one.name, names) == name for uuid in uuids):
            return True
    return False


def _allocations(seen: Tenancy) -> list[Order | Resource]:
    """Everything that may have an account."""
    return [*seen.resources.values(), *seen.orders]


def _removed(account: Account, seen: Tenancy, make: Sacctmgr) -> Iterator[Command]:
    """What takes an account away. Raises Permanent when a person must see to it."""
    if below := sorted(name for name, other in seen.tree.accounts.items() if other.parent == account.name):
        raise Permanent(f"it has others below it: {', '.join(below[:5])}")
    yield cancel_jobs(account.name)
    for user in sorted(account.users):
        yield from removal(account.name, user, seen, make)
    yield make.delete_account(account.name, shared=seen.tree.shared)


def _unnamed(seen: Tenancy, rules: AccountRules) -> Iterator[Drift]:
    """Accounts of allocations for which the portal does not hold their name."""
    under_way = {order.resource_uuid for order in seen.orders}
    named = {resource.backend_id.lower() for resource in seen.resources.values()}
    for resource in seen.resources.values():
        uuid = resource.allocation_uuid or ("" if seen.keeps_allocations else resource.uuid)
        name = allocation_account(uuid, resource.name, rules.names)
        unnamed = resource.state is ResourceState.OK and not resource.backend_id and uuid
        if unnamed and resource.uuid not in under_way and name in seen.tree.accounts.keys() - named:
            route = "marketplace-resources" if seen.keeps_allocations else "marketplace-provider-resources"
            told = _SET_BACKEND_ID.format(name=name, path=f"{route}/{resource.uuid}")
            yield Drift(("Slurm", "portal"), name, "the portal has no backend id for it", (("sh", "-c", told),))


def _empty_projects(seen: Tenancy, rules: AccountRules) -> Iterator[Drift]:
    """Accounts of projects without any allocation; a customer's stays."""
    names = rules.names
    project = re.compile(f"{re.escape(names.project_prefix.lower())}[0-9a-f]{{32}}")
    customer = re.compile(f"{re.escape(names.customer_prefix.lower())}[0-9a-f]{{32}}")
    used = {project_account(one.owner.project_uuid, names) for one in _allocations(seen)}
    used |= {account.parent for account in seen.tree.accounts.values()}
    for name, account in seen.tree.accounts.items():
        if project.fullmatch(name) and customer.fullmatch(account.parent) and name not in used and not account.users:
            mend = Sacctmgr(rules.cluster).delete_account(name, shared=seen.tree.shared)
            yield Drift(("portal", "Slurm"), name, "its project has no allocation any more", (mend,))


def _members(seen: Members, rules: MemberRules) -> Iterator[Drift]:
    settled = {resource.uuid: resource for resource in _settled(seen.tenancy)}
    calm = replace(seen, tenancy=replace(seen.tenancy, resources=settled))
    for change in plan_members(calm, {}, replace(rules, force=True)).changes:
        if isinstance(change.after, Commands):
            name = change.after.key.partition("/")[0]
            yield Drift(("portal", "Slurm"), name, change.after.about, change.after.commands)


def _tenants(seen: TenantsSeen, told: Mapping[str, TenantConfig], rules: TenantRules) -> Iterator[Drift]:
    under_way = {order.resource_uuid for order in seen.tenancy.orders}
    known = {key: Known(config) for key, config in told.items()}
    for change in plan_tenants(seen, known, replace(rules, absent_rounds=1, force=True)).changes:
        if isinstance(change.after, TenantConfig) and change.after.resource not in under_way:
            how = {"new": "CloudVision does not know it", "ended": "it is over, and CloudVision says that it runs"}
            differs = how.get(change.why, "its nodes or interfaces differ")
            mend = _TELL_END if change.why == "ended" else _TELL_ANEW
            yield Drift(("Slurm", "CloudVision"), change.after.key, differs, (mend,))
