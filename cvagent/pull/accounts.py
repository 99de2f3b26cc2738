"""Decides what an order asks of Slurm: which accounts must come, change or go, command by command.

    root ─ customer ─ project ─ allocation        (nested, or with the older agents' layout: root ─ allocation)

Decided from what Slurm shows now, so that it may stop after any command and go on from there.
"""

import shlex
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal

from msgspec import Struct

from cvagent.clients.sacctmgr_commands import Command, Sacctmgr, account_name, cancel_jobs, check_count, is_account_name
from cvagent.errors import Permanent
from cvagent.model import Change, Known, Plan
from cvagent.model.accounts import Account
from cvagent.model.components import Accounting, Component
from cvagent.model.errands import Commands
from cvagent.model.orders import Order, OrderKind, OrderState, Resource
from cvagent.model.tenancy import Tenancy
from cvagent.pull.names import NameRules, allocation_account, customer_account, project_account

_UNLIMITED = -1


class AccountRules(Struct, frozen=True):
    """What the operator decided.

    Attributes:
        cluster: Slurm's ClusterName.
        nested: Allocations stand under their project; else under root.
        components: What is sold, by TRES.
        default_account: What a user's default becomes who loses the one that was; None: any other of theirs.
    """

    cluster: str
    names: NameRules = NameRules()
    nested: bool = True
    components: Mapping[str, Component] = {}
    default_account: str | None = None


def plan_accounts(observed: Tenancy, known: Mapping[str, Known[Commands]], rules: AccountRules) -> Plan:
    """The commands that each executing order still needs. What cannot be carried out is told by `plan_order_states`."""
    wanted, done = {}, 0
    for order in observed.orders:
        if order.state is OrderState.EXECUTING and (commands := _possible(order, observed, rules)):
            wanted[order.uuid] = Commands(order.uuid, f"{order.kind.value} {order.name}".strip(), commands)
        else:
            done += 1
    return Plan(changes=list(errands(wanted, known)), unchanged=done, problems=observed.problems)


def errands(wanted: Mapping[str, Commands], known: Mapping[str, Known[Commands]]) -> Iterator[Change]:
    """What is to be done, and what need not be done any more."""
    for key, commands in wanted.items():
        before = known[key].document if key in known else None
        if before != commands:
            yield Change(before, commands, "changed" if before else "new")
    for key, item in known.items():
        if key not in wanted and item.document.commands:
            yield Change(item.document, Commands(key, item.document.about), "ended")


def commands_for(order: Order, observed: Tenancy, rules: AccountRules) -> tuple[Command, ...] | None:
    """The commands that an order still needs: none when Slurm shows what it asks for.

    None while the portal has not made the allocation, or its account's name cannot be read. Raises Permanent when it
    cannot be carried out.
    """
    unread = order.resource_uuid not in observed.resources and not order.backend_id and bool(observed.problems)
    if order.kind is OrderKind.TERMINATE and unread:
        return None
    account = account_of(order, observed, rules)
    if order.kind is OrderKind.TERMINATE:
        return tuple(_terminated(order, account, observed, rules)) if account else ()
    return tuple(_provided(order, account, observed, rules)) if account else None


def account_of(order: Order, observed: Tenancy, rules: AccountRules) -> str | None:
    """The account that an order is about; None while it cannot be known, or when its resource never got one.

    Raises Permanent.
    """
    told = _told_name(order, observed)
    name = told or _made_name(order, observed, rules)
    if not name:
        return None
    account = account_name(name)
    held = any(r.backend_id.lower() == account and r.uuid != order.resource_uuid for r in observed.resources.values())
    claimed = not held and not told and any(True for _ in _claims(account, order, observed, rules))
    if (held or claimed) and not told and order.kind is OrderKind.TERMINATE:
        return None
    if held:
        raise Permanent(f"the account {account} belongs to another resource of the offering")
    if claimed:
        raise Permanent(f"another order of this name gets the account {account}: order it under another name")
    return account


def wanted_limits(ordered: Mapping[str, Decimal], components: Mapping[str, Component]) -> dict[str, int]:
    """GrpTRESMins by TRES: what is billed by usage has the file's limit, the rest what is ordered.

    Raises Permanent for what is not sold.
    """
    if unknown := ordered.keys() - components.keys():
        raise Permanent(f"no component {', '.join(sorted(unknown))} in the components file")
    limits = {
        tres: sold.limit if sold.accounting is Accounting.USAGE else ordered.get(tres)
        for tres, sold in components.items()
    }
    return {tres: _minutes(limit, components[tres].unit_factor) for tres, limit in limits.items() if limit is not None}


def _told_name(order: Order, observed: Tenancy) -> str:
    """What the portal calls the account; empty while it has no name for it."""
    resource = observed.resources.get(order.resource_uuid or "")
    return (order.backend_id or (resource.backend_id if resource else "")).lower()


def _made_name(order: Order, observed: Tenancy, rules: AccountRules) -> str:
    """What we call it; empty while the portal has not made the allocation."""
    resource = observed.resources.get(order.resource_uuid or "")
    uuid = order.allocation_uuid or (resource.allocation_uuid if resource else None)
    if not uuid and not observed.keeps_allocations:
        uuid = order.resource_uuid
    return allocation_account(uuid, order.name, rules.names) if uuid else ""


