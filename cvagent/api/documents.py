"""The body of /documents, for the command line: the rows of one sink as JSON, newest change first.

An array of rows, each an array of `ports.Row`'s fields in their order, and the document in it likewise of
`model.JobConfig`'s; both may grow at their ends. Times are epoch seconds.

    [[["4711@lab", 4711, 1772359200, "RUNNING", 1772359205, null, "train", "gpu", "node[001-004]", false],
      "set_aside", 3, 1772359210.5, 0.0, null, "400: no such location"]]
"""

from collections.abc import Sequence

import msgspec

from cvagent.model import Row


def encode_rows(rows: Sequence[Row]) -> bytes:
    """The body."""
    return msgspec.json.encode(rows)


def decode_rows(body: bytes) -> list[Row]:
    """The rows of a body. Raises msgspec.ValidationError or msgspec.DecodeError when it is none.

    >>> decode_rows(b"[]")
    []
    """
    return msgspec.json.decode(body, type=list[Row])
