#!/usr/bin/env python3
"""What goes on around cvagent's tenants in the lab named by LAB, until SIGTERM or SIGINT.

The provider's staff: whoever gets an account gets a node too, by a reservation, while any but the first two is left;
it ends with the account. The tenants: each has a job of one of its users run there, most of the time.
`LAB_TRICKLE_SEED` makes the choices repeatable.
"""

from __future__ import annotations

import os
import random
import re
import sys
import threading

from slurmlab.commands import Commands, ending
from slurmlab.errors import LabError

PAUSE_S = 1
FOR_ALL = 2  # nodes that are reserved for nobody
# An allocation's account; those of its project and its customer bear a whole uuid.
ACCOUNT = re.compile(r"hpc_[0-9a-f]{5}_.*")
RESERVATION = re.compile(r"ReservationName=(\S+) .* Nodes=(\S+) ")


class Provider:
    """Gives nodes, and has them used."""

    def __init__(self, commands: Commands, choice: random.Random, end: threading.Event) -> None:
        self._commands = commands
        self._choice = choice
        self._end = end

    def run(self) -> None:
        """Looks until it is to end. Where Slurm does not answer, nothing is done."""
        while not self._end.wait(PAUSE_S):
            accounts, reserved, busy = self._accounts(), self._reserved(), self._busy()
            if accounts is None or reserved is None or busy is None:
                continue
            for account in reserved.keys() - accounts.keys():
                self._commands.ask("scontrol", "delete", f"ReservationName={account}")
            for account in accounts.keys() - reserved.keys():
                self._reserve(account, set(reserved.values()))
            for account in (accounts.keys() & reserved.keys()) - busy:
                self._use(account, accounts[account])

    def _reserve(self, account: str, taken: set[str]) -> None:
        free = [node for node in self._commands.nodes[FOR_ALL:] if node not in taken]
        if free:
            self._commands.ask(
                *("scontrol", "create", "reservation", f"ReservationName={account}", f"Accounts={account}"),
                *("StartTime=now", "Duration=infinite", "Flags=IGNORE_JOBS", f"Nodes={free[-1]}"),
            )

    def _use(self, account: str, users: list[str]) -> None:
        if users:
            place = (f"--account={account}", f"--reservation={account}", "--ntasks=4", "--gres=gpu:2")
            name = f"--job-name={account.split('_', 2)[2]}-epoch"
            script = f"sleep {self._choice.randint(10, 40)}"
            self._commands.submit(script, name, *place, user=self._choice.choice(users))

    def _accounts(self) -> dict[str, list[str]] | None:
        """The users of each allocation's account."""
        said = self._commands.ask("sacctmgr", "-nP", "show", "assoc", "format=account,user")
        if said is None:
            return None
        found: dict[str, list[str]] = {}
        for account, _, user in (line.partition("|") for line in said.splitlines()):
            if ACCOUNT.fullmatch(account):
                found.setdefault(account, []).extend([user] if user else [])
        return found

    def _reserved(self) -> dict[str, str] | None:
        """The node of each account's reservation."""
        said = self._commands.ask("scontrol", "-o", "show", "reservation")
        return None if said is None else dict(RESERVATION.findall(said))

    def _busy(self) -> set[str] | None:
        """The accounts that have a job."""
        said = self._commands.ask("squeue", "-h", "-o", "%a")
        return None if said is None else set(said.split())


def main() -> int:
    """Runs until it is told to end."""
    try:
        commands = Commands(os.environ)
    except LabError as error:
        print(f"lab/provider.py: {error}", file=sys.stderr)
        return 1
    choice = random.Random(os.environ.get("LAB_TRICKLE_SEED"))  # noqa: S311 - which job comes next is no secret
    Provider(commands, choice, ending()).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
