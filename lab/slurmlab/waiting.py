"""Waiting for something to become true."""

import time
from collections.abc import Callable

POLL_S = 0.02


def wait_until(holds: Callable[[], bool], limit_s: float) -> bool:
    """Asks again and again; False when it still does not hold after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
