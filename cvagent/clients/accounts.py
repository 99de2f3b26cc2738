"""Slurm's accounts in slurmdbd: read in three calls, changed command by command.

What users write (descriptions of jobs, names of jobs) is never asked for. Names of accounts and users are an
administrator's; a line that does not have the fields asked for belongs to an account whose name holds `|` or a
newline, which none of ours does, and is left out.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal

from cvagent.clients.runner import Runner
from cvagent.clients.sacctmgr_commands import Command
from cvagent.errors import CommandFailed, Permanent, Retryable, SourceError, Unreadable
from cvagent.model.accounts import Account, AccountTree

_FIELDS = ("Account", "ParentName", "User", "GrpTRESMins", "GrpSubmitJobs", "DefaultQOS", "QOS")
_LIMIT = re.compile(r"([^=,]+)=(\d+(?:\.\d+)?)([MGTP]?)(?:,|$)")
# sacctmgr's words, with exit code 1, for "there is nothing left to do".
_DONE = re.compile(r"Nothing new added|[Aa]lready exists|Nothing modified|Nothing deleted")
_MIB = {"": 1, "M": 1, "G": 1024, "T": 1024**2, "P": 1024**3}
_PASSWD = re.compile(r"([^:]+):[^:]*:(?!0:)\d+:")
_NAMES = 500
_NO_SUCH_NAME = 2
# A shell's exit codes from here on say which signal ended the command.
_SIGNALLED = 128


class _CutOff(Retryable):
    """The command did not come to its end: out of time, not started, or ended by a signal."""


class SlurmAccounts:
    """The accounts of one cluster.

    Args:
        runner: Runs the commands, natively or in a container.
        cluster: Slurm's ClusterName.
        timeout_s: Limit for one command, in seconds.
    """

    def __init__(self, runner: Runner, cluster: str, timeout_s: float) -> None:
        self._runner = runner
        self._cluster = cluster
        self._timeout_s = timeout_s

    def tree(self) -> AccountTree:
        """All accounts with their users. Three calls. Raises CommandFailed or Unreadable."""
        rows = self._rows("assoc", _FIELDS, f"cluster={self._cluster}")
        users: dict[str, set[str]] = defaultdict(set)
        for account, _, user, *_ in rows:
            if user:
                users[account].add(user)
        accounts = {row[0]: _account(row, frozenset(users[row[0]])) for row in rows if not row[2]}
        if "root" not in accounts:
            raise Unreadable(
                f"sacctmgr shows no root account on cluster {self._cluster}: CVAGENT_CLUSTER must be Slurm's "
                "ClusterName, and with PrivateData the agent's user needs AdminLevel=Operator"
            )
        defaults = {row[0]: row[1] for row in self._rows("user", ("User", "DefaultAccount"))}
        return AccountTree(accounts, defaults, len(self._rows("cluster", ("Cluster",))) > 1)

    def admin_level(self, user: str) -> str:
        """Slurm's word for what a user may change; empty for one that Slurm does not know. Raises CommandFailed."""
        levels = {row[0]: row[1] for row in self._rows("user", ("User", "AdminLevel"))}
        return levels.get(user, "")

    def counted_tres(self) -> frozenset[str]:
        """What accounting counts, such as cpu or gres/gpu. Raises CommandFailed or Unreadable."""
        return frozenset(f"{kind}/{name}" if name else kind for kind, name in self._rows("tres", ("Type", "Name")))

    def run(self, command: Command) -> None:
        """Change something. It may be done already.

        A refusal is believed only when slurmdbd answers a question and then refuses again. A command that hangs while
        slurmdbd answers a question concerns nobody else.

        Raises:
            Permanent: Slurm refuses it, in its own words.
            Retryable: Slurm does not answer, or jobs still hold what is to be deleted.
        """
        for part in _parts(command):
            self._run(part)

    def known_users(self, names: frozenset[str]) -> frozenset[str]:
        """Those that the cluster's machine knows as users, other than root. Raises CommandFailed."""
        ordered = sorted(names)
        found: set[str] = set()
        for first in range(0, len(ordered), _NAMES):
            found |= self._passwd(ordered[first : first + _NAMES])
        return names & found

    def _run(self, command: Command) -> None:
        try:
            self._try(command)
        except _CutOff:
            self._probe()
            raise
        except Permanent:
            self._probe()
            self._try(command)

    def _rows(self, what: str, fields: Sequence[str], *which: str) -> list[list[str]]:
        said = self._ask(["sacctmgr", "-n", "-P", "-r", "show", what, f"format={','.join(fields)}", *which])
        if said and not said.endswith("\n"):
            raise Unreadable("sacctmgr printed half a line at the end of its answer")
        rows = (line.split("|") for line in said.split("\n"))
        return [row for row in rows if len(row) == len(fields) and row[0]]

    def _try(self, command: Command) -> None:
        try:
            self._ask(command)
        except CommandFailed as error:
            if _is_done(error):
                return
            raise _failure(error) from None

    def _probe(self) -> None:
        """Raises Retryable unless slurmdbd answers."""
        try:
            self._rows("cluster", ("Cluster",))
        except SourceError as error:
            raise Retryable(str(error), everything=True) from None

    def _ask(self, command: Sequence[str]) -> str:
        return self._runner.run(command, timeout_s=self._timeout_s).decode(errors="replace")

    def _passwd(self, names: list[str]) -> set[str]:
        """A number would be looked up as a uid: the name in the answer counts. It may have another case."""
        try:
            # It does not lie in the folder of Slurm's commands.
            said = self._ask(["/usr/bin/env", "getent", "passwd", "--", *names])
        except CommandFailed as error:
            if error.exit_code != _NO_SUCH_NAME:
                raise
            said = error.stdout.decode(errors="replace")
        return {found[1] for line in said.splitlines() if (found := _PASSWD.match(line))}


