"""A slurmdbd for tests: jobs of any month, told as sacct told them in Slurm 22.05 when it was asked the same way."""

import datetime as dt
import re
from typing import NamedTuple


def utc(text):
    """Epoch seconds of 2026-02-28 23:00."""
    return int(dt.datetime.fromisoformat(f"{text}+00:00").timestamp())


class Job(NamedTuple):
    """One run. `ended` None while it runs; `pauses` are pairs of epoch seconds."""

    account: str
    user: str
    started: int
    ended: int | None
    tres: str
    state: str = "COMPLETED"
    pauses: tuple = ()
    job_id: int = 1


class Slurmdbd:
    """A `Runner` that knows one form of sacct. Without -D it hides runs that were put back, without -T it cuts none."""

    def __init__(self, *jobs, now=2**40):
        self.jobs = list(jobs)
        self.now = now
        self.asked = []
        self.failure = None

    def run(self, command, *, timeout_s, env=None):  # noqa: ARG002 - as a Runner is called
        self.asked.append(command)
        if self.failure and self.failure(len(self.asked)):
            raise self.failure(len(self.asked))
        assert {"sacct", "-X", "-D", "-a", "-T", "--noconvert", "-n", "-p"} <= set(command)
        value = {flag: command[command.index(flag) + 1] for flag in ("-S", "-E", "-o")}
        start, end = (int(re.fullmatch(r"uts(\d+)", value[flag])[1]) for flag in ("-S", "-E"))
        [accounts] = [part.removeprefix("--accounts=").split(",") for part in command if part.startswith("--accounts=")]
        [mark] = [part.removeprefix("--delimiter=") for part in command if part.startswith("--delimiter=")]
        told = [self._told(job, start, min(end, self.now)) for job in self.jobs if job.account in accounts]
        rows = [[row[field] for field in value["-o"].split(",")] for row in told if row]
        return "".join("".join(f"{text}{mark}" for text in row) + "\n" for row in rows).encode()

    @staticmethod
    def _told(job, start, end):
        if job.started >= end or (job.ended or end) < start:
            return None
        started, ended = max(job.started, start), min(job.ended or end, end)
        paused = sum(max(0, min(until, ended) - max(since, started)) for since, until in job.pauses)
        hours, rest = divmod(paused, 3600)
        days = f"{hours // 24}-" if hours >= 24 else ""
        return {
            "Account": job.account,
            "User": job.user,
            "JobIDRaw": str(job.job_id),
            "Submit": str(job.started),
            "Start": str(started),
            "State": job.state,
            "ElapsedRaw": str(ended - started - paused),
            "Suspended": f"{days}{hours % 24:02d}:{rest // 60:02d}:{rest % 60:02d}",
            "AllocTRES": job.tres,
        }
