"""Reads what the Docker engine says of a running exec: its two streams in one."""

from collections.abc import Iterator
from typing import Any

import urllib3

from cvagent.clients.runner import Watch
from cvagent.errors import CommandFailed

# What the engine may take on top of the command's own limit, in seconds.
GRACE_S = 5.0
STDOUT = 1

_HEADER = 8
_CHUNK = 1024 * 1024
_STREAMS = frozenset({STDOUT, 2, 3})


def frames(raw: Any, watch: Watch) -> Iterator[tuple[int, bytes]]:
    """(stream, piece) of a multiplexed answer: a header of 1 byte stream, 3 bytes 0, 4 bytes length, then the piece.

    Raises CommandFailed when it is not in that form, breaks off, or takes longer than the command may.
    """
    while header := _exactly(raw, _HEADER, watch):
        if header[0] not in _STREAMS or header[1:4] != b"\0\0\0":
            raise CommandFailed(watch.name, "the Docker engine's answer is not in the form of an exec")
        left = int.from_bytes(header[4:], "big")
        while left:
            chunk = _exactly(raw, min(left, _CHUNK), watch)
            if not chunk:
                raise _broke_off(watch)
            left -= len(chunk)
            yield header[0], chunk


def _exactly(raw: Any, size: int, watch: Watch) -> bytes:
    """So many bytes, or none at the end of the stream."""
    try:
        chunk: bytes = raw.read(size)
    except urllib3.exceptions.ReadTimeoutError:
        raise watch.too_late() from None
    watch.check()
    if watch.spent(GRACE_S):
        raise watch.too_late()
    if chunk and len(chunk) < size:
        raise _broke_off(watch)
    return chunk


def _broke_off(watch: Watch) -> CommandFailed:
    return CommandFailed(watch.name, "the Docker engine's answer broke off")
