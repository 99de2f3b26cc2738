"""Nothing runs twice at once, no wake-up is lost, and the stop is orderly."""

import logging
import time
from collections.abc import Iterator
from threading import Event, Lock, Thread

import pytest

from cvagent.scheduler import Scheduler

LIMIT_S = 20
SELDOM_S = 3600


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler(jobs=2)
    yield made
    if made._inner.running:
        made.stop()


class Work:
    """Says when a run began and waits to be let go. Counts runs, and how many went on at once."""

    def __init__(self) -> None:
        self.runs = 0
        self.at_once = 0
        self.most_at_once = 0
        self.began = Event()
        self.let_go = Event()
        self._lock = Lock()

    def __call__(self) -> None:
        with self._lock:
            self.runs += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.began.set()
        assert self.let_go.wait(LIMIT_S)
        with self._lock:
            self.at_once -= 1

    def began_again(self) -> bool:
        began = self.began.wait(LIMIT_S)
        self.began.clear()
        return began


class Counted:
    """Says when it ran so many times."""

    def __init__(self, times: int, error: Exception | None = None) -> None:
        self.left = times
        self.error = error
        self.done = Event()

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.done.set()
        if self.error:
            raise self.error


def test_a_job_runs_at_once_and_then_every_interval(scheduler):
    work = Counted(3)
    scheduler.add("jobs", work, 0.02)
    scheduler.start()
    assert work.done.wait(LIMIT_S)


def test_a_wake_up_runs_a_job_before_its_time(scheduler):
    first, work = Event(), Counted(2)
    scheduler.add("jobs", lambda: (work(), first.set()), SELDOM_S)
    scheduler.start()
    assert first.wait(LIMIT_S)
    scheduler.wake("jobs")
    assert work.done.wait(LIMIT_S)


def test_a_wake_up_before_the_start_is_no_error(scheduler):
    work = Counted(1)
    scheduler.add("jobs", work, SELDOM_S)
    scheduler.wake("jobs")
    scheduler.start()
    assert work.done.wait(LIMIT_S)


def test_an_unknown_name_is_ignored(scheduler):
    scheduler.start()
    scheduler.wake("nobody")


def test_many_wake_ups_during_a_run_cause_exactly_one_more(scheduler):
    work = Work()
    scheduler.add("jobs", work, SELDOM_S)
    scheduler.start()
    assert work.began_again()
    for _ in range(10):
        scheduler.wake("jobs")
    work.let_go.set()
    assert work.began_again()
    scheduler.stop()
    assert (work.runs, work.most_at_once) == (2, 1)


def test_a_job_never_runs_twice_at_once_even_when_its_interval_is_shorter(scheduler):
    """A second job marks the time: when it ran often, the first would have been begun again long ago."""
    work, marker = Work(), Counted(10)
    scheduler.add("jobs", work, 0.02)
    scheduler.add("marker", marker, 0.02)
    scheduler.start()
    assert work.began_again()
    assert marker.done.wait(LIMIT_S)
    assert (work.runs, work.most_at_once) == (1, 1)
    work.let_go.set()
    assert work.began_again()
    scheduler.stop()
    assert work.most_at_once == 1


def test_one_job_does_not_wait_for_another(scheduler):
    slow, quick = Work(), Counted(3)
    scheduler.add("slow", slow, SELDOM_S)
    scheduler.add("quick", quick, 0.02)
    scheduler.start()
    assert slow.began_again()
    assert quick.done.wait(LIMIT_S)
    slow.let_go.set()


def test_a_job_that_fails_is_logged_and_runs_again(scheduler, caplog):
    work = Counted(2, error=ValueError("broken"))
    scheduler.add("jobs", work, 0.02)
    scheduler.start()
    assert work.done.wait(LIMIT_S)
    scheduler.stop()
    assert "jobs failed; it runs again at its next turn" in [
        record.getMessage() for record in caplog.records if record.levelno == logging.ERROR
    ]


def test_the_stop_waits_for_what_is_running(scheduler):
    work, stopped = Work(), Event()
    scheduler.add("jobs", work, SELDOM_S)
    scheduler.start()
    assert work.began_again()
    stopping = Thread(target=lambda: (scheduler.stop(), stopped.set()))
    stopping.start()
    assert not stopped.is_set()
    work.let_go.set()
    assert stopped.wait(LIMIT_S)
    stopping.join(LIMIT_S)
    assert work.at_once == 0


def test_a_wake_up_during_the_stop_begins_nothing(scheduler):
    work, woken = Work(), Event()

    def woken_while_stopping() -> None:
        work()
        scheduler.wake("jobs")
        woken.set()

    scheduler.add("jobs", woken_while_stopping, SELDOM_S)
    scheduler.start()
    assert work.began_again()
    scheduler.wake("jobs")
    stopping = Thread(target=scheduler.stop)
    stopping.start()
    while not scheduler._stopped:
        stopping.join(0.001)
    work.let_go.set()
    stopping.join(LIMIT_S)
    assert woken.is_set()
    assert work.runs == 1


def test_a_run_that_wakes_another_job_does_not_hold_up_the_stop(scheduler):
    work, other = Work(), Counted(1)

    def waking() -> None:
        work()
        scheduler.wake("other")

    scheduler.add("other", other, SELDOM_S)
    scheduler.add("jobs", waking, SELDOM_S)
    scheduler.start()
    assert other.done.wait(LIMIT_S)
    assert work.began_again()
    stopping = Thread(target=scheduler.stop, daemon=True)
    stopping.start()
    while scheduler._inner.running:
        stopping.join(0.001)
    work.let_go.set()
    stopping.join(LIMIT_S)
    assert not stopping.is_alive()
    assert other.left == 0


def test_the_stop_waits_for_what_is_done_once(scheduler):
    work = Work()
    scheduler.start()
    scheduler.once("reload", work)
    assert work.began_again()
    stopping = Thread(target=scheduler.stop)
    stopping.start()
    while scheduler._inner.running:
        stopping.join(0.001)
    assert stopping.is_alive()
    work.let_go.set()
    stopping.join(LIMIT_S)
    assert work.at_once == 0


def test_an_interval_can_be_changed(scheduler):
    work = Counted(3)
    scheduler.add("jobs", work, SELDOM_S)
    scheduler.start()
    scheduler.every("jobs", 0.02)
    assert work.done.wait(LIMIT_S)


def test_work_can_be_done_once(scheduler):
    work = Counted(1)
    scheduler.start()
    scheduler.once("reload", work)
    assert work.done.wait(LIMIT_S)


def test_it_says_for_how_long_a_run_has_given_no_sign(scheduler):
    work = Work()
    assert scheduler.longest_silence_s({"jobs": 0.0}) == 0
    scheduler.add("jobs", work, SELDOM_S)
    scheduler.start()
    assert work.began_again()
    began = time.monotonic()
    assert scheduler.longest_silence_s({"jobs": 0.0}) > 0
    assert scheduler.longest_silence_s({"other": 0.0}) == 0
    assert scheduler.longest_silence_s({"jobs": began}) <= time.monotonic() - began
    work.let_go.set()
    scheduler.stop()
    assert scheduler.longest_silence_s({"jobs": 0.0}) == 0
