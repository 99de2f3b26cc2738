#!/usr/bin/env python3
"""A gentle trickle of real jobs into the lab named by LAB, about one each two seconds, until SIGTERM or SIGINT.

Short ones that succeed, fail, run out of time, are cancelled or requeued; arrays, heterogeneous jobs, several nodes.
`LAB_TRICKLE_S` is the pause between two jobs, 2 s by default; `LAB_TRICKLE_SEED` makes the choices repeatable.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable

from slurmlab import settings as lab_settings
from slurmlab.commands import Commands, ending
from slurmlab.errors import LabError

MOST_ACTIVE = 40  # jobs that wait or run; more are not submitted until some have ended
NAMES = ("train-resnet50", "llama3-finetune", "cfd-wing", "gromacs-npt", "bert-eval", "openfoam-mesh", "vasp-relax")
NAMES += ("preprocess laion", "Größe-Sweep", "nccl-allreduce", "wrf-europe", "jupyter")


class Trickle:
    """Submits jobs, and does to some of them what users do."""

    def __init__(self, commands: Commands, pause_s: float, choice: random.Random, end: threading.Event) -> None:
        self._commands = commands
        self._pause_s = pause_s
        self._choice = choice
        self._end = end
        self._later: list[tuple[int, Callable[[], object]]] = []
        self._round = 0

    def run(self) -> None:
        """Submits until it is to end."""
        kinds = (self.succeed, self.succeed, self.succeed, self.fail, self.time_out, self.cancel, self.requeue)
        kinds += (self.array, self.heterogeneous, self.several_nodes, self.several_nodes)
        while not self._end.is_set():
            self._round += 1
            if self._active() < MOST_ACTIVE:
                self._choice.choice(kinds)()
            for _, act in [due for due in self._later if due[0] <= self._round]:
                act()
            self._later = [due for due in self._later if due[0] > self._round]
            self._end.wait(self._pause_s)

    def succeed(self) -> None:
        """A short job."""
        self._submit(f"sleep {self._choice.randint(3, 30)}")

    def fail(self) -> None:
        """A job that exits 3."""
        self._submit(f"sleep {self._choice.randint(2, 10)}; exit 3")

    def time_out(self) -> None:
        """A job that runs into its limit of a minute."""
        self._submit("sleep 300", "--time=1")

    def cancel(self) -> None:
        """A job whose user cancels it while it runs."""
        self._afterwards(self._submit("sleep 300"), "scancel")

    def requeue(self) -> None:
        """A job that is requeued while it runs; it runs again when its credential has expired."""
        self._afterwards(self._submit("sleep 20", "--requeue"), "scontrol", "requeue")

    def array(self) -> None:
        """An array of three."""
        self._submit(f"sleep $((SLURM_ARRAY_TASK_ID + {self._choice.randint(3, 15)}))", "--array=1-3")

    def heterogeneous(self) -> None:
        """A job of two components."""
        self._submit(f"sleep {self._choice.randint(5, 20)}", "-N1", "-n1", ":", "-N1", "-n2")

    def several_nodes(self) -> None:
        """A job on two nodes."""
        self._submit(f"sleep {self._choice.randint(5, 25)}", "-N2", "--gres=gpu:1")

    def _submit(self, script: str, *options: str) -> str:
        user = self._choice.choice(list(lab_settings.USERS))
        name = f"--job-name={self._choice.choice(NAMES)}"
        return self._commands.submit(script, name, *options, user=user) or ""

    def _afterwards(self, job_id: str, *command: str) -> None:
        self._later.append((self._round + self._choice.randint(3, 6), lambda: self._commands.ask(*command, job_id)))

    def _active(self) -> int:
        return len((self._commands.ask("squeue", "-h", "-r", "-o", "%A") or "").split())


def main() -> int:
    """Runs until it is told to end."""
    try:
        commands = Commands(os.environ)
    except LabError as error:
        print(f"lab/trickle.py: {error}", file=sys.stderr)
        return 1
    pause_s = float(os.environ.get("LAB_TRICKLE_S") or 2)
    choice = random.Random(os.environ.get("LAB_TRICKLE_SEED"))  # noqa: S311 - which job comes next is no secret
    Trickle(commands, pause_s, choice, ending()).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
