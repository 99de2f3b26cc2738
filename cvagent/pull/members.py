"""Decides who may use an allocation's account, and how much: its team, and whether it is paused."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from msgspec import Struct

from cvagent.clients.sacctmgr_commands import Command, Sacctmgr, cancel_jobs, is_account_name, make_home, user_name
from cvagent.errors import Permanent
from cvagent.guard import refusal
from cvagent.model import Change, Known, Plan
from cvagent.model.accounts import Account
from cvagent.model.errands import Commands
from cvagent.model.orders import Resource
from cvagent.model.tenancy import WITH_MEMBERS, Members
from cvagent.pull.accounts import errands, removal

_NAMED = 8
_WITHHELD = "the removal of all is withheld until 'cvagent run --once --force'"


class MemberRules(Struct, frozen=True):
    """What the operator decided.

    Attributes:
        cluster: Slurm's ClusterName.
        default_account: What a user's default becomes who loses the one that was; None: any other of theirs.
        homedirs: Whether a new member's home directory is made.
        paused_qos: The QOS of an account that is paused; None: no job may be submitted.
        downscaled_qos: The QOS of an account that is downscaled; None: nothing is done about it.
        absent_rounds: Good readings of a team in a row after which somebody who is missing in it has left.
        removal_share: See `guard.RemovalRules`, for this and what follows.
    """

    cluster: str
    default_account: str | None = None
    homedirs: bool = False
    paused_qos: str | None = None
    downscaled_qos: str | None = None
    absent_rounds: int = 3
    removal_share: float = 0.3
    force: bool = False


class _Team(Struct, frozen=True):
    """An account, who is to be in it, and who has left."""

    resource: Resource
    account: Account
    wanted: AbstractSet[str]
    leavers: Sequence[str]

    @property
    def closed(self) -> bool:
        """The portal says that nobody may use it. That is no reading error: everybody leaves."""
        return self.resource.restrict_member_access


def plan_members(observed: Members, known: Mapping[str, Known[Commands]], rules: MemberRules) -> Plan:
    """Add who is in the team and remove who is not. A team that came out empty removes nobody."""
    teams, problems = _teams(observed, rules)
    kept = {team.account.name: commands for team in teams if (commands := _kept_up(team, observed, rules))}
    open_teams = [team for team in teams if not team.closed]
    emptied = [team for team in open_teams if team.leavers and not team.wanted and not rules.force]
    doubtful = _removals(emptied, observed, rules)
    leaving = _removals([team for team in open_teams if team not in emptied], observed, rules)
    wanted = kept | _removals([team for team in teams if team.closed], observed, rules)
    there = sum(len(team.account.users) for team in teams)
    withheld = refusal(len(leaving), there, rules, "members are in no team any more: their removal is")
    refused = doubtful | leaving if withheld else doubtful
    return Plan(
        changes=list(errands(wanted if withheld else wanted | leaving, known)),
        refused=[Change(None, commands, "ended") for commands in refused.values()],
        refusal="; ".join(filter(None, [withheld, _emptied(emptied)])) or None,
        unchanged=len(teams) - len(kept),
        problems=[*observed.tenancy.problems, *observed.problems, *problems],
        note=_note(observed, teams, rules),
    )


def _teams(observed: Members, rules: MemberRules) -> tuple[list[_Team], list[str]]:
    """The accounts that are to have members, and a line for each name or account that cannot be used."""
    found, problems = [], []
    living = [resource for resource in observed.tenancy.resources.values() if resource.state in WITH_MEMBERS]
    times = Counter(resource.backend_id.lower() for resource in living)
    for resource in living:
        if resource.uuid not in observed.teams or not resource.backend_id:
            continue
        account = observed.tenancy.tree.accounts.get(resource.backend_id.lower())
        if times[resource.backend_id.lower()] > 1:
            problems.append(f"resource {resource.uuid}: {resource.backend_id[:60]!r} is another's account too")
            continue
        if account is None or not is_account_name(account.name):
            problems.append(f"resource {resource.uuid}: Slurm has no account {resource.backend_id[:60]!r}")
            continue
        names, bad = _usable(observed.teams[resource.uuid])
        wanted = set() if resource.restrict_member_access else names
        leavers, stuck = _usable(_left(resource, account, wanted, observed, rules))
        problems += [f"{account.name}: {reason}" for reason in bad + stuck]
        found.append(_Team(resource, account, wanted, sorted(leavers)))
    return found, problems


def _left(
    resource: Resource, account: Account, wanted: AbstractSet[str], observed: Members, rules: MemberRules
) -> set[str]:
    """Those who are in the account and for sure not in the team. root is nobody's member."""
    absent = account.users - wanted - {"root"}
    if resource.restrict_member_access:
        return set(absent)
    if resource.uuid in observed.unsure:
        return set()
    # Slurm lower-cases names; who has one that no command could hold is in the team all the same.
    absent -= {name.lower() for name in observed.teams[resource.uuid]}
    missed = {user: observed.missed.get(f"{account.name}/{user}", 0) for user in absent}
    return {user for user in absent if rules.force or missed[user] >= rules.absent_rounds}


