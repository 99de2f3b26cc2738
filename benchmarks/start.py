"""How soon an agent works."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.delivery import Server, stand_in
from benchmarks.measure import Row, below, command_cpu_s, median, ms, scratch, wait_until
from benchmarks.stubs import agent, write_stubs

_TIMES = 7


def measure() -> Iterator[Row]:
    """See the module."""
    with scratch() as bin_dir, stand_in() as server:
        write_stubs(bin_dir, 10, 10)
        first = median(lambda: first_round_s(bin_dir, server), _TIMES)
    yield below("from the start of the process to the end of its first round", ms(first), ms(1))
    bare = median(lambda: command_cpu_s(sys.executable, "-c", "pass"), _TIMES)
    full = median(lambda: command_cpu_s(sys.executable, "-c", "import cvagent.cli"), _TIMES)
    yield below("`import cvagent.cli`, an empty Python taken off", ms(full - bare, "CPU"), ms(0.25))


def first_round_s(bin_dir: Path, server: Server) -> float:
    """Seconds of wall time; the round finds twenty jobs and says so."""
    began = time.monotonic()
    with agent(sys.executable, server.url, server.ca_file, bin_dir, http_listen="off") as (_, log):
        wait_until(lambda: "20 changes" in log.read_text(), 30, "first round")
        return time.monotonic() - began
