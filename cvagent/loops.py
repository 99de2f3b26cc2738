"""The two loops: collect fills the outbox, deliver empties it. Each is one call; the scheduler repeats them."""

import gc
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from cvagent.errors import CvagentError
from cvagent.flows import Flow
from cvagent.model import Ask, Deferred, Entry, Outcome, Plan
from cvagent.ports import Sink, Source, Surroundings

log = logging.getLogger(__name__)

# Ended jobs are asked for again this far back, as rows can reach accounting late. After a failed round the
# checkpoint stays for as long: slurmctld hands over what it kept in slurmdbd's absence bit by bit.
OVERLAP_S = 600
# So many entries are fetched and settled at a time.
_BATCH = 2000
_SETTLE = 200
# Approve, carry out, try anew what was refused and needs something else by then, tell, and see what that brought;
# more is for the next time.
_MOST_LOOKS = 8


@contextmanager
def _no_cycles() -> Iterator[None]:
    """A round makes none; looking for them would visit all its records again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Horizon(NamedTuple):
    """How far back the agent looks, and how much of what ended it keeps for people to look at.

    Attributes:
        lookback_s: How far back a round looks when the store knows nothing.
        kept_s: All documents that ended within so many seconds are kept although no round needs them.
        kept: And so many of those that ended before, the newest.
        valid_s: For so long after a good round the errands that it wanted are carried out.
    """

    lookback_s: float
    kept_s: float = 0.0
    kept: int = 2000
    valid_s: float = math.inf


class Collector:
    """Runs the rounds of one flow: read, decide, remember.

    Args:
        rules: What the operator decided; may be replaced between rounds.
        horizon: May be replaced between rounds, too.
    """

    def __init__(self, flow: Flow, source: Source, rules: Any, horizon: Horizon, around: Surroundings) -> None:
        self.flow = flow
        self.rules = rules
        self.horizon = horizon
        self._source = source
        self._outbox, self._clock, self._observer, self._wake, _ = around
        self._good_at: float | None = None
        self._failed = False
        self._just_started = True
        self._hold_until = 0
        self._note: str | None = None

    def plan(self) -> Plan:
        """Read and decide, and write nothing. Raises SourceError or StoreError."""
        return self._decide(int(self._clock.now()))[0]

    def round(self) -> Plan | None:
        """One round; None when it was skipped, and then nothing was changed."""
        with _no_cycles():
            return self._round()

    def vouches(self) -> bool:
        """Whether a good round of late, of this process, stands behind what waits: it wanted all that it left there."""
        return self._good_at is not None and 0 <= self._clock.now() - self._good_at <= self.horizon.valid_s

    def _round(self) -> Plan | None:
        began = time.monotonic()
        now = int(self._clock.now())
        try:
            plan, ask = self._decide(now)
            self._outbox.record(self.flow.name, self.flow.sinks, plan, self._clock.now(), self._checkpoint(ask))
        except CvagentError as error:
            self._skip(error)
            return None
        self._good_at = self._clock.now()
        self._observer.round_done(self.flow.name, time.monotonic() - began, plan, now)
        self._report(plan)
        if plan.changes:
            for sink in self.flow.sinks:
                self._wake(sink)
        self._forget(ask)
        return plan

    def _decide(self, now: int) -> tuple[Plan, Ask]:
        read_until = self._outbox.checkpoint(self.flow.name)
        since = self._since(now, read_until)
        known = self._outbox.known(self.flow.sinks[0], since)
        ask = Ask(now=now, since=since, known=known, cold=read_until is None)
        return self.flow.plan(self._source.observe(ask), known, self.rules), ask

    def _since(self, now: int, read_until: int | None) -> int:
        if read_until is None:
            return int(now - self.horizon.lookback_s)
        # A clock that was set back must not leave a window that ends before it begins.
        return int(max(min(read_until, now) - OVERLAP_S, now - max(self.horizon.lookback_s, OVERLAP_S)))

    def _checkpoint(self, ask: Ask) -> int:
        """How far reading has come: not further for a while after a failed round, or when the agent was away."""
        if self._failed or (self._just_started and not ask.cold):
            self._hold_until = ask.now + OVERLAP_S
        self._failed = self._just_started = False
        return ask.now if ask.now >= self._hold_until else ask.since + OVERLAP_S

    def _forget(self, ask: Ask) -> None:
        ended_before = int(min(ask.since, ask.now - self.horizon.kept_s))
        try:
            self._outbox.purge(self.flow.sinks, ended_before, self.horizon.kept)
        except CvagentError as error:
            log.warning("%s: old documents stay for now: %s", self.flow.name, error)

    def _skip(self, error: CvagentError) -> None:
        log.warning("round of %s skipped, nothing changed: %s", self.flow.name, error)
        self._failed = True
        self._observer.round_skipped(self.flow.name, error, self._clock.now())

    def _report(self, plan: Plan) -> None:
        for problem in plan.problems:
            log.warning("%s: %s", self.flow.name, problem)
        if plan.note and plan.note != self._note:
            log.info("%s: %s", self.flow.name, plan.note)
        self._note = plan.note
        if plan.refusal:
            log.error("%s: %s", self.flow.name, plan.refusal)
        if plan.changes:
            log.info("%s: %d changes, %d as they should be", self.flow.name, len(plan.changes), plan.unchanged)


class Courier:
    """Delivers what waits for one sink.

    Args:
        cap_s: Longest back-off, in seconds; a server that says Retry-After may ask for more.
        followers: Flows that have a reason to look when something was tried.
        vouched: Of a sink of errands: whether a look of late stands behind them; while none does, they wait. Each is
            fetched right before it is carried out, for the next look may replace it. None: facts, which stay true.

    Once `stop` is set, what is under way is finished and the rest stays in the outbox.
    """

    def __init__(
        self,
        sink: Sink,
        cap_s: float,
        around: Surroundings,
        followers: Sequence[str] = (),
        vouched: Callable[[], bool] | None = None,
    ) -> None:
        self.sink = sink
        self.cap_s = cap_s
        self._followers = followers
        self.has_errands = vouched is not None
        self._vouched = vouched
        self._outbox, self._clock, self._observer, self._wake, self._stop = around
        self._failures = 0
        self._paused_until = 0.0

    def run(self) -> bool:
        """Send what is due, until nothing is, or the server asks for a pause; whether anything was.

        What is to be tried again later waits for another run.
        """
        tried, now = False, self._clock.now()
        try:
            while self._may_send() and (entries := self._outbox.due(self.sink.name, now, self._at_a_time)):
                tried = True
                self._send(entries)
        except CvagentError as error:
            log.warning("delivery to %s interrupted: %s", self.sink.name, error)
        if tried:
            for flow in self._followers:
                self._wake(flow)
        return tried

    @property
    def _at_a_time(self) -> int:
        return 1 if self._vouched else _BATCH

    def _may_send(self) -> bool:
        ready = not self._stop.is_set() and self._clock.now() >= self._paused_until
        return ready and (self._vouched is None or self._vouched())

    def _send(self, entries: list[Entry]) -> None:
        answered: list[tuple[Entry, Outcome, float]] = []
        blocked: Deferred | None = None
        for entry, outcome in self.sink.deliver(entries):
            answered.append(self._noted(entry, outcome))
            self._observer.delivered(self.sink.name, outcome, self._clock.now())
            if isinstance(outcome, Deferred) and outcome.everything:
                blocked = blocked or outcome
            elif not isinstance(outcome, Deferred):
                self._failures = 0
            if len(answered) >= _SETTLE:
                self._outbox.settle(self.sink.name, answered, self._clock.now())
                answered = []
        self._outbox.settle(self.sink.name, answered, self._clock.now())
        if blocked:
            self._pause(blocked)

    def _noted(self, entry: Entry, outcome: Outcome) -> tuple[Entry, Outcome, float]:
        """An errand was tried alone: that counts as its try, whatever the reason, and others go first the next time."""
        if self._vouched and isinstance(outcome, Deferred):
            outcome = outcome._replace(everything=False)
        return entry, outcome, self._retry_at(entry, outcome)

    def _retry_at(self, entry: Entry, outcome: Outcome) -> float:
        if not isinstance(outcome, Deferred) or outcome.everything:
            return 0.0
        return self._clock.now() + max(outcome.after_s or 0.0, backoff_s(entry.attempts, self.cap_s))

    def _pause(self, blocked: Deferred) -> None:
        wait_s = max(blocked.after_s or 0.0, backoff_s(self._failures, self.cap_s))
        self._failures += 1
        self._paused_until = self._clock.now() + wait_s
        log.warning("%s waits %.1f s: %s", self.sink.name, wait_s, blocked.reason)
        self._observer.paused(self.sink.name, blocked.reason, self._paused_until, self._clock.now())


def run_out(collectors: Sequence[Collector], couriers: Sequence[Courier]) -> bool:
    """A round of each flow and delivery of all that is due; then of those that follow, as long as there are any.

    Returns:
        Whether no round was skipped.
    """
    turns, done = list(collectors), True
    # While the others deliver, the looks that errands rest on would grow old.
    couriers = sorted(couriers, key=lambda courier: not courier.has_errands)
    for _ in range(_MOST_LOOKS):
        plans = [collector.round() for collector in turns]
        done = done and None not in plans
        tried = {courier.sink.name for courier in couriers if courier.run()}
        turns = [collector for collector in collectors if tried.intersection(collector.flow.follows)]
    return done


def backoff_s(failures: int, cap_s: float) -> float:
    """Full jitter: anything from nothing to twice as much with each failure, at most `cap_s`. Seconds.

    >>> all(0 <= backoff_s(failures, 30) <= 30 for failures in range(2000))
    True
    """
    return random.uniform(0, min(cap_s, 2.0 ** min(failures, 30)))  # noqa: S311 - spreads load, guards nothing
