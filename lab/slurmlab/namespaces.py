"""The holder: one process whose mount, network, host name and process namespaces the whole lab lives in.

Nothing of the machine's own network, /etc, /run or process table is touched, and the holder's end is the end of all.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from slurmlab.errors import LabError
from slurmlab.settings import Settings
from slurmlab.waiting import wait_until

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
MARK = "CVAGENT_LAB_HOLDER"  # in the holder's environment: a pid file alone may name a stranger


def holder(settings_folder: str) -> int | None:
    """The pid of the lab's holder, or None when it is not running."""
    try:
        pid = int(Path(settings_folder, "run", "holder.pid").read_text())
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(f"{MARK}={settings_folder}") in environment else None


def need_holder(folder: str) -> int:
    """As `holder`, for commands that make no sense without one."""
    pid = holder(folder)
    if pid is None:
        raise LabError(f"the lab in {folder} is not running: start it with lab/slurm up N")
    return pid


def namespace_options(pid: int) -> list[str]:
    """What nsenter needs to enter the lab; its processes are seen only with `process_option` too."""
    return [f"--{option}=/proc/{pid}/ns/{name}" for option, name in (("mount", "mnt"), ("net", "net"), ("uts", "uts"))]


def process_option(pid: int) -> str:
    """The holder itself stands outside: its child is process 1 of the lab."""
    return f"--pid=/proc/{pid}/ns/pid_for_children"


def inside(settings: Settings, *command: str, text: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a command inside the lab, on the controller.

    Raises:
        LabError: It failed, with what it said.
    """
    pid = need_holder(settings.folder)
    done = subprocess.run(
        ["nsenter", *namespace_options(pid), process_option(pid), *command],
        input=text,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "SLURM_CONF": str(settings.path("etc", "slurm.conf"))},
    )
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"{command[0]} failed in the lab (exit code {done.returncode}): {said}")
    return done


def start_holder(settings: Settings) -> None:
    """Starts the holder. It waits for its pid to be on file, so that no end of ours can leave one unknown.

    Raises:
        LabError: This machine refuses new namespaces.
    """
    log = settings.path("log", "holder.log")
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [
                *("unshare", "--mount", "--propagation", "private", "--net", "--uts", "--pid", "--fork"),
                *("--kill-child=KILL", "--mount-proc", "sh", "-e", str(TEMPLATES / "holder.sh"), settings.folder),
                "quick_ack" if settings.quick_ack else "",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            cwd="/",
            env={**os.environ, MARK: settings.folder},
        )
    settings.path("run", "holder.pid").write_text(f"{process.pid}\n")
    with process.stdin as to_holder, process.stdout as from_holder:
        with contextlib.suppress(BrokenPipeError):
            to_holder.write(b"go\n")
            to_holder.flush()
        said = from_holder.readline()
    if said != b"ready\n":
        raise LabError(f"this machine refuses the lab its namespaces: {log.read_text(errors='replace').strip()}")


def end_holder(folder: str) -> None:
    """Kills the holder, and with it whatever is left inside."""
    pid = holder(folder)
    if pid is None:
        return
    os.kill(pid, 9)
    if not wait_until(lambda: not _lives(pid), 10):
        raise LabError(f"the lab's holder, process {pid}, does not end")


def _lives(pid: int) -> bool:
    try:
        # The parent of a zombie may be slow, or be a test: it is dead for us.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
