"""Argument lists for sacctmgr, scancel and mkhomedir_helper.

Nothing gets into one that Slurm could take for anything but a value: a name or a value that it would refuse, or take
for another, raises Permanent.
"""

import re
import unicodedata
from collections.abc import Collection, Mapping
from decimal import Decimal

from cvagent.clients.runner import SYSTEM_PATH
from cvagent.errors import Permanent

Command = tuple[str, ...]

# Slurm lower-cases names, takes a comma for the end of one, and + - at their start for an operator.
_ACCOUNT = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,127}")
_USER = re.compile(r"[a-z0-9_][a-z0-9_.@-]{0,127}")
_QOS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_TRES = re.compile(r"[a-z]+(/[A-Za-z0-9_.:-]{1,128})?")
# Slurm takes what does not fit into 64 bits for "no limit".
_MOST = 2**62
_LONGEST_TEXT = 120
_SHOWN = 60


class Sacctmgr:
    """Makes the commands for one cluster.

    Args:
        cluster: Slurm's ClusterName. Always named: without it sacctmgr changes every cluster of the database.
    """

    def __init__(self, cluster: str) -> None:
        self._cluster = f"cluster={cluster}"

    def add_account(
        self, name: str, parent: str, about: tuple[str, str], tres_minutes: Mapping[str, int] | None = None
    ) -> Command:
        """Add an account below another, with its limits. `about` is its description and its organization."""
        description, organization = (one_line(text) or name for text in about)
        limits = (_limits(tres_minutes),) if tres_minutes else ()
        return self._add(
            "account",
            f"name={account_name(name)}",
            f"parent={_parent(parent)}",
            f"description={description}",
            f"organization={organization}",
            *limits,
        )

    def move_account(self, name: str, parent: str) -> Command:
        """Put an account below another."""
        return self._modify(name, f"parent={_parent(parent)}")

    def set_limits(self, name: str, tres_minutes: Mapping[str, int]) -> Command:
        """Set limits, each TRES apart; -1 takes one away."""
        return self._modify(name, _limits(tres_minutes))

    def set_max_submitted(self, name: str, jobs: int | None) -> Command:
        """Limit the jobs that may wait or run; None takes the limit away."""
        return self._modify(name, f"GrpSubmitJobs={-1 if jobs is None else _count(jobs)}")

    def add_qos(self, name: str, qos: str) -> Command:
        """Let the account use a QOS, and use it unless a job names another."""
        return self._modify(name, f"QOS+={_qos(qos)}", f"DefaultQOS={qos}")

    def remove_qos(self, name: str, qos: str) -> Command:
        """Take a QOS away; Slurm's default is the account's again."""
        return self._modify(name, f"QOS-={_qos(qos)}", "DefaultQOS=-1")

    def add_users(self, account: str, users: Collection[str], default: str | None) -> Command:
        """Add users to an account, and to their default account when one is named."""
        named = (f"DefaultAccount={account_name(default)}",) if default else ()
        return self._add("user", f"name={_users(users)}", f"account={account_name(account)}", *named)

    def set_default(self, user: str, account: str) -> Command:
        """Make an account, which the user must be in, the user's default."""
        where = ("where", f"name={user_name(user)}", self._cluster)
        return ("sacctmgr", "-i", "modify", "user", *where, "set", f"DefaultAccount={account_name(account)}")

    def remove_user(self, account: str, user: str) -> Command:
        """Take a user out of an account. Slurm refuses while the user has jobs in it."""
        return self._delete("user", f"name={user_name(user)}", f"account={account_name(account)}")

    def remove_root(self, account: str) -> Command:
        """Take root out of an account: for a person, who sees what it was in there for."""
        return self._delete("user", "name=root", f"account={account_name(account)}")

    def delete_account(self, name: str, *, shared: bool) -> Command:
        """Delete an account with all that is below it. Slurm refuses while it has jobs.

        With the cluster's name Slurm would keep the bare account for the other clusters, which share the database.
        """
        command = self._delete("account", f"name={account_name(name)}")
        return command if shared else command[:-1]

    def _add(self, kind: str, *words: str) -> Command:
        return ("sacctmgr", "-i", "add", kind, *words, self._cluster)

    def _modify(self, name: str, *words: str) -> Command:
        where = ("where", f"name={account_name(name)}", self._cluster)
        return ("sacctmgr", "-i", "modify", "account", *where, "set", *words)

    def _delete(self, kind: str, *words: str) -> Command:
        return ("sacctmgr", "-i", "delete", kind, "where", *words, self._cluster)


def cancel_jobs(account: str, user: str | None = None) -> Command:
    """Cancel all jobs of an account, or those of one user in it."""
    return ("scancel", f"--account={account_name(account)}", *((f"--user={user_name(user)}",) if user else ()))


def make_home(user: str) -> Command:
    """Make a user's home directory, if there is none."""
    return ("/usr/bin/env", f"PATH={SYSTEM_PATH}", "mkhomedir_helper", user_name(user))


def account_name(name: str) -> str:
    """The name, if it is one that Slurm takes for this account and no other, and that is not root."""
    return _checked(name, _ACCOUNT, "account name")


def is_account_name(name: str) -> bool:
    """Whether `account_name` takes it."""
    return name != "root" and bool(_ACCOUNT.fullmatch(name))


def user_name(name: str) -> str:
    """The name, if it is one that Slurm takes for this user and no other, and that is not root."""
    return _checked(name, _USER, "user name")


def check_count(number: int | Decimal) -> None:
    """Raises Permanent for what is no limit to Slurm: less than none, more than it can hold, or no number."""
    amount = Decimal(number)
    # A Decimal is compared and shown without being written out: 1E+999999 has a million digits.
    if not amount.is_finite() or not 0 <= amount < _MOST:
        raise Permanent(f"{str(amount)[:_SHOWN]} is no limit: 0 to {_MOST - 1}")


def one_line(text: str) -> str:
    r"""Free text as a description may hold it: ASCII on one line, without quotes.

    >>> one_line('Zo\u00eb\'s "big"\nproject')
    'Zoe s big project'
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return " ".join(re.sub(r"[\x00-\x20\"'`\\\x7f|]+", " ", plain).split())[:_LONGEST_TEXT]


def _parent(name: str) -> str:
    return name if name == "root" else account_name(name)


def _users(users: Collection[str]) -> str:
    return ",".join(map(user_name, sorted(users)))


def _qos(name: str) -> str:
    return _checked(name, _QOS, "QOS")


def _checked(name: str, rule: re.Pattern[str], what: str) -> str:
    if name == "root" or not rule.fullmatch(name):
        raise Permanent(f"{name[:_SHOWN]!r} is no {what} that cvagent gives to Slurm")
    return name


def _limits(tres_minutes: Mapping[str, int]) -> str:
    for tres in tres_minutes:
        if not _TRES.fullmatch(tres):
            raise Permanent(f"{tres[:_SHOWN]!r} is no TRES")
    told = (f"{tres}={-1 if minutes == -1 else _count(minutes)}" for tres, minutes in sorted(tres_minutes.items()))
    return f"GrpTRESMins={','.join(told)}"


def _count(number: int) -> int:
    check_count(number)
    return number
