"""Tells the portal what was used, in its dialect: of a resource in a month, and of each user."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from cvagent.clients import portal_records as records
from cvagent.clients.portal import Portal
from cvagent.errors import Permanent, Retryable, SourceError
from cvagent.model import utc
from cvagent.model.orders import PlanPeriod
from cvagent.model.usage import Month, UsageReport

_USAGES = "marketplace-component-usages"
# The oldest dialect knows three figures of a user.
_OLDEST_FIELDS = {"cpu": "cpu_usage", "mem": "ram_usage", "gres/gpu": "gpu_usage"}

Post = tuple[str, Mapping[str, Any]]


class PortalUsage:
    """Each call is absolute and may be repeated; each raises Retryable or Permanent.

    Args:
        clock: Epoch seconds, for a portal that tells no date.
    """

    def __init__(self, portal: Portal, clock: Callable[[], float] = time.time) -> None:
        self._portal = portal
        self._clock = clock

    def tell(self, report: UsageReport) -> None:
        """Tell a resource's total, then what each user used of it."""
        try:
            if self._portal.dialect.dated:
                self._tell_dated(report)
            else:
                self._tell_undated(report)
        except SourceError as error:
            raise Retryable(str(error)) from None

    def _tell_dated(self, report: UsageReport) -> None:
        date = self._date(report)
        body = {"resource": report.resource, "date": date, "usages": _usages(report)}
        self._portal.post(f"{_USAGES}/set_usage/", body)
        shares: dict[str, list[object]] = defaultdict(list)
        for user, amounts in report.users:
            for component, amount in amounts:
                shares[component].append({"username": user, "usage": amount, "date": date})
        kept = self._kept(report)
        self._post_each(
            (f"{_USAGES}/{kept[component]}/set_user_usages/", {"usages": usages})
            for component, usages in shares.items()
        )

    def _tell_undated(self, report: UsageReport) -> None:
        raws = self._portal.get(f"{self._portal.dialect.resources}/{report.resource}/plan_periods/")
        self._must_be_this_month(report)
        listed = records.listing(raws or [], records.plan_period, "plan period")
        if listed.problems:
            raise Retryable(listed.problems[0])
        periods = listed.items
        current = max((period for period in periods if not period.end), key=lambda period: period.start, default=None)
        if current is None:
            raise Permanent("the portal has no current plan period for this resource, and takes no usage without one")
        earlier = [period for period in periods if period is not current and any(period.used.values())]
        usages = _usages(report, earlier)
        self._portal.post(f"{_USAGES}/set_usage/", {"plan_period": current.uuid, "usages": usages})
        if not self._portal.dialect.decimals:
            self._post_each(_users_of_allocation(report))
        elif not earlier:
            # A user's share belongs to one plan's figure; which share of a month is which plan's nobody noted.
            self._post_each(self._users(report))

    def _users(self, report: UsageReport) -> Iterator[Post]:
        kept = self._kept(report)
        for user, amounts in report.users:
            for component, amount in amounts:
                yield f"{_USAGES}/{kept[component]}/set_user_usage/", {"username": user, "usage": amount}

    def _post_each(self, posts: Iterable[Post]) -> None:
        """Write all; a user whom the portal refuses keeps no other from being told of."""
        refusals = [refusal for path, body in posts if (refusal := self._refusal(path, body))]
        if refusals:
            raise refusals[0]

    def _refusal(self, path: str, body: Mapping[str, Any]) -> Permanent | None:
        try:
            self._portal.post(path, body)
        except Permanent as error:
            return error
        return None

    def _kept(self, report: UsageReport) -> Mapping[str, str]:
        """The uuids under which the portal keeps the totals, by component."""
        query = {"resource_uuid": report.resource, "billing_period": f"{report.month}-01"}
        found = records.listing(self._portal.get_all(f"{_USAGES}/", query), records.kept_usage, "usage").items
        kept = {usage.type: usage.uuid for usage in found if usage.billing_period.startswith(report.month)}
        missing = [component for component, _ in report.total if component not in kept]
        if missing:
            raise Retryable(f"the portal does not show the usage of {', '.join(missing)} that it was told")
        return kept

    def _date(self, report: UsageReport) -> str:
        """A time in the month: now by the portal's clock, or the month's last second when it is over."""
        now, month = self._portal.date or self._clock(), _month(report)
        if Month.of(now) < month:
            raise Retryable(f"it is still {Month.of(now)} at the portal")
        return utc(min(int(now), month.end - 1))

    def _must_be_this_month(self, report: UsageReport) -> None:
        """Without a date the month is the portal's own, known from its answer a moment ago."""
        theirs, month = Month.of(self._portal.date or _month(report).start), _month(report)
        if month < theirs:
            raise Permanent(f"{month} is over at the portal, which takes usage of the current month alone")
        if month > theirs:
            raise Retryable(f"it is still {theirs} at the portal")


def _month(report: UsageReport) -> Month:
    year, month = report.month.split("-")
    return Month(int(year), int(month))


def _usages(report: UsageReport, earlier: Sequence[PlanPeriod] = ()) -> list[object]:
    """The month's totals, less what was told to plans that the resource had earlier in it."""
    description = f"Slurm account {report.account}"
    return [
        {"type": component, "amount": _less(amount, component, earlier), "description": description}
        for component, amount in report.total
    ]


def _less(amount: Decimal, component: str, earlier: Sequence[PlanPeriod]) -> Decimal:
    told = sum((period.used.get(component, Decimal(0)) for period in earlier), Decimal(0))
    return max(amount - told, Decimal(0)).quantize(amount)


def _users_of_allocation(report: UsageReport) -> Iterator[Post]:
    year, month = _month(report)
    for user, amounts in report.users:
        figures = {_OLDEST_FIELDS[component]: amount for component, amount in amounts if component in _OLDEST_FIELDS}
        body = {"username": user, "year": year, "month": month, **figures}
        yield f"marketplace-slurm-remote/{report.resource}/set_usage/", body
