"""Slurm's commands in a lab, for what goes on whatever is done to Slurm meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from slurmlab import settings as lab_settings
from slurmlab.namespaces import need_holder

COMMAND_LIMIT_S = 30


class Commands:
    """Runs them from outside, in a lab that is up. Raises LabError when it is not."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        folder = lab_settings.folder_from(environment)
        need_holder(folder)
        self.nodes = lab_settings.load(folder).names
        self._enter = str(Path(folder, "enter"))

    def ask(self, *command: str, user: str = "root", script: str = "") -> str | None:
        """What a command prints; None when it fails: a demonstration may stop Slurm, and start it again."""
        place = ["-u", user] if user != "root" else []
        try:
            done = subprocess.run(
                [self._enter, *place, *command],
                input=script,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMMAND_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            print(f"{command[0]}: no answer within {COMMAND_LIMIT_S} s", file=sys.stderr, flush=True)
            return None
        if done.returncode:
            print(f"{command[0]}: {done.stderr.strip()}", file=sys.stderr, flush=True)
            return None
        return done.stdout.strip()

    def submit(self, script: str, *options: str, user: str) -> str | None:
        """The id of a new batch job."""
        job_id = self.ask(
            *("sbatch", "--parsable", "--output=/dev/null", "--time=5", *options),
            user=user,
            script=f"#!/bin/sh\n{script}\n",
        )
        print(f"{job_id or '-':>6}  {user:<6} {script} {' '.join(options)}", flush=True)
        return job_id


def ending() -> threading.Event:
    """What SIGTERM and SIGINT set."""
    event = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: event.set())
    return event
