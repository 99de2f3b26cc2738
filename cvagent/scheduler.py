"""APScheduler: a job per flow, a job per sink. Nothing runs twice at once; a wake-up during a run causes another."""

import datetime as dt
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from statistics import median
from threading import Condition, Thread

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

log = logging.getLogger(__name__)

_SLOW_S = 5.0
_SLOW_FACTOR = 3
_NOISE_S = 0.5
_MOST_STRETCH = 10.0
_REMEMBERED = 50
_ENOUGH = 3


class Pace:
    """How much longer than set an interval is to be: it grows while slurmctld answers slowly, and shrinks back.

    Slow is over 5 s, or three times the usual (and over half a second: below that it is noise).
    """

    def __init__(self) -> None:
        self.stretch = 1.0
        self._usual: deque[float] = deque(maxlen=_REMEMBERED)

    def judge(self, seconds: float) -> float:
        """Take the slowest answer of a round, in seconds; return the factor for the next interval, 1 to 10."""
        usual = median(self._usual) if len(self._usual) >= _ENOUGH else seconds
        if seconds > _SLOW_S or seconds > max(_SLOW_FACTOR * usual, _NOISE_S):
            self.stretch = min(_MOST_STRETCH, self.stretch * 2)
        else:
            self._usual.append(seconds)
            self.stretch = max(1.0, self.stretch / 2)
        return self.stretch


class Scheduler:
    """Repeats jobs and wakes them early.

    Args:
        jobs: How many jobs there will be: each may run at the same time as the others.
    """

    def __init__(self, jobs: int) -> None:
        # A late run is still wanted, and one run makes up for all that were missed. The second instance only notes
        # that it was wanted: see _run.
        defaults = {"misfire_grace_time": None, "coalesce": True, "max_instances": 2}
        self._inner = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(2 * jobs)}, job_defaults=defaults, timezone=dt.timezone.utc
        )
        # It warns whenever a job takes longer than its interval.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._lock = Condition()
        self._running: dict[str, float] = {}
        self._again: set[str] = set()
        self._stopped = False

    def add(self, name: str, work: Callable[[], object], interval_s: float) -> None:
        """Run `work` at once and then every `interval_s` seconds."""
        self._inner.add_job(
            self._run,
            "interval",
            (name, work),
            id=name,
            seconds=interval_s,
            next_run_time=_now(),
            replace_existing=True,
        )

    def every(self, name: str, interval_s: float) -> None:
        """Change a job's interval."""
        self._inner.reschedule_job(name, trigger="interval", seconds=interval_s)

    def wake(self, name: str, after_s: float = 0.0) -> None:
        """Run a job in so many seconds; when it is running, run it once more after that. Unknown names are ignored."""
        with self._lock:
            if name in self._running:
                self._again.add(name)
                return
        try:
            self._inner.modify_job(name, next_run_time=_now() + dt.timedelta(seconds=after_s))
        except JobLookupError:
            log.debug("nothing called %s to wake", name)

    def start(self) -> None:
        """Begin."""
        self._inner.start()

    def stop(self) -> None:
        """Begin nothing more and wait for what is running."""
        with self._lock:
            self._stopped = True
        # It would hold its lock while it waits, and a run that wakes another job would never end.
        self._inner.shutdown(wait=False)
        with self._lock:
            self._lock.wait_for(lambda: not self._running)

    def once(self, name: str, work: Callable[[], object]) -> None:
        """Run `work` now, one time, outside the caller's thread."""
        Thread(target=self._run, args=(name, work), name=name).start()

    def longest_silence_s(self, signs: Mapping[str, float]) -> float:
        """For how long a run of these that is not yet over has given no sign that it goes on; 0 when none runs.

        Args:
            signs: By name the second of its last sign, by the monotonic clock; that it began is one, too.
        """
        now = time.monotonic()
        with self._lock:
            return now - min((max(at, signs[name]) for name, at in self._running.items() if name in signs), default=now)

    def _run(self, name: str, work: Callable[[], object]) -> None:
        while self._begin(name):
            try:
                work()
            except Exception:
                log.exception("%s failed; it runs again at its next turn", name)
            if not self._end(name):
                return

    def _begin(self, name: str) -> bool:
        """Whether this run may go on; else the one under way is asked to run once more."""
        with self._lock:
            if self._stopped:
                return False
            if name in self._running:
                self._again.add(name)
                return False
            self._running[name] = time.monotonic()
            self._again.discard(name)
            return True

    def _end(self, name: str) -> bool:
        """Whether it was wanted again meanwhile."""
        with self._lock:
            del self._running[name]
            self._lock.notify_all()
            return name in self._again


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)
