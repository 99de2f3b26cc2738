"""What a round asks, knows and decides."""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct

from cvagent.model.errands import Associated, Commands, OrderAnswer
from cvagent.model.jobs import JobConfig
from cvagent.model.nodes import NodeConfig
from cvagent.model.tenants import TenantConfig
from cvagent.model.usage import UsageReport

Document = JobConfig | NodeConfig | UsageReport | Associated | Commands | OrderAnswer | TenantConfig
D = TypeVar("D", JobConfig, NodeConfig, UsageReport, Associated, Commands, OrderAnswer, TenantConfig)


class Absence(Struct, frozen=True, gc=False):
    """How long a known thing was not to be seen.

    Attributes:
        rounds: Good observations in a row; 0 when it is to be seen.
        since: Epoch seconds of the first of them.
    """

    rounds: int = 0
    since: int = 0


SEEN = Absence()


class Known(Struct, Generic[D], frozen=True, gc=False):
    """A document as the store holds it, with what the plan needs to go on."""

    document: D
    absence: Absence = SEEN

    @property
    def is_open(self) -> bool:
        """Whether Slurm is still to be asked about it: it runs, or its end was inferred."""
        return self.document.ended_at is None or self.document.inferred


class Change(NamedTuple):
    """One effect of a plan: this document is to stand in the sink under its key.

    Attributes:
        why: new, changed, ended, or lost (its end was inferred).
    """

    before: Document | None
    after: Document
    why: str


class Plan(Struct, frozen=True):
    """What a round decided. A value: it can be printed, compared, and it can refuse part of itself.

    Attributes:
        changes: To be written, in no order.
        absences: By key, where it changed: what was known and not to be seen, or is to be seen again.
        refused: Changes withheld by the share guard, with the reason in `refusal`.
        refusal: None when nothing was withheld; else one line that says why and what `--force` would do.
        unchanged: How many known, open documents are as they should be.
        problems: What the round could not read or decide, a line each.
        note: What a person should know although all is well; None when there is nothing.
    """

    changes: Sequence[Change] = ()
    absences: Mapping[str, Absence] = {}
    refused: Sequence[Change] = ()
    refusal: str | None = None
    unchanged: int = 0
    problems: Sequence[str] = ()
    note: str | None = None


class Ask(Struct, frozen=True):
    """What a round asks of a source.

    Attributes:
        now: Epoch seconds.
        since: Ended runs are looked for from here on (overlap included).
        known: What the store holds: open runs must each be found or be said to be absent; all others are new.
        cold: The store knows nothing of this cluster: look at all that was there since `since`.
    """

    now: int
    since: int
    known: Mapping[Any, Known[Any]]
    cold: bool
