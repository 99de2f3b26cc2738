"""Decides what the portal is to be told about usage: per component, in sold units, and per user."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from math import floor
from typing import NamedTuple

from msgspec import Struct

from cvagent.guard import refusal
from cvagent.model import Change, Known, Plan
from cvagent.model.components import Component
from cvagent.model.usage import Allotted, Month, TresSeconds, UsageReport, UsageSeen

_MINUTE_S = 60
_DAY_S = 86_400

# What the portal has, by key.
Before = Mapping[str, UsageReport]


class UsageRules(Struct, frozen=True):
    """What the operator decided.

    Attributes:
        components: What is sold, by TRES.
        final_days: For how many days of the next month a month is told again.
        removal_share: See `guard.RemovalRules`, for this and what follows. A round is complete or skipped: what is
            not in it was not used.
    """

    components: Mapping[str, Component]
    final_days: int
    removal_share: float = 0.3
    absent_rounds: int = 1
    force: bool = False


def plan_usage(observed: UsageSeen, known: Mapping[str, Known[UsageReport]], rules: UsageRules) -> Plan:
    """Count what was used, and say what the portal does not have yet.

    A total may have fallen since. Where many of a month fell to nothing, what fell in it is withheld: an agent that may
    see its own jobs alone is told the same as one whose cluster stood still.
    """
    before = {key: item.document for key, item in known.items()}
    wanted = [
        _report(_Account(allotted, month, observed.decimals, by_account.get(allotted.account, {})), before, rules)
        for month, by_account in observed.used.items()
        for allotted in observed.allotted
    ]
    changes = [
        Change(before.get(report.key), report, "changed" if report.key in before else "new")
        for report in wanted
        if before.get(report.key) != report
    ]
    doubts = {month: doubt for month in map(str, observed.used) if (doubt := _doubt(month, wanted, before, rules))}
    held = {one.key for one in wanted if one.month in doubts and _fell(one, before)}
    return Plan(
        changes=[change for change in changes if change.after.key not in held],
        refused=[change for change in changes if change.after.key in held],
        refusal="; ".join(doubts.values()) or None,
        unchanged=len(wanted) - len(changes),
        problems=observed.problems,
        note=observed.note,
    )


def _doubt(month: str, wanted: Iterable[UsageReport], before: Before, rules: UsageRules) -> str | None:
    """Why it is not to be believed that so many accounts used nothing in this month; None when it is."""
    had = [one for one in wanted if one.month == month and any(_told(one, before).values())]
    gone = sum(not any(amount for _, amount in one.total) for one in had)
    things, withheld = f"accounts whose usage of {month} was told used nothing in it", "what fell is"
    if reason := refusal(gone, len(had), rules, f"{things}: {withheld}"):
        return reason
    whole = gone == len(had) > 1 and not rules.force
    return f"all {gone} {things}: {withheld} withheld until 'cvagent run --once --force'" if whole else None


def _fell(report: UsageReport, before: Before) -> bool:
    told = _told(report, before)
    return any(amount < told.get(tres, amount) for tres, amount in report.total)


def _told(report: UsageReport, before: Before) -> dict[str, Decimal]:
    """What was told before of the components that are sold now."""
    sold = dict(report.total)
    return {tres: amount for tres, amount in before[report.key].total if tres in sold} if report.key in before else {}


class _Account(NamedTuple):
    """What one account used in a month, and how exactly it is to be told."""

    allotted: Allotted
    month: Month
    decimals: int
    used: Mapping[str, TresSeconds]


def _report(account: _Account, before: Before, rules: UsageRules) -> UsageReport:
    (resource, name), month, decimals, used = account
    nothing = Decimal(0).scaleb(-decimals)
    key = f"{resource}/{month}"
    shares = {
        component.tres: in_units(
            {user: seconds.get(component.tres, 0) for user, seconds in used.items()}, component, decimals
        )
        for component in rules.components.values()
    }
    # A user who was told of before and used nothing is told of again: that was a mistake, and is repaired.
    told = {user for user, _ in before[key].users} if key in before else set()
    users = sorted(told | {user for share in shares.values() for user, amount in share.items() if user and amount})
    return UsageReport(
        key=key,
        resource=resource,
        account=name,
        month=str(month),
        total=tuple((tres, sum(share.values(), nothing)) for tres, share in shares.items()),
        users=tuple(
            (user, tuple((tres, share.get(user, nothing)) for tres, share in shares.items())) for user in users
        ),
        ended_at=month.end + rules.final_days * _DAY_S,
    )


def in_units(seconds: Mapping[str, int], component: Component, decimals: int) -> dict[str, Decimal]:
    """TRES-seconds of each user in sold units. They add up to what all together used, rounded once.

    >>> from cvagent.model.components import Accounting
    >>> hours = Component("cpu", "CPU", "Hours", Accounting.USAGE, unit_factor=Decimal(60))
    >>> in_units({"alice": 3600, "bob": 1200, "carol": 1200}, hours, 2)
    {'alice': Decimal('1.00'), 'bob': Decimal('0.34'), 'carol': Decimal('0.33')}
    """
    whole = Fraction(component.unit_factor) * _MINUTE_S / 10**decimals
    exact = {user: amount / whole for user, amount in seconds.items()}
    parts = {user: floor(amount) for user, amount in exact.items()}
    missing = floor(sum(exact.values()) + Fraction(1, 2)) - sum(parts.values())
    for user in sorted(exact, key=lambda user: (parts[user] - exact[user], user))[:missing]:
        parts[user] += 1
    return {user: Decimal(part).scaleb(-decimals) for user, part in parts.items()}
