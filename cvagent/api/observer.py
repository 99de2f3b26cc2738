"""Hears what the loops do and keeps what pages and metrics show. All of it may be lost: it says how things are now."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from threading import Lock
from typing import NamedTuple, ParamSpec

from msgspec.structs import replace

from cvagent.api.bill import Bill
from cvagent.api.metrics import Metrics, why
from cvagent.errors import CvagentError
from cvagent.model import Accepted, Deferred, Health, Outcome, Plan, Refused

log = logging.getLogger(__name__)

ERRORS = 50
PROBLEMS = 20

_Args = ParamSpec("_Args")


class Trouble(NamedTuple):
    """An error as the page lists it.

    Attributes:
        at: Epoch seconds, of the last time when it came several times in a row.
        where: The flow's or the sink's name.
    """

    at: float
    where: str
    text: str
    times: int = 1


class Decision(NamedTuple):
    """The last plan of a flow, without its documents.

    Attributes:
        at: Epoch seconds at which the round began.
        seconds: How long it took.
        changes: How many, by why: new, changed, ended.
        refused: How many changes were withheld.
        problems: The first 20 of them.
    """

    at: float
    seconds: float
    changes: Mapping[str, int]
    unchanged: int
    refused: int
    refusal: str | None
    problems: Sequence[str]
    note: str | None


def _never_raises(hear: Callable[_Args, None]) -> Callable[_Args, None]:
    """What is heard here must not stop what was done there."""

    @wraps(hear)
    def quiet(*args: _Args.args, **kwargs: _Args.kwargs) -> None:
        try:
            hear(*args, **kwargs)
        except Exception:
            log.exception("the status page missed something")

    return quiet


class Board:
    """A `ports.Observer` and a `ports.Status`. Any thread may call any method; none raises.

    Args:
        flows: By name the seconds without a success after which a flow is not ready; 0.0 when age says nothing.
        sinks: Likewise, for a sink in whose outbox something waits.
        bill: What Slurm is asked and what that costs it; one of its own when left out.

    Attributes:
        signs: By flow or sink the second of its last sign of life, by the monotonic clock; 0.0 when there was none.
    """

    def __init__(self, flows: Mapping[str, float], sinks: Mapping[str, float], bill: Bill | None = None) -> None:
        self.bill = bill or Bill("nobody", 0.0)
        self.metrics = Metrics(flows, sinks)
        self.signs = dict.fromkeys([*flows, *sinks], 0.0)
        self._lock = Lock()
        self._flows = {name: Health(stale_after_s=stale_s) for name, stale_s in flows.items()}
        self._sinks = {name: Health(stale_after_s=stale_s) for name, stale_s in sinks.items()}
        self._details: dict[str, str | None] = {}
        self._stretches: dict[str, float] = {}
        self._decisions: dict[str, Decision] = {}
        self._errors: deque[Trouble] = deque(maxlen=ERRORS)

    @_never_raises
    def round_done(self, flow: str, seconds: float, plan: Plan, at: float) -> None:
        """See `ports.Observer`."""
        decision = _decision(seconds, plan, at)
        with self._lock:
            health = self._flows[flow]
            health.last_success, health.error = at, None
            self._decisions[flow] = decision
        self.metrics.round_done(flow, seconds, plan, at)

    @_never_raises
    def round_skipped(self, flow: str, error: Exception, at: float) -> None:
        """See `ports.Observer`."""
        with self._lock:
            self._fail(self._flows[flow], flow, _text(error), at)
        self.metrics.round_skipped(flow)

    @_never_raises
    def delivered(self, sink: str, outcome: Outcome, at: float) -> None:
        """See `ports.Observer`. Any answer for a document ends a pause: the server is there again."""
        self.signs[sink] = time.monotonic()
        with self._lock:
            health = self._sinks[sink]
            match outcome:
                case Accepted():
                    health.last_success, health.error, health.paused_until = at, None, 0.0
                case Refused(reason):
                    health.paused_until = 0.0
                    self._fail(health, sink, reason, at)
                case Deferred(reason, everything=False):
                    self._fail(health, sink, reason, at)
                case Deferred():
                    pass  # the pause that follows says it once for all entries
        self.metrics.delivered(sink, outcome)

    @_never_raises
    def paused(self, sink: str, reason: str, until: float, at: float) -> None:
        """See `ports.Observer`."""
        with self._lock:
            health = self._sinks[sink]
            health.paused_until = until
            self._fail(health, sink, reason, at)

    @_never_raises
    def command_done(self, command: str, seconds: float, ok: bool) -> None:
        """One of Slurm's commands ended.

        Args:
            command: Its name or path, without arguments.
            seconds: How long it took.
            ok: False when it failed, could not be started, or ran out of time.
        """
        self.metrics.command_done(command, seconds, ok)

    def stretched(self, flow: str, factor: float) -> None:
        """A flow's interval is so many times as long as set: it is stale that much later."""
        with self._lock:
            health = self._flows[flow]
            health.stale_after_s *= factor / self._stretches.get(flow, 1.0)
            self._stretches[flow] = factor
            slow = f"slurmctld answers slowly: the interval is {factor:g} times as long as set"
            self._details[flow] = slow if factor > 1 else None
            self.bill.stretch[flow] = factor
        self.metrics.stretched(flow, factor)

    def set_detail(self, name: str, text: str | None) -> None:
        """Say what a person should know about a flow or sink although all is well; None: nothing (any more)."""
        with self._lock:
            self._details[name] = text

    def flows(self) -> Mapping[str, Health]:
        """See `ports.Status`. Copies."""
        with self._lock:
            return {name: replace(health, detail=self._detail(name)) for name, health in self._flows.items()}

    def sinks(self) -> Mapping[str, Health]:
        """See `ports.Status`. Copies."""
        with self._lock:
            return {name: replace(health, detail=self._detail(name)) for name, health in self._sinks.items()}

    def decisions(self) -> Mapping[str, Decision]:
        """The last plan by flow; a flow whose first round is not over has none."""
        with self._lock:
            return dict(self._decisions)

    def errors(self) -> list[Trouble]:
        """The last errors, newest first."""
        with self._lock:
            return list(reversed(self._errors))

    def _detail(self, name: str) -> str | None:
        decision = self._decisions.get(name)
        return (
            "; ".join(
                filter(None, (decision and decision.refusal, decision and decision.note, self._details.get(name)))
            )
            or None
        )

    def _fail(self, health: Health, where: str, text: str, at: float) -> None:
        health.last_error_at, health.error = at, text
        last = self._errors[-1] if self._errors else None
        times = 1
        if last and (last.where, last.text) == (where, text):
            times += self._errors.pop().times
        self._errors.append(Trouble(at, where, text, times))


def _decision(seconds: float, plan: Plan, at: float) -> Decision:
    counts = Counter(why(change) for change in plan.changes)
    return Decision(
        at=at,
        seconds=seconds,
        changes={word: counts[word] for word in ("new", "changed", "ended")},
        unchanged=plan.unchanged,
        refused=len(plan.refused),
        refusal=plan.refusal,
        problems=tuple(plan.problems[:PROBLEMS]),
        note=plan.note,
    )


def _text(error: Exception) -> str:
    """Our own errors are made to be shown; what another one's text holds nobody knows."""
    return str(error) if isinstance(error, CvagentError) else f"unexpected {type(error).__name__}: see the log"
