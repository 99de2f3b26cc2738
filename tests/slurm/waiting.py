"""Waiting in tests: for something to become true, never for time to pass."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_S = 0.05


def wait_until(predicate: Callable[[], T], limit_s: float, what: str = "") -> T:
    """Asks until the answer is true, and returns it; TimeoutError, with the last answer, after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    pause = threading.Event()
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit_s} s: {what or predicate}; last answer: {answer!r}")
        pause.wait(POLL_S)
    return answer
