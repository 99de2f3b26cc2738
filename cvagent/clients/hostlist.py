"""Unfolds Slurm's hostlists."""

import re
from collections.abc import Iterator
from functools import lru_cache

from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet

_COMMA_OUTSIDE_BRACKETS = re.compile(r",(?![^\[]*\])")
_FIRST_BRACKET = re.compile(r"([^\[\]]*)\[([^\[\]]+)\](.*)")
# NodeSet reads these as set operations, wildcards or formats; no node's name holds them.
_FOREIGN = re.compile(r"[\s!&^*?%(){}]")


@lru_cache(maxsize=256)
def unfold(hostlist: str) -> tuple[str, ...]:
    """Node names in Slurm's order, each once.

    Raises:
        ValueError: It is no hostlist.

    >>> unfold("gpu[3,1],a1,rack[1-2]n[01-02]")
    ('gpu3', 'gpu1', 'a1', 'rack1n01', 'rack1n02', 'rack2n01', 'rack2n02')
    """
    if _FOREIGN.search(hostlist):
        raise ValueError(f"{hostlist[:100]!r} is no hostlist")
    ranges = (piece for part in _COMMA_OUTSIDE_BRACKETS.split(hostlist) for piece in _ranges(part))
    return tuple(dict.fromkeys(node for piece in ranges for node in NodeSet(piece, resolver=RESOLVER_NOGROUP)))


def _ranges(part: str) -> Iterator[str]:
    """Undo the commas in brackets: NodeSet would sort what they part."""
    found = _FIRST_BRACKET.fullmatch(part)
    if not found:
        yield part
        return
    head, inside, tail = found.groups()
    for piece in inside.split(","):
        for rest in _ranges(tail):
            yield f"{head}[{piece}]{rest}"
