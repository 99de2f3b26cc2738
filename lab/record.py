#!/usr/bin/env python3
"""Turns what the lab's accounting holds into the recording that `cvagent demo --recorded` replays.

    LAB=... lab/record.py > cvagent/standin/recorded/recording.json

Let lab/trickle.py run for some minutes before, and end: only runs that are over are taken.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

FIELDS = ("JobIDRaw", "State", "Submit", "Start", "End", "Partition", "NodeList", "JobName")
KEPT_SETTINGS = ("AccountingStorageType", "ClusterName", "MinJobAge", "PrivateData", "SLURM_VERSION")


def main() -> int:
    """Prints the recording."""
    table = _ask("sacct", "-n", "-a", "-X", "-D", "-P", "-o", ",".join(FIELDS), "-S", "uts1000000")
    rows = [line.split("|") for line in table.splitlines()]
    runs = [row for row in rows if row[3].isdecimal() and row[4].isdecimal() and row[6] != "None assigned"]
    began = min(int(row[2]) for row in runs)
    seen: dict[str, int] = {}
    recorded = [_run(row, began, seen) for row in sorted(runs, key=lambda row: (int(row[2]), int(row[0])))]
    config = [line for line in _ask("scontrol", "show", "config").splitlines() if line.startswith(KEPT_SETTINGS)]
    length_s = max(run["submit"] for run in recorded) + 1
    version = next(line.split("=")[1].strip() for line in config if line.startswith("SLURM_VERSION"))
    print(json.dumps({"version": version, "length_s": length_s, "config": "\n".join(config) + "\n", "runs": recorded}))
    return 0


def _run(row: list[str], began: int, seen: dict[str, int]) -> dict[str, object]:
    job_id, state, *times, partition, nodes, name = row
    submit, start, end = (int(time) - began for time in times)
    restarts = seen.get(job_id, 0)
    seen[job_id] = restarts + 1
    named = {"partition": partition, "nodes": nodes, "name": name}
    return {
        "job_id": int(job_id),
        "state": state.split()[0],
        "submit": submit,
        "start": start,
        "end": end,
        "restarts": restarts,
        **named,
    }


def _ask(command: str, *arguments: str) -> str:
    environment = {"TZ": "UTC", "LC_ALL": "C", "SLURM_TIME_FORMAT": "%s", "PATH": os.environ["PATH"]}
    program = str(Path(os.environ["LAB"], "bin", command))
    return subprocess.run([program, *arguments], env=environment, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
