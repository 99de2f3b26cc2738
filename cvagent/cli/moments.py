"""Times as people type them."""

import datetime as dt

import click


def moment_of(text: str, option: str) -> int:
    """Epoch seconds of a UTC time, or of so many hours or days before now. Raises click.BadParameter."""
    now = dt.datetime.now(dt.timezone.utc)
    if text[:-1].isdecimal() and text[-1] in "hd":
        return int(now.timestamp()) - int(text[:-1]) * (3600 if text[-1] == "h" else 86_400)
    try:
        moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        allowed = "is no time: 2026-03-01, 2026-03-01T10:30, 36h or 7d"
        raise click.BadParameter(f"'{text}' {allowed}", param_hint=option) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=dt.timezone.utc)).timestamp())
