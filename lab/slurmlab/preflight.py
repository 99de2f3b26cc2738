"""What a lab needs of this machine, said before anything is touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from slurmlab.errors import LabError
from slurmlab.settings import Settings

ALWAYS = ("munged", "slurmctld", "slurmd", "squeue", "ip", "unshare", "nsenter", "setpriv")
FOR_ACCOUNTING = ("slurmdbd", "sacct", "mariadbd", "mariadb-install-db")
CONTROLLERS = ("memory", "cpuset", "freezer", "devices")


def missing(*, accounting: bool = True) -> str | None:
    """Why no lab can run here, or None."""
    if os.geteuid() != 0:
        return "the lab needs root: it makes namespaces of its own"
    absent = [name for name in ALWAYS + (FOR_ACCOUNTING if accounting else ()) if not shutil.which(name)]
    return f"the lab misses {', '.join(absent)}: install them with lab/packages slurm" if absent else None


def check(settings: Settings) -> None:
    """Raises LabError when this machine cannot run such a lab."""
    reason = missing(accounting=settings.accounting) or (missing_cgroups() if settings.cgroup else None)
    if reason:
        raise LabError(reason)


def missing_cgroups(root: Path = Path("/sys/fs/cgroup")) -> str | None:
    """Why LAB_CGROUP=1 cannot work here, or None."""
    absent = [name for name in CONTROLLERS if not os.access(root / name / "cgroup.procs", os.W_OK)]
    if absent:
        return f"LAB_CGROUP=1 needs writable cgroup v1 controllers; not in {root}: {', '.join(absent)}"
    return None


def check_cgroups_free(root: Path = Path("/sys/fs/cgroup")) -> None:
    """Slurmd names its cgroups after the node, so that only one lab at a time may use them."""
    for procs in root.glob("*/slurm_node*/**/cgroup.procs"):
        if procs.read_text().strip():
            raise LabError(f"another lab uses {procs.parent}: only one at a time can have LAB_CGROUP=1")
