"""Slurm's accounts, as Slurm shows them."""

from collections.abc import Mapping
from typing import NamedTuple


class Account(NamedTuple):
    """One account on one cluster.

    Attributes:
        parent: Name of the account above; empty for root.
        users: Those who have an association with it.
        tres_minutes: GrpTRESMins by TRES; memory in MiB-minutes.
        max_submitted: GrpSubmitJobs; None without a limit.
        qos: Every QOS that its jobs may use.
        default_qos: Empty when Slurm's own default counts.
    """

    name: str
    parent: str
    users: frozenset[str] = frozenset()
    tres_minutes: Mapping[str, int] = {}
    max_submitted: int | None = None
    qos: frozenset[str] = frozenset()
    default_qos: str = ""


class AccountTree(NamedTuple):
    """All accounts of a cluster, root among them.

    Attributes:
        accounts: By name.
        defaults: The default account of each user.
        shared: The database serves other clusters too.
    """

    accounts: Mapping[str, Account]
    defaults: Mapping[str, str] = {}
    shared: bool = False

    def accounts_of(self, user: str) -> list[str]:
        """The accounts that a user has an association with, by name."""
        return sorted(name for name, account in self.accounts.items() if user in account.users)
