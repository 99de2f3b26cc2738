"""Log lines on standard error: one line a record, in UTC, as text or as JSON; a stack trace follows in text.

Other libraries are heard from warning upwards, unless the level is debug. Knows no settings.
"""

import datetime as dt
import json
import logging
import sys
from collections.abc import Callable, Iterable
from typing import TextIO

_OURS = "cvagent"
_SHORTEST = 4
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}


def set_up(level: str, form: str, secrets: Callable[[], Iterable[str]] = tuple, stream: TextIO | None = None) -> None:
    """Log from now on; a second call replaces what the first one set.

    Args:
        level: debug, info, warning or error.
        form: text or json.
        secrets: Called for each record; the texts that must not be shown, as far as they are known by then.
        stream: None: standard error.
    """
    output = logging.StreamHandler(stream or sys.stderr)
    output.set_name(_OURS)
    output.setFormatter(Json() if form == "json" else Text())
    output.addFilter(Redact(secrets))
    root = logging.getLogger()
    root.handlers = [*(handler for handler in root.handlers if handler.name != _OURS), output]
    root.setLevel(level.upper() if level in {"debug", "error"} else logging.WARNING)
    logging.getLogger("cvagent").setLevel(level.upper())


class Redact(logging.Filter):
    """The last line of defence: puts *** for every secret in a record's message, stack trace and stack.

    Texts of fewer than four characters are left alone: they would blot out ordinary words.
    """

    def __init__(self, secrets: Callable[[], Iterable[str]]) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record where needed; keep it always."""
        longest_first = sorted((text for text in self._secrets() if len(text) >= _SHORTEST), key=len, reverse=True)
        record.msg, record.args = _without(longest_first, _message(record)), None
        record.exc_text = _without(longest_first, _trace(record))
        record.stack_info = record.stack_info and _without(longest_first, record.stack_info)
        return True


class Text(logging.Formatter):
    """`2026-03-01T10:30:00Z INFO cvagent.loops: message`; control characters in a message are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the stack trace when there is one."""
        message = record.getMessage().translate(_ESCAPES)
        line = f"{_time(record)} {record.levelname} {record.name}: {message}"
        return "\n".join(filter(None, (line, _trace(record), record.stack_info)))


class Json(logging.Formatter):
    """One object a line: time, level, logger, message, and exc when there is a stack trace."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        fields = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        exc = "\n".join(filter(None, (_trace(record), record.stack_info)))
        return json.dumps(fields | ({"exc": exc} if exc else {}))


def _time(record: logging.LogRecord) -> str:
    return dt.datetime.fromtimestamp(record.created, dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _message(record: logging.LogRecord) -> str:
    """The text of a record, even of one that was called wrongly: a filter that raises would hit the caller."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return f"{record.msg} (arguments that do not fit: {record.args!r})"


def _trace(record: logging.LogRecord) -> str:
    """The stack trace as the filter left it, else from the exception; empty when there is none."""
    if record.exc_text:
        return record.exc_text
    return logging.Formatter().formatException(record.exc_info) if record.exc_info else ""


def _without(secrets: Iterable[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