def _account(row: list[str], users: frozenset[str]) -> Account:
    name, parent, _, minutes, submitted, default_qos, qos = row
    if submitted and not submitted.isdecimal():
        raise Unreadable(f"sacctmgr printed {submitted[:40]!r} as a number of jobs")
    return Account(
        name=name,
        parent=parent,
        users=users,
        tres_minutes=tres_minutes(minutes),
        max_submitted=int(submitted) if submitted else None,
        qos=frozenset(filter(None, qos.split(","))),
        default_qos=default_qos,
    )


def tres_minutes(text: str) -> dict[str, int]:
    """A limit as sacctmgr prints it. It prints memory with a unit, whatever one asks; here it is in MiB.

    >>> tres_minutes("cpu=1000,gres/gpu=60,mem=100000G")
    {'cpu': 1000, 'gres/gpu': 60, 'mem': 102400000}
    """
    found = _LIMIT.findall(text)
    if text and ",".join(f"{tres}={number}{unit}" for tres, number, unit in found) != text:
        raise Unreadable(f"sacctmgr printed a limit that cannot be read: {text[:80]!r}")
    return {tres: int(Decimal(number) * _MIB[unit]) for tres, number, unit in found}


def _is_done(error: CommandFailed) -> bool:
    """Slurm says that there is nothing to do, and complains of nothing. Who left the machine cancels no more jobs."""
    if error.command == "scancel":
        return "Invalid user name" in error.complaint
    return not error.complaint and bool(_DONE.search(error.stdout.decode(errors="replace")))


def _failure(error: CommandFailed) -> Permanent | Retryable:
    said = error.complaint or " ".join(error.stdout.decode(errors="replace").split())
    text = f"{error.command}: {said or error.reason}"
    if "Job(s) active" in said:
        return Retryable("jobs are still active in it")
    if error.exit_code is None or error.exit_code >= _SIGNALLED:
        return _CutOff(text)
    if "ermission denied" in said:
        return Retryable(text, everything=error.command == "sacctmgr")
    return Retryable(text) if error.command == "scancel" else Permanent(text)


def _parts(command: Command) -> Iterator[Command]:
    """The command, with so many names at a time: Linux takes 128 KiB in one argument."""
    at = next((at for at, word in enumerate(command) if word.startswith("name=") and "," in word), None)
    if at is None:
        yield command
        return
    names = command[at].removeprefix("name=").split(",")
    for first in range(0, len(names), _NAMES):
        yield (*command[:at], f"name={','.join(names[first : first + _NAMES])}", *command[at + 1 :])
