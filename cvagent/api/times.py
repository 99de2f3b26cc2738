"""How times are told to people. All in UTC."""

import datetime as dt

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


def span(seconds: float) -> str:
    """A duration in the largest unit of which it holds two, rounded down; what is negative counts as none.

    >>> span(0.4), span(119), span(120), span(7200), span(200_000)
    ('0 s', '119 s', '2 min', '2 h', '2 d')
    """
    whole = max(0, int(seconds))
    for size, unit in _UNITS:
        if whole >= 2 * size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def moment(epoch: float) -> str:
    """A date and a time.

    >>> moment(0)
    '1970-01-01 00:00:00'
    """
    return dt.datetime.fromtimestamp(epoch, dt.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
