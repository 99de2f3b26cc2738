"""Who may use which allocation: the portal's teams, under the names that their members have on the cluster."""

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from cvagent.clients.accounts import SlurmAccounts
from cvagent.clients.portal_orders import PortalOrders
from cvagent.model import Ask
from cvagent.model.accounts import AccountTree
from cvagent.model.orders import Listing, Resource, ResourceState, TeamMember, Username
from cvagent.model.tenancy import Members, Tenancy
from cvagent.sources.tenancy import TenancySource

# So many readings in a row that miss somebody are as soon as may be; later ones cannot tell much more.
_SOONER = 10


class _Team(NamedTuple):
    """A team as it was read last; see Members."""

    read_at: float
    names: frozenset[str]
    problems: tuple[str, ...]
    missed: Mapping[str, int]


class MemberSource:
    """A `ports.Source`.

    A team costs a request of its own, so it is read again only after a while; but sooner, with the next look at the
    portal, while somebody who is in the account is missing in it.

    Args:
        usernames: offering (the offering's users), freeipa (FreeIPA profiles) or portal (the name at the portal).
        max_age_s: A team that was read earlier than this is read again, in seconds.
    """

    def __init__(
        self, tenancy: TenancySource, portal: PortalOrders, slurm: SlurmAccounts, usernames: str, max_age_s: float
    ) -> None:
        self._tenancy = tenancy
        self._portal = portal
        self._slurm = slurm
        self._usernames = usernames
        self._max_age_s = max_age_s
        self._teams: dict[str, _Team] = {}

    def observe(self, ask: Ask) -> Members:
        """Ask the portal and Slurm. Raises SourceError when either does not answer."""
        tenancy = self._tenancy.observe(ask)
        self._read_teams(tenancy)
        teams = {uuid: team.names for uuid, team in self._teams.items()}
        return Members(
            tenancy=tenancy,
            teams=teams,
            unsure={uuid for uuid, team in self._teams.items() if team.problems},
            missed={key: count for team in self._teams.values() for key, count in team.missed.items()},
            strangers=self._strangers(tenancy, teams),
            problems=[problem for team in self._teams.values() for problem in team.problems],
        )

    def observe_all(self, ask: Ask) -> Members:
        """The same with resources in states that are not known here, too. Raises SourceError."""
        seen = self.observe(ask)
        # Asked for last: what the portal does not show now, Slurm's accounts were not made for.
        listed = self._portal.resources()
        there = {one.uuid: one for one in listed.items if one.state is not ResourceState.TERMINATED}
        problems = (*seen.tenancy.problems, *listed.problems)
        return replace(seen, tenancy=replace(seen.tenancy, resources=there, problems=problems))

    def _read_teams(self, tenancy: Tenancy) -> None:
        """Read the teams that are due, and forget those of resources that are gone."""
        now = time.monotonic()
        self._teams = {uuid: team for uuid, team in self._teams.items() if uuid in tenancy.resources}
        due = [
            resource
            for resource in tenancy.resources.values()
            if resource.backend_id and self._is_due(resource, tenancy.tree, now)
        ]
        names = self._names() if due else Listing(())
        by_person = {person: name for person, name in names.items if name}
        for resource in due:
            team = self._portal.team(resource.uuid)
            named = frozenset(filter(None, (self._name(member, by_person) for member in team.items)))
            problems = names.problems + team.problems
            missed = self._missed(resource, _missing(resource, tenancy.tree, named), good=not problems)
            self._teams[resource.uuid] = _Team(now, named, problems, missed)

    def _is_due(self, resource: Resource, tree: AccountTree, now: float) -> bool:
        team = self._teams.get(resource.uuid)
        if team is None:
            return True
        soon = any(team.missed.get(key, 0) < _SOONER for key in _missing(resource, tree, team.names))
        return now - team.read_at >= (min(self._max_age_s, self._tenancy.fresh_s) if soon else self._max_age_s)

    def _missed(self, resource: Resource, missing: Iterable[str], *, good: bool) -> dict[str, int]:
        """How often each was missed in a row; a reading that is not good does not count."""
        team = self._teams.get(resource.uuid)
        before = team.missed if team else {}
        return {key: before.get(key, 0) + int(good) for key in missing}

    def _names(self) -> Listing[Username]:
        if self._usernames == "freeipa":
            return self._portal.freeipa_profiles()
        return self._portal.offering_users() if self._usernames == "offering" else Listing(())

    def _name(self, member: TeamMember, by_person: Mapping[str, str]) -> str:
        """Their name on the cluster; empty when they have none (yet)."""
        if self._usernames == "portal":
            return member.username
        return by_person.get(member.uuid, "") or (member.offering_username if self._usernames == "offering" else "")

    def _strangers(self, tenancy: Tenancy, teams: Mapping[str, frozenset[str]]) -> frozenset[str]:
        """Those who are to come into an account, and whom the cluster's machine does not know."""
        coming: set[str] = set()
        for uuid, names in teams.items():
            account = tenancy.tree.accounts.get(tenancy.resources[uuid].backend_id.lower())
            coming |= names - account.users if account else set()
        new = frozenset(coming)
        return new - self._slurm.known_users(new)


def _missing(resource: Resource, tree: AccountTree, names: frozenset[str]) -> set[str]:
    """By `account/user`, those who are in the account and not in its team."""
    account = tree.accounts.get(resource.backend_id.lower())
    return {f"{account.name}/{user}" for user in account.users - names - {"root"}} if account else set()