def _usable(names: AbstractSet[str]) -> tuple[set[str], list[str]]:
    bad = {name: reason for name in names if (reason := _why_not(name))}
    return set(names) - bad.keys(), sorted(bad.values())


def _why_not(name: str) -> str | None:
    try:
        user_name(name)
    except Permanent as error:
        return str(error)
    return None


def _kept_up(team: _Team, observed: Members, rules: MemberRules) -> Commands | None:
    """What the account itself needs: its limits on use, and new members."""
    make, name = Sacctmgr(rules.cluster), team.account.name
    new = sorted(team.wanted - team.account.users - observed.strangers)
    commands = list(_use(team, rules, make))
    if new:
        commands += [make_home(user) for user in new] if rules.homedirs else []
        commands.append(make.add_users(name, new, None))
    defaults = observed.tenancy.tree.defaults
    commands += [
        make.set_default(user, name) for user in sorted(team.wanted & team.account.users) if not defaults.get(user)
    ]
    return Commands(name, f"members and use of {name}", tuple(commands)) if commands else None


def _use(team: _Team, rules: MemberRules, make: Sacctmgr) -> Iterator[Command]:
    """Paused: the QOS for that, or no job at all. Downscaled: the QOS for that. Other QOS of the account stay."""
    resource, account = team.resource, team.account
    blocked = bool(resource.paused) and rules.paused_qos is None
    if blocked and account.max_submitted != 0:
        yield make.set_max_submitted(account.name, 0)
    elif resource.paused is False and account.max_submitted == 0:
        yield make.set_max_submitted(account.name, None)
    qos = rules.paused_qos if resource.paused else rules.downscaled_qos if resource.downscaled else None
    if qos and account.default_qos != qos:
        yield make.add_qos(account.name, qos)
    if not qos and account.default_qos and account.default_qos in {rules.paused_qos, rules.downscaled_qos}:
        yield make.remove_qos(account.name, account.default_qos)


def _removals(teams: list[_Team], observed: Members, rules: MemberRules) -> dict[str, Commands]:
    """By key, what each of those takes who left: cancel their jobs, give them another default, take them out.

    Slurm refuses the last until the jobs have ended.
    """
    make = Sacctmgr(rules.cluster)
    leavers = [(team.account.name, user) for team in teams for user in team.leavers]
    return {
        f"{name}/{user}": Commands(
            f"{name}/{user}",
            f"{user} is not in the team",
            (cancel_jobs(name, user), *removal(name, user, observed.tenancy, make, rules.default_account)),
        )
        for name, user in leavers
    }


def _emptied(teams: list[_Team]) -> str | None:
    """Why these lose nobody now."""
    if not teams:
        return None
    return f"no member is left of {_few([team.account.name for team in teams])}: {_WITHHELD}"


def _note(observed: Members, teams: list[_Team], rules: MemberRules) -> str | None:
    notes = []
    if observed.strangers:
        names = _few(sorted(observed.strangers))
        notes.append(f"not added before the cluster knows them as users (id -u): {names}")
    absent = {f"{t.account.name}/{user}" for t in teams for user in t.account.users - t.wanted - {*t.leavers, "root"}}
    if waiting := sorted(absent & {key for key, count in observed.missed.items() if count < rules.absent_rounds}):
        notes.append(f"not in the team, and out of the account after {rules.absent_rounds} readings: {_few(waiting)}")
    return "; ".join(notes) or None


def _few(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
