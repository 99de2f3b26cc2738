"""When notes are a reason to look at the jobs. Decides without a clock or a thread: `now` is any clock's seconds."""

import math
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from cvagent.model import Plan

# Ages of a note at which the jobs are looked at, as long as no round has told of its job. PrologSlurmctld runs before
# the job does, and slurmdbd may hear of an end after EpilogSlurmctld ran. What takes longer is the interval's affair.
LOOK_AT_S = (0.0, 1.0, 4.0, 12.0)
# From one round to the next at least this, and this many times what the last one took of Slurm's time.
GAP_S = 1.0
SHARE = 10
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
        # When each was noted, and how many looks are behind it.
        self._followed: dict[Note, tuple[float, int]] = {}
        self._news = False
        self._not_before = -math.inf

    def add(self, notes: Iterable[Note], now: float) -> None:
        """Look as soon as may be, and follow these as far as there is room. None at all are worth one look."""
        self._news = True
        for note in islice(notes, FOLLOWED - len(self._followed)):
            self._followed[note] = (now, 0)

    def due(self) -> float:
        """When to look next; infinity when there is no reason to, or while a round goes on."""
        if self._news:
            return self._not_before
        times = (noted + LOOK_AT_S[looks] for noted, looks in self._followed.values())
        return max(min(times, default=math.inf), self._not_before)

    def begin(self, now: float) -> None:
        """A round is asked for. The next one waits for its `end`."""
        self._news = False
        self._not_before = math.inf
        looked = {note: (noted, _looks(now - noted)) for note, (noted, _) in self._followed.items()}
        self._followed = {note: entry for note, entry in looked.items() if entry[1] < len(LOOK_AT_S)}

    def end(self, plan: Plan | None, now: float, cost_s: float) -> None:
        """A round is over; None when it was given up. `cost_s` is the time that Slurm's commands took in it."""
        for change in plan.changes if plan else ():
            self._followed.pop(Note(change.after.job_id, ends=False), None)
            if change.after.ended_at is not None:
                self._followed.pop(Note(change.after.job_id, ends=True), None)
        self._not_before = now + max(GAP_S, SHARE * cost_s)


def _looks(age_s: float) -> int:
    return sum(age_s >= at for at in LOOK_AT_S)
