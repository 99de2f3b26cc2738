"""What `cvagent check` and its like report."""

from typing import NamedTuple


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        ok: None for what is only worth knowing.
    """

    ok: bool | None
    what: str
    text: str