def _claims(account: str, order: Order, observed: Tenancy, rules: AccountRules) -> Iterator[Order]:
    """Other executing orders that get this account before this one does: of two the first by uuid."""
    ends = order.kind is OrderKind.TERMINATE
    for other in observed.orders:
        comes_first = ends or other.uuid < order.uuid
        if comes_first and other.state is OrderState.EXECUTING and other.resource_uuid != order.resource_uuid:
            takes = other.kind is not OrderKind.TERMINATE and not _told_name(other, observed)
            if takes and _made_name(other, observed, rules) == account:
                yield other


def _ordered(order: Order, observed: Tenancy) -> Mapping[str, Decimal]:
    """An order to restore need not repeat the limits: they are those that the resource had."""
    resource = observed.resources.get(order.resource_uuid or "")
    if order.kind is OrderKind.RESTORE and not order.limits and resource:
        return resource.limits
    return order.limits


def _possible(order: Order, observed: Tenancy, rules: AccountRules) -> tuple[Command, ...] | None:
    try:
        return commands_for(order, observed, rules)
    except Permanent:
        return None


def _minutes(amount: Decimal, factor: Decimal) -> int:
    """Whole TRES-minutes of an amount. Raises Permanent for one that is no limit."""
    if amount == _UNLIMITED:
        return _UNLIMITED
    check_count(amount)
    check_count(minutes := (amount * factor).to_integral_value())
    return int(minutes)


def _provided(order: Order, account: str, observed: Tenancy, rules: AccountRules) -> Iterator[Command]:
    owner, make, tree = order.owner, Sacctmgr(rules.cluster), observed.tree.accounts
    customer = customer_account(owner.customer_uuid, rules.names)
    project = project_account(owner.project_uuid, rules.names)
    for name, parent, about in ((customer, "root", owner.customer_name), (project, customer, owner.project_name)):
        if name not in tree:
            yield make.add_account(name, parent, (about, customer))
        elif tree[name].parent != parent:
            yield make.move_account(name, parent)
    parent = project if rules.nested else "root"
    limits = wanted_limits(_ordered(order, observed), rules.components)
    if account not in tree:
        yield make.add_account(account, parent, (order.name, project), limits)
        return
    if tree[account].parent != parent:
        _check_free(order, tree[account], {project, "root"}, observed)
        yield make.move_account(account, parent)
    if different := _different(limits, tree[account]):
        yield make.set_limits(account, different)


def _check_free(order: Order, account: Account, ours: Collection[str], observed: Tenancy) -> None:
    """Raises Permanent for an account that was there before, in somebody else's place."""
    if order.kind is OrderKind.CREATE and account.parent not in ours and not _told_name(order, observed):
        raise Permanent(f"there is an account {account.name} below {account.parent} already: order another name")


def _different(limits: Mapping[str, int], account: Account) -> dict[str, int]:
    return {tres: minutes for tres, minutes in limits.items() if minutes != account.tres_minutes.get(tres, _UNLIMITED)}


def _terminated(order: Order, account: str, observed: Tenancy, rules: AccountRules) -> Iterator[Command]:
    """Cancel its jobs, take its users out, delete it; delete its project's account too, when it was the last."""
    make, tree = Sacctmgr(rules.cluster), observed.tree
    project = project_account(order.owner.project_uuid, rules.names)
    if account in tree.accounts:
        _check_own(tree.accounts[account], project, observed, make)
        yield cancel_jobs(account)
        for user in sorted(tree.accounts[account].users):
            yield from removal(account, user, observed, make, rules.default_account)
        yield make.delete_account(account, shared=tree.shared)
    if project in tree.accounts and not _still_used(project, account, order, observed):
        yield make.delete_account(project, shared=tree.shared)


def removal(
    account: str, user: str, observed: Tenancy, make: Sacctmgr, default: str | None = None
) -> Iterator[Command]:
    """Take a user out of an account; another of theirs becomes the default, `default` where there is a choice.

    One that is about to end, only when there is no other.
    """
    if observed.tree.defaults.get(user) == account:
        others = [name for name in observed.tree.accounts_of(user) if name != account and is_account_name(name)]
        ending = {_told_name(order, observed) for order in observed.orders if order.kind is OrderKind.TERMINATE}
        others.sort(key=lambda name: (name in ending, name != default))
        if others:
            yield make.set_default(user, others[0])
    yield make.remove_user(account, user)


def _check_own(account: Account, project: str, observed: Tenancy, make: Sacctmgr) -> None:
    """Raises Permanent for an account that a termination must not take along."""
    if "root" in account.users:
        mend = shlex.join(make.remove_root(account.name))
        raise Permanent(f"root is a user of the account {account.name}, which is for a person to end: {mend}")
    if account.parent not in {project, "root"}:
        raise Permanent(f"the account {account.name} is below {account.parent}, not below its project's {project}")
    children = [name for name, other in observed.tree.accounts.items() if other.parent == account.name]
    if children:
        raise Permanent(f"the account {account.name} has others below it: {', '.join(sorted(children)[:5])}")


def _still_used(project: str, account: str, order: Order, observed: Tenancy) -> bool:
    """Whether the project has or may have another allocation. Those that go at the same time do not count."""
    leaving = {other.resource_uuid for other in observed.orders if other.kind is OrderKind.TERMINATE}
    children = [name for name, other in observed.tree.accounts.items() if other.parent == project and name != account]
    others: list[Order | Resource] = [one for one in observed.resources.values() if one.uuid not in leaving]
    others += [one for one in observed.orders if one.kind is not OrderKind.TERMINATE]
    used = any(one.owner.project_uuid == order.owner.project_uuid for one in others)
    return used or bool(observed.problems or children or observed.tree.accounts[project].users)
