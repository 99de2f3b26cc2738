"""What every stand-in keeps of its clients: requests, connections, violations. Safe between threads."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from cvagent.standin.faults import Faults

REQUESTS_KEPT = 20_000
VIOLATIONS_KEPT = 1_000


class Asked(NamedTuple):
    """A request to the API, whatever became of it.

    Attributes:
        at: Epoch seconds.
        key: The one key it was about; "" for a batch or a list.
        keys: How many keys it was about; 0 for a list or an unreadable body.
        status: HTTP status; 0 when there was no answer.
        fault: The fault that struck it; "" when none did.
    """

    at: float
    method: str
    path: str
    key: str
    keys: int
    status: int
    fault: str


class Log:
    """What every stand-in keeps; it outlives its listener.

    Args:
        token: The one that is accepted.
        faults: See `Faults.put`.
        clock: Gives epoch seconds.

    Attributes:
        changed: Notified after every request and every change.

    Raises:
        ValueError: `faults` is wrong.
    """

    def __init__(self, token: str, faults: str = "", *, clock: Callable[[], float] = time.time) -> None:
        self.token = token
        self.faults = Faults(faults)
        self.clock = clock
        self.changed = threading.Condition()
        self.requests_total = 0
        self.connections = 0
        self._requests: deque[Asked] = deque(maxlen=REQUESTS_KEPT)
        self._violations: deque[str] = deque(maxlen=VIOLATIONS_KEPT)

    def note(self, asked: Asked) -> None:
        """Remember a request."""
        with self.changed:
            self._requests.append(asked)
            self.requests_total += 1
            self.changed.notify_all()

    def accuse(self, violation: str) -> None:
        """Remember what should never have come."""
        with self.changed:
            self._violations.append(violation)
            self.changed.notify_all()

    def count_connection(self) -> None:
        """Count a connection that was accepted."""
        with self.changed:
            self.connections += 1
            self.changed.notify_all()

    @property
    def requests(self) -> list[Asked]:
        """The requests in order, the newest 20,000 of them."""
        with self.changed:
            return list(self._requests)

    @property
    def violations(self) -> list[str]:
        """What should never have come or be stored, the newest 1,000 sentences."""
        with self.changed:
            return list(self._violations)
