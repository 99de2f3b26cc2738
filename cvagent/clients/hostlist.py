"""Unfolds Slurm's hostlists."""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from math import prod

from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet

# So many names has one range at most in Slurm itself.
MOST_NODES = 65_536
# Slurm has five.
_MOST_BRACKETS = 8
# Letters of a hostlist that a stranger wrote, and of a name in it without what stands in brackets.
_LONGEST = 1 << 16
_LONGEST_NAME = 253
# What commas outside of brackets part.
_PART = re.compile(r"(?:[^,\[]|\[[^\]]*\]?)+")
_BRACKETS = re.compile(r"\[([^\[\]]+)\]")
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")
# NodeSet reads these as set operations, wildcards or formats; no node's name holds them.
_FOREIGN = re.compile(r"[\s!&^*?%(){}]")


@lru_cache(maxsize=256)
def unfold(hostlist: str) -> tuple[str, ...]:
    """Node names in Slurm's order, each once.

    Raises:
        ValueError, NodeSetException: It is no hostlist.

    >>> unfold("gpu[3,1],a1,rack[1-2]n[01-02]")
    ('gpu3', 'gpu1', 'a1', 'rack1n01', 'rack1n02', 'rack2n01', 'rack2n02')
    """
    return _unfolded(hostlist)


def unfold_at_most(hostlist: str, most: int) -> tuple[str, ...]:
    """The same for what a stranger wrote: counted before it is unfolded, and not kept.

    Args:
        hostlist: Any text.
        most: So many nodes it may name; one that is named twice counts twice.

    Raises:
        ValueError, NodeSetException: It is no hostlist, or too long.

    >>> unfold_at_most("n[1-2]", 2)
    ('n1', 'n2')
    """
    if len(hostlist) > _LONGEST:
        raise ValueError(f"it has more than {_LONGEST} letters")
    if sum(map(_count, _PART.findall(hostlist))) > most:
        raise ValueError(f"it names more than {most} nodes")
    return _unfolded(hostlist)


def _unfolded(hostlist: str) -> tuple[str, ...]:
    if _FOREIGN.search(hostlist):
        raise ValueError(f"{hostlist[:100]!r} is no hostlist")
    return tuple(dict.fromkeys(node for part in _PART.findall(hostlist) for node in _nodes(part)))


def _nodes(part: str) -> Iterator[str]:
    """Not by NodeSet, which takes the 1 of `rack1[1-20]` as a digit of both ends."""
    if part.count("[") > _MOST_BRACKETS:
        raise ValueError(f"{part[:100]!r} has more than {_MOST_BRACKETS} brackets")
    # Every other text stood in brackets.
    texts = _BRACKETS.split(part)
    if any("[" in text or "]" in text for text in texts):
        yield from NodeSet(part, resolver=RESOLVER_NOGROUP)  # which says what is wrong with it
        return
    choices = [list(_numbers(text)) if at % 2 else [text] for at, text in enumerate(texts)]
    yield from map("".join, product(*choices))


def _numbers(inside: str) -> Iterator[str]:
    for first, numbers in _ranges(inside):
        yield from (f"{number:0{len(first)}d}" for number in numbers)


def _ranges(inside: str) -> Iterator[tuple[str, range]]:
    """The ranges in brackets, each with its first number as it is written: with its leading zeros."""
    for text in inside.split(","):
        found = _RANGE.fullmatch(text)
        numbers = range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)
        if not found or not numbers:
            raise ValueError(f"{text[:100]!r} is no range")
        yield found[1], numbers


def _count(part: str) -> int:
    insides = _BRACKETS.findall(part)
    if len(insides) <= _MOST_BRACKETS and len(part) - sum(map(len, insides)) > _LONGEST_NAME:
        raise ValueError(f"{part[:100]!r} is too long for a name")
    return prod(sum(numbers.stop - numbers.start for _, numbers in _ranges(inside)) for inside in insides)
