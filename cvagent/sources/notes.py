"""Notes of the hook: each is a reason to look at the jobs now, and never a fact.

A file whose name is no note is left alone. Nothing is opened, and no link is followed.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from watchdog.events import FileCreatedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from cvagent.model import Plan
from cvagent.sources.agenda import Agenda, Note

log = logging.getLogger(__name__)

# The spool is read at most this often, and for at most this share of the time.
READ_EVERY_S = 0.1
READ_SHARE = 0.1
# Where inotify tells nothing, the spool is looked at this often.
POLL_S = 1.0
# On average slurmctld is left alone so many times as long as it was asked. An answer of slurmdbd is mostly waiting, and
# holds up no job.
SHARE = 10
SHARE_OF_SACCT = 2
# A command is two requests or fewer, and Slurm's rate limiter (23.02 and later, where it is on) gives a user two a
# second in the long run; the agent's other questions need a little of that too.
REST_S = 1.2
_OF_SLURMDBD = {"sacct", "sacctmgr"}
# So many notes are taken at a time.
BATCH = 5_000
FULL = "full"

_NAME = re.compile(r"([1-9][0-9]{0,9})\.(?:(prolog)|epilog)_slurm(?:ctld|d)")


def read(name: str) -> Note | None:
    """What the name of a file says; None when it is no note.

    >>> read("17.prolog_slurmctld"), read("17.epilog_slurmd"), read("../17.prolog")
    (Note(job_id=17, ends=False), Note(job_id=17, ends=True), None)
    """
    found = _NAME.fullmatch(name)
    return Note(int(found[1]), not found[2]) if found else None


class Taken(NamedTuple):
    """What was taken out of the spool.

    Attributes:
        overflowed: The hook had left off leaving notes.
        more: The batch was full: others wait.
    """

    notes: list[Note]
    overflowed: bool
    more: bool


def take(spool: Path) -> Taken:
    """Remove a batch of notes and return them. Raises OSError when the spool cannot be read or written."""
    notes: list[Note] = []
    overflowed = False
    with os.scandir(spool) as entries:
        for entry in entries:
            if len(notes) >= BATCH:
                return Taken(notes, overflowed, more=True)
            note = read(entry.name)
            if (note or entry.name == FULL) and entry.is_file(follow_symlinks=False):
                Path(entry.path).unlink(missing_ok=True)
                overflowed = overflowed or note is None
                notes += [note] if note else []
    return Taken(notes, overflowed, more=False)


class Notes:
    """Watches a spool, and asks for a round when notes say so.

    Args:
        wake: Asks for a round of the jobs; each must be followed by a `looked`.
        noted: Told how many notes were taken, and the epoch second.
    """

    def __init__(self, spool: Path, wake: Callable[[], None], noted: Callable[[int, float], None]) -> None:
        self._spool = spool
        self._wake = wake
        self._noted = noted
        self._agenda = Agenda()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._touched = threading.Event()
        self._watch = _Watch(spool, self._touched)
        self._thread = threading.Thread(target=self._run, name="notes", daemon=True)
        self._rest_s = 0.0
        self._trouble: str | None = None

    def start(self) -> None:
        """Begin; what waits from before is removed, and worth one look."""
        self._thread.start()

    def stop(self) -> None:
        """Ask for nothing more."""
        self._stop.set()
        self._touched.set()
        if self._thread.is_alive():
            self._thread.join()

    def spend(self, command: str, seconds: float) -> None:
        """One of Slurm's commands took so long."""
        if command in _OF_SLURMDBD:
            self._rest_s += seconds * SHARE_OF_SACCT
        else:
            self._rest_s += max(seconds * SHARE, REST_S)

    def looked(self, plan: Plan | None) -> None:
        """A round of the jobs is over; None when it was given up."""
        with self._lock:
            self._agenda.end(plan, time.monotonic(), self._rest_s)
            self._rest_s = 0.0
        self._touched.set()

    def _run(self) -> None:
        leftovers = True
        while not self._stop.is_set():
            began = time.monotonic()
            more = self._turn(leftovers=leftovers)
            leftovers = leftovers and more
            if not more:
                self._stop.wait(max(READ_EVERY_S, (time.monotonic() - began) / READ_SHARE))
                self._touched.wait(self._pause_s())
                self._touched.clear()
        self._watch.end()

    def _turn(self, *, leftovers: bool) -> bool:
        """Take notes, and ask for a round when it is time; whether more notes wait."""
        self._watch.follow()
        taken = self._take()
        with self._lock:
            now = time.monotonic()
            if taken.notes or taken.overflowed:
                self._agenda.add(() if leftovers else taken.notes, now)
            look = self._agenda.due() <= now and not (leftovers and taken.more)
            if look:
                self._agenda.begin(now)
        if taken.notes:
            self._noted(len(taken.notes), time.time())
        if look:
            self._wake()
        return taken.more

    def _take(self) -> Taken:
        try:
            taken = take(self._spool)
        except OSError as error:
            self._say(f"{error.strerror}: notes are not heard; `cvagent hook status` says what to do")
            return Taken([], overflowed=False, more=False)
        self._say(None)
        return taken

    def _say(self, trouble: str | None) -> None:
        """Log what is wrong with the spool once, and once that it is right again."""
        if trouble and trouble != self._trouble:
            log.warning("spool %s: %s", self._spool, trouble)
        elif self._trouble and not trouble:
            log.info("spool %s: notes are heard again", self._spool)
        self._trouble = trouble

    def _pause_s(self) -> float:
        with self._lock:
            return min(POLL_S, max(0.0, self._agenda.due() - time.monotonic()))


class _Watch(FileSystemEventHandler):
    """Sets an event when a file is made in the spool, where inotify can be had; follows a spool that is replaced."""

    def __init__(self, spool: Path, touched: threading.Event) -> None:
        self._spool = spool
        self._touched = touched
        self._observer: BaseObserver | None = None
        self._seen: tuple[int, int] | None = None

    def on_created(self, event: FileSystemEvent) -> None:
        """See FileSystemEventHandler."""
        del event
        self._touched.set()

    def follow(self) -> None:
        """Watch the directory that is there now."""
        seen = self._identity()
        if seen == self._seen:
            return
        self.end()
        self._seen = seen
        if seen:
            self._begin()

    def end(self) -> None:
        """Watch no longer."""
        if self._observer:
            self._observer.stop()
            self._observer.join()
        self._observer = None

    def _begin(self) -> None:
        observer = Observer()
        try:
            observer.schedule(self, str(self._spool), event_filter=[FileCreatedEvent])
            observer.start()
        except OSError as error:
            log.info("spool %s: no inotify (%s); it is looked at every %g s", self._spool, error.strerror, POLL_S)
            return
        self._observer = observer

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._spool.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino
