"""Who may use which allocation: the portal's teams, under the names that their members have on the cluster."""

import time
from collections.abc import Mapping
from typing import NamedTuple

from cvagent.clients.accounts import SlurmAccounts
from cvagent.clients.portal_orders import PortalOrders
from cvagent.model import Ask
from cvagent.model.orders import Listing, TeamMember, Username
from cvagent.model.tenancy import Members, Tenancy
from cvagent.sources.tenancy import TenancySource


class _Team(NamedTuple):
    read_at: float
    names: frozenset[str]
    problems: tuple[str, ...]


class MemberSource:
    """A `ports.Source`.

    A team costs a request of its own, so it is read again only after a while.

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
            strangers=self._strangers(tenancy, teams),
            problems=[problem for team in self._teams.values() for problem in team.problems],
        )

    def _read_teams(self, tenancy: Tenancy) -> None:
        """Read the teams that are due, and forget those of resources that are gone."""
        now = time.monotonic()
        self._teams = {uuid: team for uuid, team in self._teams.items() if uuid in tenancy.resources}
        due = [
            resource.uuid
            for resource in tenancy.resources.values()
            if resource.backend_id and self._is_due(resource.uuid, now)
        ]
        names = self._names() if due else Listing(())
        by_person = {person: name for person, name in names.items if name}
        for uuid in due:
            team = self._portal.team(uuid)
            named = frozenset(filter(None, (self._name(member, by_person) for member in team.items)))
            self._teams[uuid] = _Team(now, named, names.problems + team.problems)

    def _is_due(self, uuid: str, now: float) -> bool:
        team = self._teams.get(uuid)
        return team is None or now - team.read_at >= self._max_age_s

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
