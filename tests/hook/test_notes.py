"""A spool as it is: notes are taken out within moments, nothing else is touched, and no trouble ends the watch."""

import logging
import os
import resource
import subprocess
import threading
import time
from queue import Queue

import pytest
from waiting import wait_until
from watchdog.observers.inotify import InotifyObserver

from cvagent.sources import notes
from cvagent.sources.agenda import CREDIT_S, Note
from cvagent.sources.notes import Notes, take

LIMIT_S = 20
MANY = 100_000


class Heard:
    """What the notes asked for; each round is over at once."""

    def __init__(self, spool):
        self.wakes = Queue()
        self.count = 0
        self.notes = Notes(spool, self._wake, self._noted)

    def _wake(self):
        self.wakes.put(time.monotonic())
        threading.Thread(target=self.notes.looked, args=[None]).start()

    def _noted(self, number, at):
        assert at > 0
        self.count += number


@pytest.fixture
def spool(tmp_path):
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture
def heard(spool):
    made = Heard(spool)
    yield made
    made.notes.stop()


def leave(spool, *names):
    for name in names:
        os.close(os.open(spool / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


def test_notes_are_taken(spool):
    leave(spool, "7.prolog_slurmctld", "7.epilog_slurmctld", "9.prolog_slurmd")
    taken = take(spool)
    assert set(taken.notes) == {Note(7, ends=False), Note(7, ends=True), Note(9, ends=False)}
    assert (taken.overflowed, taken.more, list(spool.iterdir())) == (False, False, [])


def test_what_is_no_note_stays(spool, tmp_path):
    outside = tmp_path / "5.prolog_slurmctld"
    outside.touch()
    leave(spool, "readme", "0.prolog_slurmctld", "12345678901.prolog_slurmctld", "7.prolog", "7.prolog_slurmctld.x")
    (spool / "8.prolog_slurmctld").mkdir()
    (spool / "9.prolog_slurmctld").symlink_to(outside)
    (spool / "full").symlink_to(outside)
    os.mkfifo(spool / "10.epilog_slurmctld")
    before = sorted(spool.iterdir())
    assert take(spool).notes == []
    assert sorted(spool.iterdir()) == before
    assert outside.exists()


def test_the_mark_of_a_full_spool_is_taken_away(spool):
    leave(spool, "full")
    assert take(spool).overflowed
    assert not take(spool).overflowed


def test_notes_are_taken_in_batches(spool):
    leave(spool, *(f"{number}.prolog_slurmctld" for number in range(1, notes.BATCH + 8)))
    first, second = take(spool), take(spool)
    assert (len(first.notes), first.more, len(second.notes), second.more) == (notes.BATCH, True, 7, False)


@pytest.mark.parametrize("inotify", [True, False])
def test_a_note_is_heard_within_moments(heard, spool, monkeypatch, inotify):
    if not inotify:
        monkeypatch.setattr(InotifyObserver, "schedule", refuse)
    heard.notes.start()
    for number in range(1, 4):
        begun = time.monotonic()
        leave(spool, f"{number}.prolog_slurmctld")
        assert heard.wakes.get(timeout=LIMIT_S) - begun < notes.POLL_S + 1.5
    assert heard.count == 3


def refuse(*_arguments, **_options):
    raise OSError(28, "no watches left")


def test_the_mark_of_a_full_spool_is_a_reason_to_look(heard, spool):
    heard.notes.start()
    leave(spool, "full")
    assert heard.wakes.get(timeout=LIMIT_S)


def test_many_notes_at_the_start_cost_one_look_and_little_memory(heard, spool):
    leave(spool, *(f"{number}.prolog_slurmctld" for number in range(1, MANY + 1)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    heard.notes.start()
    heard.wakes.get(timeout=60)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024
    assert (heard.count, list(spool.iterdir())) == (MANY, [])
    assert heard.wakes.empty()


def test_a_stop_does_not_wait_for_a_full_spool(spool):
    leave(spool, *(f"{number}.prolog_slurmctld" for number in range(1, MANY // 2)))
    made = Heard(spool)
    made.notes.start()
    begun = time.monotonic()
    made.notes.stop()
    assert time.monotonic() - begun < 3


def test_a_spool_that_comes_goes_and_comes_back(heard, spool, caplog):
    spool.rmdir()
    caplog.set_level(logging.INFO)
    heard.notes.start()
    wait_until(lambda: "cvagent hook status" in caplog.text, LIMIT_S)
    for number in range(1, 3):
        spool.mkdir()
        leave(spool, f"{number}.prolog_slurmctld")
        heard.wakes.get(timeout=LIMIT_S)
        spool.rmdir()
    assert heard.count == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root: a file system of its own")
def test_a_note_that_cannot_be_removed_is_said_once_and_wakes_nobody(heard, spool, caplog):
    subprocess.run(["mount", "-t", "tmpfs", "none", spool], check=True)
    try:
        leave(spool, "1.prolog_slurmctld")
        subprocess.run(["mount", "-o", "remount,ro", spool], check=True)
        assert [heard.notes._turn(leftovers=False) for _ in range(3)] == [False] * 3
    finally:
        heard.notes._watch.end()
        subprocess.run(["umount", spool], check=True)
    assert caplog.text.count("notes are not heard") == 1
    assert heard.wakes.empty()


def test_a_spool_that_is_a_file_is_said_once(tmp_path, caplog):
    file = tmp_path / "file"
    file.touch()
    made = Heard(file)
    assert made.notes._turn(leftovers=False) is made.notes._turn(leftovers=False) is False
    assert caplog.text.count("notes are not heard") == 1
    file.unlink()
    file.mkdir()
    caplog.set_level(logging.INFO)
    made.notes._turn(leftovers=False)
    made.notes._watch.end()
    assert "notes are heard again" in caplog.text


def test_slurmctlds_time_counts_more_than_slurmdbds(spool):
    made = Heard(spool)
    made.notes.spend("squeue", 1)
    made.notes.spend("sacct", 1)
    made.notes._agenda.add([], 0)
    made.notes.looked(None)
    assert made.notes._agenda.due() - time.monotonic() == pytest.approx(12 - CREDIT_S, abs=1)
