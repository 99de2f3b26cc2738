"""Slurm's commands as shell scripts that print prepared text, for an agent in a process of its own."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.measure import scratch, started
from benchmarks.replay import CONFIG, Job
from cvagent.standin import TOKEN

DAY_S = 86_400
# The mark stands where the agent wants it; the prepared text has a byte for it.
_PLACE = "\x1d"
_SQUEUE = """#!/bin/sh
for last; do :; done
exec sed "s/$/${last##*:}/" "$0.txt"
"""
_SACCT = """#!/bin/sh
which=all
for word; do
    case $word in
    --delimiter=*) mark=${word#--delimiter=} ;;
    -s) which=recent ;;
    -j) which=named ;;
    esac
done
exec sed "s/PLACE/$mark/g" "$0.$which"
""".replace("PLACE", _PLACE)


# There are no nodes to tell of.
_SCONTROL = """#!/bin/sh
case $2 in config) exec cat "$0.txt" ;; esac
"""


def write_stubs(folder: Path, live: int, ended: int) -> None:
    """Commands that show so many jobs as running, and in accounting others that ended over the last day."""
    now = int(time.time())
    gone = [
        Job(number, now - DAY_S, now - DAY_S + 900 + number * (DAY_S - 900) // ended) for number in range(1, ended + 1)
    ]
    running = [Job(number, now - 3600) for number in range(ended + 1, ended + live + 1)]
    texts = {
        "squeue.txt": [f"{job.line()}\n" for job in running],
        "sacct.all": [job.row(_PLACE) for job in gone + running],
        "sacct.recent": [job.row(_PLACE) for job in gone if (job.ended_at or 0) >= now - 600],
        "sacct.named": [],
        "scontrol.txt": [CONFIG.decode()],
    }
    for name, lines in texts.items():
        folder.joinpath(name).write_text("".join(lines))
    scripts = {"squeue": _SQUEUE, "sacct": _SACCT, "scontrol": _SCONTROL}
    for name, script in scripts.items():
        folder.joinpath(name).write_text(script)
        folder.joinpath(name).chmod(0o755)


@contextmanager
def agent(python: str, url: str, ca_file: Path, bin_dir: Path, **settings: str) -> Iterator[tuple[psutil.Popen, Path]]:
    """`python -m cvagent` as it is run, with its log."""
    given = {
        "cloudvision_url": url,
        "cloudvision_token": TOKEN,
        "cloudvision_ca_file": str(ca_file),
        "slurm_bin_dir": str(bin_dir),
        "env_file": os.devnull,
    } | settings
    with scratch() as folder:
        log = folder / "log"
        env = {f"CVAGENT_{name.upper()}": value for name, value in given.items()}
        with started(python, "-m", "cvagent", log=log, env=env) as process:
            yield process, log
