"""What the agent costs Slurm: its commands of the last hour, and its share of what slurmctld did."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import NamedTuple

from msgspec import Struct

from cvagent.clients.runner import Runner

HOUR_S = 3600
# The commands that ask slurmctld; sacct, sacctmgr and sreport ask slurmdbd, and srun waits for nodes.
SLURMCTLD = frozenset({"squeue", "scontrol", "sinfo", "sdiag"})
_MOST_COMMANDS = 50_000


class Served(NamedTuple):
    """What slurmctld counted since `since`, at one moment.

    Attributes:
        since: Epoch seconds; another value than before means that the counters began anew.
        ours: Requests of the agent's user, and the microseconds they took.
        all: Likewise of everybody.
    """

    at: float
    since: int
    ours: tuple[int, int]
    all: tuple[int, int]


class Command(Struct):
    """One of Slurm's commands in the span."""

    count: int = 0
    failed: int = 0
    seconds: float = 0.0


class Cost(Struct, frozen=True):
    """The bill for a span of time.

    Attributes:
        span_s: Seconds that the bill covers, an hour at most.
        commands: By name.
        stretch: By flow, how much longer than set its interval is at the moment; 1.0 is as set.
        served_s: Seconds that the shares cover; 0.0 when slurmctld was not asked often enough yet.
        rpcs: Requests that slurmctld answered for the agent's user, and for everybody.
        rpc_seconds: What those took it.
        user: Name or number of the agent's user: others may use it too.
    """

    span_s: float
    commands: Mapping[str, Command]
    stretch: Mapping[str, float]
    served_s: float
    rpcs: tuple[int, int]
    rpc_seconds: tuple[float, float]
    user: str

    @property
    def shares(self) -> tuple[float, float]:
        """The agent's user's share of the requests and of the time they took, 0 to 1."""
        (ours, everybody), (busy_s, all_busy_s) = self.rpcs, self.rpc_seconds
        return (ours / everybody if everybody else 0.0, busy_s / all_busy_s if all_busy_s else 0.0)


class Bill:
    """Keeps an hour. Any thread may call.

    Args:
        user: Name or number of the user that slurmctld sees.
    """

    def __init__(self, user: str, began: float) -> None:
        self._user = user
        self._began = began
        self._lock = Lock()
        self._commands: deque[tuple[float, str, float, bool]] = deque(maxlen=_MOST_COMMANDS)
        self._served: deque[Served] = deque()
        self.stretch: dict[str, float] = {}

    def command_done(self, command: str, seconds: float, ok: bool, at: float) -> None:
        """One command ended."""
        with self._lock:
            self._commands.append((at, command, seconds, ok))
            while self._commands and self._commands[0][0] < at - HOUR_S:
                self._commands.popleft()

    def served(self, served: Served) -> None:
        """What slurmctld counts now."""
        with self._lock:
            if self._served and self._served[-1].since != served.since:
                self._served.clear()
            self._served.append(served)
            while self._served[0].at < served.at - HOUR_S:
                self._served.popleft()

    def cost(self, now: float) -> Cost:
        """The bill for the last hour, or since the start when that is shorter ago."""
        with self._lock:
            commands: dict[str, Command] = {}
            for at, name, seconds, ok in self._commands:
                if at >= now - HOUR_S:
                    entry = commands.setdefault(name, Command())
                    entry.count += 1
                    entry.failed += not ok
                    entry.seconds += seconds
            first, last = (self._served[0], self._served[-1]) if self._served else (None, None)
            stretch = dict(self.stretch)
        ours, everybody = _grown(first, last, "ours"), _grown(first, last, "all")
        return Cost(
            span_s=min(HOUR_S, now - self._began),
            commands=commands,
            stretch=stretch,
            served_s=last.at - first.at if first and last else 0.0,
            rpcs=(ours[0], everybody[0]),
            rpc_seconds=(ours[1] / 1e6, everybody[1] / 1e6),
            user=self._user,
        )


def _grown(first: Served | None, last: Served | None, who: str) -> tuple[int, int]:
    if first is None or last is None:
        return (0, 0)
    before, after = getattr(first, who), getattr(last, who)
    return (after[0] - before[0], after[1] - before[1])


class Metered:
    """A runner that tells what each command took.

    Args:
        told: Called with the command's name, its seconds, and whether it did what it should.
    """

    def __init__(self, inner: Runner, told: Callable[[str, float, bool], None]) -> None:
        self._inner = inner
        self._told = told
        self._slowest_s = 0.0

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> bytes:
        """See `Runner`."""
        began = time.monotonic()
        done = False
        try:
            answer = self._inner.run(command, timeout_s=timeout_s, env=env)
            done = True
        finally:
            seconds = time.monotonic() - began
            self._told(command[0], seconds, done)
            if command[0] in SLURMCTLD:
                self._slowest_s = max(self._slowest_s, seconds)
        return answer

    def stop(self) -> None:
        """See `Runner`."""
        self._inner.stop()

    def slowest_s(self) -> float:
        """What slurmctld's slowest answer took since this was asked last, in seconds; 0 when it was not asked."""
        slowest_s, self._slowest_s = self._slowest_s, 0.0
        return slowest_s
