"""What the accounts of the portal's resources used: the portal says which, Slurm's accounting says what."""

import re
from collections import Counter
from collections.abc import Iterator

from cvagent.clients.portal import Portal
from cvagent.clients.portal_orders import PortalOrders
from cvagent.clients.slurm_usage import SlurmUsage
from cvagent.model import Ask
from cvagent.model.orders import Listing, Resource, ResourceState
from cvagent.model.usage import Allotted, Month, UsageSeen

# In other states the portal takes no usage.
BILLED = (ResourceState.OK, ResourceState.UPDATING, ResourceState.TERMINATING)
_ACCOUNT = re.compile(r"[a-z0-9_.@+-]+")
_DAY_S = 86_400


class AllottedUsage:
    """A `ports.Source`. One sacct call a month that is told, and the pages of the portal's resources.

    Args:
        final_days: For how many days of the next month a month is told again.
    """

    def __init__(self, usage: SlurmUsage, portal: Portal, offering: str, final_days: int) -> None:
        self._usage = usage
        self._portal = portal
        self._orders = PortalOrders(portal, offering)
        self._final_days = final_days

    def observe(self, ask: Ask) -> UsageSeen:
        """Ask the portal, then Slurm; raise SourceError when any one question was not answered."""
        return self._seen(self._orders.resources(BILLED), ask.now)

    def observe_one(self, resource_uuid: str, now: int) -> UsageSeen:
        """What one resource used. Raises SourceError likewise."""
        resource = self._orders.resource(resource_uuid)
        known = resource if resource and resource.state in BILLED else None
        return self._seen(Listing((known,) if known else ()), now)

    def _seen(self, listed: Listing[Resource], now: int) -> UsageSeen:
        dialect = self._portal.dialect
        allotted, problems = _allotted(listed.items)
        problems = (*listed.problems, *problems)
        months, note = self._months(now, dated=dialect.dated)
        accounts = [account for _, account in allotted]
        used = {month: self._usage.used(accounts, month.start, min(month.end, now)) for month in months}
        return UsageSeen(now, allotted, used, dialect.decimals, problems, note)

    def _months(self, now: int, *, dated: bool) -> tuple[list[Month], str | None]:
        """The months to be told, and why one is not. The portal's month counts, by its own clock."""
        ours, theirs = Month.of(now), Month.of(self._portal.date or now)
        if ours != theirs:
            return [], f"held: it is {theirs} at the portal and {ours} here"
        final = dated and now < ours.start + self._final_days * _DAY_S
        return [ours.before, ours] if final else [ours], None


def _allotted(resources: tuple[Resource, ...]) -> tuple[tuple[Allotted, ...], tuple[str, ...]]:
    """Whose usage can be told, and a line for each that cannot: an account is billed to one resource alone."""
    named = [(resource, resource.backend_id.lower()) for resource in resources if resource.backend_id]
    shared = {account for account, times in Counter(account for _, account in named).items() if times > 1}
    problems = tuple(_problems(named, shared))
    good = (Allotted(resource.uuid, account) for resource, account in named if account not in shared)
    return tuple(one for one in good if _ACCOUNT.fullmatch(one.account)), problems


def _problems(named: list[tuple[Resource, str]], shared: set[str]) -> Iterator[str]:
    for resource, account in named:
        if account in shared:
            yield f"resource {resource.uuid}: its account {account} is another's too: the usage of none is told"
        elif not _ACCOUNT.fullmatch(account):
            yield f"resource {resource.uuid}: its backend_id {resource.backend_id[:60]!r} is no account's name"
