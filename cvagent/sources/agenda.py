"""When notes are a reason to look at the jobs. Decides without a clock or a thread: `now` is any clock's seconds."""

import math
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from cvagent.model import JobConfig, Plan

# After a note others are waited for, so long after the last of them and at most so long after the first, in seconds.
GATHER_S = 0.15
GATHER_MOST_S = 0.4
# So long a note is followed, in seconds, with looks ever further apart, as long as no round has told of its job:
# PrologSlurmctld runs before the job does, and slurmdbd may hear of an end after EpilogSlurmctld ran. What takes longer
# is the interval's affair.
FOLLOW_S = 10.0
# From one look to the next.
GAP_S = 1.0
# Looks may run ahead of the rest that Slurm is owed by so much: while a burst of jobs starts, its answers take longer.
CREDIT_S = 5.0
FOLLOWED = 10_000


class Note(NamedTuple):
    """One note.

    Attributes:
        ends: The job ended; else it began.
    """

    job_id: int
    ends: bool


class Agenda:
    """Follows notes until a round tells of their jobs, for some seconds."""

    def __init__(self) -> None:
        # When each was noted, and when to look for it again.
        self._followed: dict[Note, tuple[float, float]] = {}
        # When the first and the last of those came that no look has been taken for.
        self._news: tuple[float, float] | None = None
        self._begun = -math.inf
        self._rest_until = -math.inf
        self._not_before = -math.inf

    def add(self, notes: Iterable[Note], now: float) -> None:
        """Look soon, and follow these as far as there is room. None at all are worth one look."""
        self._news = (self._news[0] if self._news else now, now)
        for note in islice(notes, FOLLOWED - len(self._followed)):
            self._followed[note] = (now, now)

    def due(self) -> float:
        """When to look next; infinity when there is no reason to, or while a round goes on."""
        if self._news:
            first, last = self._news
            return max(min(first + GATHER_MOST_S, last + GATHER_S), self._not_before)
        return max(min((again for _, again in self._followed.values()), default=math.inf), self._not_before)

    def begin(self, now: float) -> None:
        """A round is asked for. The next one waits for its `end`."""
        self._news = None
        self._begun, self._not_before = now, math.inf
        self._followed = {
            note: (noted, now + max(GAP_S, now - noted))
            for note, (noted, _) in self._followed.items()
            if now - noted < FOLLOW_S
        }

    def end(self, plan: Plan | None, now: float, rest_s: float) -> None:
        """A round is over; None when it was given up. Slurm is owed `rest_s` seconds of rest."""
        for _, job, _ in plan.changes if plan else ():
            if isinstance(job, JobConfig):
                self._followed.pop(Note(job.job_id, ends=False), None)
                if job.ended_at is not None:
                    self._followed.pop(Note(job.job_id, ends=True), None)
        self._rest_until = max(self._rest_until, now) + rest_s
        self._not_before = max(self._begun + GAP_S, self._rest_until - CREDIT_S)
