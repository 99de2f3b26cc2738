"""Asks Slurm which nodes belong to which account. Names here are an administrator's."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from cvagent.clients.runner import Runner
from cvagent.errors import Unreadable

_NONE = ("No reservations in the system", "No partitions in the system")
_FIELD = re.compile(r" (\w+)=(\S+)")
_END = "\x1e"


class SlurmPlaces:
    """One method a question; each raises CommandFailed, or Unreadable for an answer in another form.

    Args:
        timeout_s: Limit for one command, in seconds.
    """

    def __init__(self, runner: Runner, timeout_s: float) -> None:
        self._runner = runner
        self._timeout_s = timeout_s

    def reservations(self) -> dict[str, list[str]]:
        """Hostlists of active reservations, by each account that they hold."""
        found = defaultdict(list)
        for fields in self._records("reservation"):
            if fields.get("State") == "ACTIVE":
                for account in _accounts(fields.get("Accounts", "")):
                    found[account].append(fields.get("Nodes", ""))
        return _named(found)

    def partitions(self) -> dict[str, list[str]]:
        """Hostlists of partitions that allow one account alone, by that account."""
        found = defaultdict(list)
        for fields in self._records("partition"):
            accounts = _accounts(fields.get("AllowAccounts", ""))
            if len(accounts) == 1:
                found[accounts[0]].append(fields.get("Nodes", ""))
        return _named(found)

    def jobs(self) -> dict[str, list[str]]:
        """Hostlists of running jobs, by account."""
        said = self._ask(["squeue", "-h", "-a", "-t", "RUNNING,SUSPENDED", "-O", f"Account:{_END},NodeList:{_END}"])
        words = [word.strip("\n") for word in said.split(_END)]
        if words.pop() or len(words) % 2:
            raise Unreadable("squeue printed half a record at the end of its answer")
        found = defaultdict(list)
        for account, nodes in zip(words[::2], words[1::2], strict=True):
            found[account.lower()].append(nodes)
        return _named(found)

    def _records(self, what: str) -> Iterator[dict[str, str]]:
        said = self._ask(["scontrol", "-a", "-o", "show", what])
        for line in said.splitlines():
            if line and line not in _NONE:
                fields = dict(_FIELD.findall(line))
                if "Nodes" not in fields:
                    raise Unreadable(f"scontrol show {what} printed a line without nodes")
                yield fields

    def _ask(self, command: Sequence[str]) -> str:
        return self._runner.run(command, timeout_s=self._timeout_s).decode(errors="replace")


def _accounts(text: str) -> list[str]:
    """The accounts of a list; none for ALL, and for one that says who may not.

    >>> _accounts("proj-a,B"), _accounts("-proj-a"), _accounts("ALL"), _accounts("(null)")
    (['proj-a', 'b'], [], [], [])
    """
    if text in {"", "(null)", "ALL"} or text.startswith("-"):
        return []
    return text.lower().split(",")


def _named(found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Without what names no nodes."""
    named = {account: [one for one in lists if one not in {"", "(null)"}] for account, lists in found.items()}
    return {account: lists for account, lists in named.items() if lists}
