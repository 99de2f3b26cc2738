"""Reads what slurmctld says of its own work: how many requests, from whom, and how long they took."""

import re
from typing import NamedTuple

from cvagent.clients.runner import Runner
from cvagent.errors import Unreadable

_ROW = re.compile(r"^\t(.+?)\s+\(\s*(\d+)\)\s+count:(\d+)\s+ave_time:\d+\s+total_time:(\d+)", re.MULTILINE)
_BY_USER = "Remote Procedure Call statistics by user"
_BY_TYPE = "Remote Procedure Call statistics by message type"


class Rpcs(NamedTuple):
    """Requests that slurmctld answered: how many, and how long they took it, in microseconds."""

    number: int
    busy_us: int


class Diagnosis(NamedTuple):
    """One answer of sdiag.

    Attributes:
        since: Epoch seconds from which slurmctld counts: its start, or the last reset (midnight UTC as a rule).
        by_user: By numeric user id.
        uids: By the user's name.
        by_type: By message type, such as REQUEST_JOB_INFO.
    """

    since: int
    by_user: dict[int, Rpcs]
    uids: dict[str, int]
    by_type: dict[str, Rpcs]

    def of(self, user: str) -> Rpcs:
        """What was answered to a user, by name or number."""
        uid = int(user) if user.isdecimal() else self.uids.get(user, -1)
        return self.by_user.get(uid, Rpcs(0, 0))


def diagnose(runner: Runner, timeout_s: float) -> Diagnosis:
    """Ask slurmctld once. Raises CommandFailed, or Unreadable when the answer has not the parts it should."""
    return read(runner.run(["sdiag"], timeout_s=timeout_s).decode(errors="replace"))


def read(text: str) -> Diagnosis:
    r"""The numbers of one answer.

    >>> read("Data since      Fri (1795163508)\nRemote Procedure Call statistics by user\n"
    ...      "\troot            (       0) count:108    ave_time:557    total_time:60235\n").by_user
    {0: Rpcs(number=108, busy_us=60235)}
    """
    since = re.search(r"^Data since .*\((\d+)\)", text, re.MULTILINE)
    head, found, by_user = text.partition(_BY_USER)
    if not since or not found:
        raise Unreadable("sdiag does not say since when and for whom slurmctld worked")
    by_type = head.partition(_BY_TYPE)[2]
    return Diagnosis(
        since=int(since[1]),
        by_user={int(uid): Rpcs(int(count), int(total)) for _, uid, count, total in _ROW.findall(by_user)},
        uids={name: int(uid) for name, uid, _, _ in _ROW.findall(by_user)},
        by_type={name: Rpcs(int(count), int(total)) for name, _, count, total in _ROW.findall(by_type)},
    )
