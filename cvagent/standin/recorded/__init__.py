"""Stub Slurm commands that replay a recording of a real cluster, for a demo where no real Slurm can run.

`replay` is run as a script by each stub; it and the recording need nothing but Python's standard library.
"""

import shlex
import sys
import time
from pathlib import Path

COMMANDS = ("squeue", "sacct", "scontrol")
# So far into the recording the replay begins: there is something to see at once.
_HEAD_START_S = 30


def install(bin_dir: Path) -> Path:
    """Write the stub commands into a folder of their own and return it. The replay begins now, and repeats."""
    bin_dir.mkdir(parents=True)
    began = int(time.time()) - _HEAD_START_S
    replay = Path(__file__).with_name("replay.py")
    for command in COMMANDS:
        stub = bin_dir / command
        words = [sys.executable, "-I", str(replay), command, str(began)]
        stub.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        stub.chmod(0o755)
    return bin_dir
