"""What is sold: one line of config-components.yaml each."""

import re
from decimal import Decimal
from enum import Enum

from msgspec import Struct

_HOURS = re.compile(r"hour|(^|[^a-z])[kmg]?h$", re.IGNORECASE)


class Accounting(Enum):
    """How a component is billed."""

    USAGE = "usage"
    LIMIT = "limit"


class Component(Struct, frozen=True):
    """One component.

    Attributes:
        tres: As Slurm calls it: cpu, mem, gres/gpu.
        label: Its name at the portal.
        measured_unit: What one sold unit is called; for people alone.
        accounting: How it is billed.
        limit: In sold units: what an allocation may use of it when it is billed by usage. None: no limit.
        unit_factor: TRES-minutes in one sold unit: 60 for hours, 60,000 for k-hours; memory counts in MiB.
    """

    tres: str
    label: str
    measured_unit: str
    accounting: Accounting
    limit: Decimal | None = None
    unit_factor: Decimal = Decimal(1)

    @property
    def doubt(self) -> str | None:
        """A line when its unit says hours and counts as minutes; None as a rule.

        >>> Component("cpu", "CPU", "k-Hours", Accounting.USAGE).doubt
        'cpu: the unit is k-Hours and unit_factor 1, which is TRES-minutes: 60 for hours, 60000 for k-hours'
        """
        if self.unit_factor != 1 or not _HOURS.search(self.measured_unit):
            return None
        what = f"the unit is {self.measured_unit} and unit_factor 1, which is TRES-minutes"
        return f"{self.tres}: {what}: 60 for hours, 60000 for k-hours"
