"""Trouble on demand: a SPEC such as `503*20,hang*2,400@^4711` becomes one fault per request, in order."""

import re
import threading
from collections import deque

WORDS = ("hang", "reset", "lost", "garbage", "redirect", "ok")
ALLOWED = (
    "allowed, separated by commas: a status from 400 to 599, hang, reset, lost, garbage, redirect or ok, "
    "each with *N for N requests, without it for all that follow; "
    "400@REGEX to refuse the job keys in which REGEX, without a comma, is found"
)

_ITEM = re.compile(r"([a-z]+|[45]\d\d)(?:\*(\d{1,9}))?", re.ASCII)
_REFUSAL = "400@"

Queue = deque[tuple[str, int | None]]


class Faults:
    """The faults in force. Safe between threads.

    Args:
        spec: See `put`.
    """

    def __init__(self, spec: str = "") -> None:
        self._lock = threading.Lock()
        self._queue: Queue = deque()
        self._refusals: list[re.Pattern[str]] = []
        self.put(spec)

    def put(self, spec: str) -> None:
        """Replace all that is in force; an empty SPEC clears.

        Raises:
            ValueError: The SPEC is wrong; the text names the part and what is allowed. What was in force stays.
        """
        parts = [part.strip() for part in spec.split(",")] if spec.strip() else []
        refusals = [_refusal(part) for part in parts if part.startswith(_REFUSAL)]
        queue = _queue([part for part in parts if not part.startswith(_REFUSAL)])
        with self._lock:
            self._queue, self._refusals = queue, refusals

    def take(self) -> str:
        """Take the fault for one request: a word, a status number, or "" for a normal answer."""
        with self._lock:
            if not self._queue:
                return ""
            word, count = self._queue[0]
            if count == 1:
                self._queue.popleft()
            elif count is not None:
                self._queue[0] = (word, count - 1)
        return "" if word == "ok" else word

    def refusal(self, key: str) -> str:
        """Give the rule that refuses this job key; "" when none does."""
        found = (rule for rule in self._refusals if rule.search(key))
        return next((f"{_REFUSAL}{rule.pattern}" for rule in found), "")

    def left(self) -> str:
        """Give what is still to come, as a SPEC; "" when nothing is."""
        with self._lock:
            items = [word if count is None else f"{word}*{count}" for word, count in self._queue]
            return ",".join(items + [f"{_REFUSAL}{rule.pattern}" for rule in self._refusals])


def _queue(parts: list[str]) -> Queue:
    queue: Queue = deque()
    for part, item in [(part, _item(part)) for part in parts]:
        if queue and queue[-1][1] is None:
            raise ValueError(f"fault {part!r} is never reached: {queue[-1][0]!r} has no *N and lasts until cleared")
        queue.append(item)
    return queue


def _item(part: str) -> tuple[str, int | None]:
    found = _ITEM.fullmatch(part)
    if not found or not (found[1].isdigit() or found[1] in WORDS) or (found[2] and int(found[2]) == 0):
        raise ValueError(f"fault {part!r} is not known; {ALLOWED}")
    return found[1], int(found[2]) if found[2] else None


def _refusal(part: str) -> re.Pattern[str]:
    pattern = part.removeprefix(_REFUSAL)
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"fault {part!r} holds no regular expression ({error}); {ALLOWED}") from error
