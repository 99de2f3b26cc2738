"""What all measurements share: the row of the table, CPU time, memory, and the stage on which they run."""

import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).resolve().parents[1]
MIB = 1024**2


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        name: What was measured.
        measured: Its value with the unit.
        reference: What it is held against, with its value; empty when it is held against the goal alone.
        ratio: measured / reference; None without a reference.
        goal: In words; empty when there is none.
        met: None without a goal.
    """

    name: str
    measured: str
    reference: str = ""
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None


class Reading(NamedTuple):
    """A value in the unit that its text shows."""

    value: float
    text: str


def at_most(name: str, measured: Reading, reference: Reading, most: float) -> Row:
    """A row whose ratio must not be above `most`."""
    ratio = measured.value / reference.value
    return Row(name, measured.text, reference.text, ratio, f"at most {most:.3g}x", ratio <= most)


def at_least(name: str, measured: Reading, reference: Reading, least: float) -> Row:
    """A row whose ratio must not be below `least`."""
    ratio = measured.value / reference.value
    return Row(name, measured.text, reference.text, ratio, f"at least {least:.3g}x", ratio >= least)


def below(name: str, measured: Reading, most: Reading) -> Row:
    """A row that is held against a fixed value."""
    return Row(name, measured.text, goal=f"at most {most.text}", met=measured.value <= most.value)


def within(name: str, measured: Reading, reference: Reading, more: Reading) -> Row:
    """A row that must not be above the reference by more than so much."""
    ratio = measured.value / reference.value
    met = measured.value <= reference.value + more.value
    return Row(name, measured.text, reference.text, ratio, f"at most {more.text} more", met)


def seen(name: str, measured: Reading, reference: Reading | None = None) -> Row:
    """A row without a goal."""
    if reference is None:
        return Row(name, measured.text)
    return Row(name, measured.text, reference.text, measured.value / reference.value)


def ms(seconds: float, what: str = "") -> Reading:
    """A time, shown in milliseconds."""
    digits = (seconds < 0.1) + (seconds < 0.01)
    return Reading(seconds, f"{seconds * 1000:,.{digits}f} ms {what}".strip())


def mib(size: float, what: str = "") -> Reading:
    """A size in bytes, shown in MiB."""
    return Reading(size, f"{size / MIB:.1f} MiB {what}".strip())


def per_second(rate: float, what: str = "") -> Reading:
    """A rate."""
    return Reading(rate, f"{rate:,.0f} a second {what}".strip())


def median(work: Callable[[], float], times: int) -> float:
    """The median of several readings: what else runs on the machine disturbs single ones."""
    return statistics.median(work() for _ in range(times))


def own_cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds, user and system, of this process while it does the work."""
    began = time.process_time()
    work()
    return time.process_time() - began


def command_cpu_s(*command: str | Path, env: Mapping[str, str] | None = None) -> float:
    """CPU seconds of a command and all that it waited for. Its output is read to the end and dropped."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=os.environ | dict(env or {}), capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def process_cpu_s(process: psutil.Process) -> float:
    """CPU seconds that a process has used since it began, all threads. The kernel counts in hundredths."""
    times = process.cpu_times()
    return times.user + times.system


def pss(process: psutil.Process) -> int:
    """Proportional set size in bytes: what the process has for itself, and its share of what it shares."""
    return process.memory_full_info().pss


def wait_until(condition: Callable[[], object], limit_s: float, what: str, every_s: float = 0.02) -> None:
    """Wait for a condition. Raises TimeoutError."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {limit_s:g} s")
        time.sleep(every_s)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="cvagent-bench-") as folder:
        yield Path(folder)


@contextmanager
def started(*command: str | Path, log: Path, env: Mapping[str, str] | None = None) -> Iterator[psutil.Popen]:
    """A program that runs beside, and is ended; its output goes to a file."""
    with log.open("wb") as output:
        process = psutil.Popen(command, env=os.environ | dict(env or {}), stdout=output, stderr=output, cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)
