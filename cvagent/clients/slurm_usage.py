"""Asks Slurm's accounting what accounts used in a span of time."""

import re
from collections import defaultdict
from collections.abc import Sequence

from cvagent.clients.marked import lists, new_mark, number, split_rows
from cvagent.clients.runner import Runner
from cvagent.errors import Unreadable
from cvagent.model.usage import tres_seconds

_FIELDS = ("Account", "User", "JobIDRaw", "Submit", "Start", "State", "ElapsedRaw", "Suspended", "AllocTRES")
_SPAN = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", re.ASCII)

Used = dict[str, dict[str, dict[str, int]]]


class SlurmUsage:
    """See `clients.slurm.Slurm`."""

    def __init__(self, runner: Runner, timeout_s: float) -> None:
        self._runner = runner
        self._timeout_s = timeout_s

    def used(self, accounts: Sequence[str], start: int, end: int) -> Used:
        """TRES-seconds by account, user and TRES in [start, end), of all runs, those before a requeue too.

        Args:
            accounts: Names of letters, digits and `_ . @ + -`, in lower case.
            start: Epoch seconds.
            end: Epoch seconds; what is still running counts until now.

        Raises:
            CommandFailed, Unreadable: Nothing is known.
        """
        used: Used = defaultdict(lambda: defaultdict(lambda: defaultdict(int)))
        for some in lists(accounts):
            mark = new_mark()
            # Without -D the runs before a requeue would be missing; with -T Slurm cuts what reaches beyond the span.
            options = ["-X", "-D", "-a", "-T", "--noconvert", "-n", "-p", f"--delimiter={mark}", f"--accounts={some}"]
            window = ["-S", f"uts{start}", "-E", f"uts{end}", "-o", ",".join(_FIELDS)]
            answer = self._runner.run(["sacct", *options, *window], timeout_s=self._timeout_s)
            for row in split_rows(answer.decode(errors="replace"), mark, len(_FIELDS)):
                _add(used, row)
        return used


def _add(used: Used, row: list[str]) -> None:
    account, user, job_id, _submit, started, _state, elapsed, suspended, allocated = row
    if started in {"Unknown", "None", ""}:
        return
    try:
        seconds = tres_seconds(allocated, number(elapsed), _seconds(suspended))
    except (ValueError, ArithmeticError):
        said = f"elapsed {elapsed[:20]}, suspended {suspended[:20]}, AllocTRES {allocated[:100]}"
        raise Unreadable(f"sacct printed a usage that cannot be read, of job {job_id[:20]}: {said}") from None
    of_user = used[account.lower()][user]
    for tres, amount in seconds.items():
        of_user[tres] += amount


def _seconds(span: str) -> int:
    """Seconds of Slurm's [days-]hours:minutes:seconds.

    >>> _seconds("1-00:00:09")
    86409
    """
    found = _SPAN.fullmatch(span)
    if not found:
        raise ValueError(f"{span!r} is no span of time")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
