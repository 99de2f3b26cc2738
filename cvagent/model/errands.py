"""What is to be done once: commands on the cluster, answers to the portal.

An errand stands in the outbox until it is done, and then no more: whether it must be done again, what is there shows.
"""

import shlex
from enum import Enum

from msgspec import Struct


class _Errand(Struct, frozen=True, array_like=True):
    """What a document of the store must say of itself, for one that stands until it is done."""

    key: str

    @property
    def ended_at(self) -> None:
        """It stands until it is done."""
        return

    @property
    def inferred(self) -> bool:
        """What is to be done was seen."""
        return False

    @property
    def identity(self) -> str:
        """The key."""
        return self.key


class Commands(_Errand, frozen=True, array_like=True, tag="commands"):
    """What is to be done on the cluster, in this order. Each command may be repeated.

    Attributes:
        key: Of an order its uuid; of an account's members the account's name, or `account/user`.
        about: What it is for, in a few words.
        commands: Program and arguments of each; none: nothing is left to do.
    """

    about: str
    commands: tuple[tuple[str, ...], ...] = ()

    @property
    def word(self) -> str:
        """What remains, in a word."""
        return "TO DO" if self.commands else "NOTHING"

    def __str__(self) -> str:
        """What it is for, and each command as a shell would take it."""
        return "\n      ".join([_printable(self.about), *map(shlex.join, self.commands)])


class Associated(_Errand, frozen=True, array_like=True, tag="associated"):
    """Who is in an allocation's account, for a portal that keeps a list of its own of that.

    Attributes:
        key: The resource's uuid.
        allocation: Uuid of the portal's Slurm allocation.
        account: Its Slurm account.
        users: All of them.
    """

    allocation: str
    account: str
    users: tuple[str, ...]

    @property
    def word(self) -> str:
        """How many there are."""
        return str(len(self.users))

    def __str__(self) -> str:
        return f"{self.account}: {', '.join(self.users) or 'nobody'}"


class Verdict(str, Enum):
    """What becomes of an order."""

    APPROVE = "APPROVE"
    DONE = "DONE"
    ERRED = "ERRED"
    NOTHING = "NOTHING"


class OrderAnswer(_Errand, frozen=True, array_like=True, tag="answer"):
    """What the portal is to hear about an order. Once more does no harm.

    Attributes:
        key: The order's uuid.
        name: What the tenant calls the allocation.
        resource_uuid: None when the resource ends with the order, or there is none.
        backend_id: The account's name, to be written into the resource; empty when it is not.
        reason: Of ERRED: why.
        ending: Of DONE: the resource that ends with the order; its last usage is told before. None when it lives on.
        as_before: Of ERRED: the allocation is as good as it was before the order.
    """

    verdict: Verdict
    name: str
    resource_uuid: str | None = None
    backend_id: str = ""
    reason: str = ""
    ending: str | None = None
    as_before: bool = False

    @property
    def word(self) -> str:
        """The verdict."""
        return self.verdict.value

    def __str__(self) -> str:
        """One line for people."""
        return "  ".join(filter(None, [_printable(self.name), self.backend_id, _printable(self.reason)]))


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


Errand = Commands | OrderAnswer
