"""The bodies of /documents and /facts, for the command line: the rows of one sink, and what nodes said of themselves.

Rows come newest change first.

An array of rows, each an array of `ports.Row`'s fields in their order, and the document in it likewise of
`model.JobConfig`'s; both may grow at their ends. Times are epoch seconds.

    [[["4711@lab", 4711, 1772359200, "RUNNING", 1772359205, null, "train", "gpu", "node[001-004]", false],
      "set_aside", 3, 1772359210.5, 0.0, null, "400: no such location"]]

Facts are an object with, by node, the inventory's own JSON and the epoch second at which it was collected.
"""

from collections.abc import Mapping, Sequence

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


def encode_facts(facts: Mapping[str, tuple[bytes, float]]) -> bytes:
    """The body."""
    return msgspec.json.encode({node: (msgspec.Raw(line), at) for node, (line, at) in facts.items()})


def decode_facts(body: bytes) -> dict[str, tuple[bytes, float]]:
    """The facts of a body. Raises like `decode_rows`.

    >>> decode_facts(b'{"n1": [{"schema": 1}, 7.0]}')
    {'n1': (b'{"schema": 1}', 7.0)}
    """
    found = msgspec.json.decode(body, type=dict[str, tuple[msgspec.Raw, float]])
    return {node: (bytes(line), at) for node, (line, at) in found.items()}
