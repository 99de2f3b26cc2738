"""Usage: what was used of what is sold, by account, user and month. Months are civil months in UTC."""

import datetime as dt
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import NamedTuple

from msgspec import Struct

# Powers of 1024 above MiB.
_MEMORY = {"K": -1, "M": 0, "G": 1, "T": 2, "P": 3, "E": 4}
# Slurm tells totals of these, no rates.
_TOTALS = frozenset({"energy", "pages", "vmem", "fs/disk", "ic/ofed"})

TresSeconds = Mapping[str, int]


class Month(NamedTuple):
    """A civil month in UTC.

    >>> str(Month.of(1772323199)), str(Month(2026, 1).before), Month(2026, 12).end - Month(2027, 1).start
    ('2026-02', '2025-12', 0)
    """

    year: int
    month: int

    @classmethod
    def of(cls, epoch: float) -> "Month":
        """The month that an epoch second lies in."""
        at = dt.datetime.fromtimestamp(epoch, dt.timezone.utc)
        return cls(at.year, at.month)

    @property
    def start(self) -> int:
        """Epoch second of its beginning."""
        return int(dt.datetime(self.year, self.month, 1, tzinfo=dt.timezone.utc).timestamp())

    @property
    def end(self) -> int:
        """Epoch second of its end, which is the next one's beginning."""
        return Month(self.year + self.month // 12, self.month % 12 + 1).start

    @property
    def before(self) -> "Month":
        """The month before."""
        return Month.of(self.start - 1)

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"


class Allotted(NamedTuple):
    """A resource whose usage is told.

    Attributes:
        resource: Its uuid at the portal.
        account: Its Slurm account, in lower case.
    """

    resource: str
    account: str


class UsageSeen(Struct, frozen=True):
    """All that Slurm said about usage in one round.

    Attributes:
        at: Epoch seconds when asking began.
        allotted: Whose usage is told.
        used: By month, account and user: what was used. Nobody there used nothing: every question was answered.
        decimals: Places after the point that the portal takes.
        problems: A line for each resource whose usage cannot be told.
        note: Why nothing is told; None when something is.
    """

    at: int
    allotted: tuple[Allotted, ...]
    used: Mapping[Month, Mapping[str, Mapping[str, TresSeconds]]]
    decimals: int
    problems: tuple[str, ...] = ()
    note: str | None = None


Amounts = tuple[tuple[str, Decimal], ...]


class UsageReport(Struct, frozen=True, array_like=True, tag="usage"):
    """What a resource used in a month, up to now: absolute, so that it may be sent again.

    Attributes:
        key: `<resource's uuid>/<month>`.
        account: Its Slurm account.
        month: Such as 2026-03.
        total: Amount by component, in sold units.
        users: Likewise for each user. They add up to the total.
        ended_at: Epoch second from which on the month is told no more.
    """

    key: str
    resource: str
    account: str
    month: str
    total: Amounts
    users: tuple[tuple[str, Amounts], ...]
    ended_at: int

    @property
    def word(self) -> str:
        """Its month."""
        return self.month

    @property
    def identity(self) -> str:
        """What tells it from any other."""
        return self.key

    @property
    def inferred(self) -> bool:
        """It was counted."""
        return False

    def __str__(self) -> str:
        amounts = ", ".join(f"{component} {amount}" for component, amount in self.total)
        return f"{self.account}  {amounts}  ({len(self.users)} user{'' if len(self.users) == 1 else 's'})"


@lru_cache(maxsize=4096)
def allocated(tres: str) -> Mapping[str, int]:
    """What Slurm's AllocTRES says, memory in MiB. Totals, such as energy, are left out. Raises ValueError.

    >>> allocated("billing=2,cpu=2,gres/gpu:a100=2,gres/gpu=2,mem=1.50G,energy=7")
    {'billing': 2, 'cpu': 2, 'gres/gpu:a100': 2, 'gres/gpu': 2, 'mem': 1536}
    """
    pairs = [pair.partition("=") for pair in tres.split(",") if pair]
    counts = {name: _count(name, text) for name, _, text in pairs if name not in _TOTALS}
    typed = [name for name in counts if name.startswith("gres/") and ":" in name]
    for name in typed:
        whole = name.partition(":")[0]
        if not any(known == whole for known, _, _ in pairs):
            counts[whole] = counts.get(whole, 0) + counts[name]
    return counts


def _count(name: str, text: str) -> int:
    """A count; memory in MiB, to which a number without a unit belongs too."""
    if name != "mem":
        return int(text)
    number, unit = (text[:-1], text[-1]) if text[-1:] in _MEMORY else (text, "M")
    mebibytes = Decimal(number) * Decimal(1024) ** _MEMORY[unit]
    return int(mebibytes.to_integral_value(ROUND_HALF_UP))


def tres_seconds(tres: str, active_s: int, suspended_s: int) -> dict[str, int]:
    """What one run used. Suspended, it keeps all but its CPUs, as in slurmdbd's own sums. Raises ValueError.

    >>> tres_seconds("cpu=2,mem=512M", 60, 40)
    {'cpu': 120, 'mem': 51200}
    """
    held_s = active_s + suspended_s
    return {name: count * (active_s if name == "cpu" else held_s) for name, count in allocated(tres).items()}
