"""What may differ from lab to lab: read from the environment by `up`, kept in its folder for the other commands."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from slurmlab.errors import LabError

DEFAULT_FOLDER = "/var/tmp/cvagent-lab/default"  # noqa: S108 - made by root, and only ever entered by root
USERS = {"alice": 20001, "bob": 20002, "carol": 20003}
ACCOUNTS = ("proj-a", "proj-b")
MODES = ("netns", "multi")

# A unix socket's path may have 107 characters, and the longest of ours adds 20.
LONGEST_FOLDER = 80
# The lab mounts its own over these.
HIDDEN = ("/run", "/var/run", "/sys", "/proc", "/dev")


@dataclass(frozen=True)
class Settings:
    """One lab. Times in seconds.

    Attributes:
        credential_expiry_s: How long a requeued job waits, 0 for Slurm's own 120.
        quick_ack: slurmdbd and its clients write a message in two pieces, and send the second when the first is
            acknowledged. Linux takes 40 ms for that, eight to twelve times in one sacctmgr; here it does so at once.
    """

    folder: str
    nodes: int = 4
    mode: str = "netns"
    cluster: str = "lab"
    accounting: bool = True
    cgroup: bool = False
    cpus: int = 8
    memory_mib: int = 16000
    gpus: int = 4
    nics: int = 0
    nic_files: bool = True
    credential_expiry_s: int = 0
    min_job_age_s: int = 300
    slurmd_timeout_s: int = 30
    message_timeout_s: int = 30
    quick_ack: bool = True
    extra: str = ""

    @property
    def names(self) -> list[str]:
        """The nodes, in order."""
        return [f"node{number}" for number in range(1, self.nodes + 1)]

    def path(self, *parts: str) -> Path:
        """A path inside the lab's folder."""
        return Path(self.folder, *parts)

    def save(self) -> None:
        """Keeps the settings for the commands that come after `up`."""
        self.path("settings.json").write_text(json.dumps(asdict(self), indent=1) + "\n")


def folder_from(environment: Mapping[str, str]) -> str:
    """The lab's folder: an absolute path, in order that two spellings are one lab."""
    folder = os.path.realpath(environment.get("LAB") or DEFAULT_FOLDER)
    if len(folder) > LONGEST_FOLDER:
        raise LabError(f"LAB={folder} is too long for a unix socket: {LONGEST_FOLDER} characters at most")
    if any(folder == hidden or folder.startswith(hidden + "/") for hidden in HIDDEN):
        raise LabError(f"LAB={folder} is no place for a lab: it mounts its own {', '.join(HIDDEN)}")
    return folder


def from_environment(environment: Mapping[str, str], nodes: int, mode: str) -> Settings:
    """The settings of `up`."""

    def number(name: str, default: int) -> int:
        value = environment.get(name) or str(default)
        if not value.isdecimal():
            raise LabError(f"{name}={value!r} is not a whole number")
        return int(value)

    extra = environment.get("LAB_EXTRA")
    if extra and not Path(extra).is_file():
        raise LabError(f"LAB_EXTRA={extra} is not a file")
    return Settings(
        folder=folder_from(environment),
        nodes=nodes,
        mode=mode,
        cluster=environment.get("LAB_CLUSTER") or "lab",
        accounting=number("LAB_ACCOUNTING", 1) != 0,
        cgroup=number("LAB_CGROUP", 0) != 0,
        cpus=number("LAB_CPUS", 8),
        memory_mib=number("LAB_MEMORY_MIB", 16000),
        gpus=number("LAB_GPUS", 4),
        nics=number("LAB_NICS", 0),
        nic_files=number("LAB_NIC_FILES", 1) != 0,
        credential_expiry_s=number("LAB_CRED_EXPIRE", 0),
        min_job_age_s=number("LAB_MIN_JOB_AGE", 300),
        slurmd_timeout_s=number("LAB_SLURMD_TIMEOUT", 30),
        message_timeout_s=number("LAB_MESSAGE_TIMEOUT", 30),
        quick_ack=number("LAB_QUICK_ACK", 1) != 0,
        extra=Path(extra).read_text() if extra else "",
    )


def load(folder: str) -> Settings:
    """The settings of the lab that is there."""
    try:
        return Settings(**json.loads(Path(folder, "settings.json").read_text()))
    except (OSError, ValueError, TypeError):
        raise LabError(f"there is no lab in {folder}: start one with lab/slurm up N") from None
