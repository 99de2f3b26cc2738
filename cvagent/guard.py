"""What guards removals: nothing is gone before it was missed for some rounds, and never much at a time."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from cvagent.model import SEEN, Absence, Known

# With this many known things or fewer the share guard is silent.
FEW = 10


class RemovalRules(Protocol):
    """What the operator decided about removals."""

    @property
    def absent_rounds(self) -> int:
        """Good observations in a row after which what Slurm no longer shows is taken as gone."""

    @property
    def removal_share(self) -> float:
        """A plan that would remove more than this share of what is known refuses to."""

    @property
    def force(self) -> bool:
        """Let it."""


def overdue(lost: Iterable[Known[Any]], rules: RemovalRules) -> list[Known[Any]]:
    """Those of the lost that were missed for long enough."""
    return [item for item in lost if item.absence.rounds + 1 >= rules.absent_rounds]


def absences(known: Iterable[Known[Any]], lost: Sequence[Known[Any]], at: int) -> dict[str, Absence]:
    """By key, what changed: the lost were missed once more, others are to be seen again."""
    gone = {item.document.key for item in lost}
    again = {item.document.key: SEEN for item in known if item.absence.rounds and item.document.key not in gone}
    missed = {item.document.key: Absence(item.absence.rounds + 1, item.absence.since or at) for item in lost}
    return {**again, **missed}


def refusal(removed: int, known: int, rules: RemovalRules, what: str) -> str | None:
    """Why so many of the known may not be removed at once; None when they may.

    `what` says what they are and what is withheld, with a colon between.
    """
    if rules.force or known <= FEW or removed <= rules.removal_share * known:
        return None
    things, withheld = what.split(": ")
    return (
        f"{removed} of {known} {things}, more than the share of {rules.removal_share:.0%} "
        f"(CVAGENT_REMOVAL_SHARE): {withheld} withheld until 'cvagent run --once --force'"
    )
