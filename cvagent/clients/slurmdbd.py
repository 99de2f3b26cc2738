"""What slurmdbd says of itself: whom it hides what from."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from cvagent.clients.runner import Runner
from cvagent.errors import Unreadable

# Before this line sacctmgr prints what slurm.conf says.
_HEADING = "SlurmDBD configuration:"
_UID = re.compile(r"\((\d+)\)$")


class Privacy(NamedTuple):
    """Of whom slurmdbd tells whom.

    Attributes:
        hidden: The words of PrivateData; with `jobs` sacct shows an ordinary user their own jobs alone.
        slurm_uid: The uid of SlurmUser, who sees all; None when it is not told.
    """

    hidden: tuple[str, ...]
    slurm_uid: int | None


def ask_privacy(runner: Runner, timeout_s: float) -> Privacy:
    """Ask slurmdbd, which tells it to everybody. Raises CommandFailed or Unreadable."""
    command = ["sacctmgr", "-n", "show", "configuration"]
    return read_privacy(runner.run(command, timeout_s=timeout_s).decode(errors="replace"))


def read_privacy(text: str) -> Privacy:
    r"""What sacctmgr printed. Raises Unreadable.

    >>> read_privacy("SlurmDBD configuration:\nPrivateData  = jobs,users\nSlurmUser  = slurm(64030)\n")
    Privacy(hidden=('jobs', 'users'), slurm_uid=64030)
    """
    values = _values(text.partition(_HEADING)[2])
    if "PrivateData" not in values:
        raise Unreadable("sacctmgr show configuration printed no PrivateData of slurmdbd")
    found = _UID.search(values.get("SlurmUser", ""))
    return Privacy(tuple(values["PrivateData"].split(",")), int(found[1]) if found else None)


def _values(text: str) -> Mapping[str, str]:
    pairs = (line.partition("=") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
