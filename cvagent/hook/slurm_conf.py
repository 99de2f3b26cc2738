r"""Finds and changes single values in the text of slurm.conf, and leaves every other byte as it is.

Reads the text as Slurm does: keys in any case, several `key=value` on a line, values in double quotes, comments from
an unescaped # on, lines that a backslash continues, and the last of several values in force.
"""

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from cvagent.errors import HookError

_PAIR = re.compile(
    r"""(?<![^ \t\r\f\v\n]) ([A-Za-z0-9_.]+)
    [ \t\r\f\v]* [-+*/]? = [ \t\r\f\v]*
    ( "[^"\n]*" | [^ \t\r\f\v\n]+ )""",
    re.VERBOSE,
)
_INCLUDE = re.compile(r"^[ \t]*include[ \t]+([^ \t\r\f\v\n]+)", re.IGNORECASE | re.MULTILINE)
_COMMENT = re.compile(r"(?<!\\)(?:\\\\)*(#)")
_CONTINUED = re.compile(r"(?<!\\)(?:\\\\)*(\\)[ \t\r\f\v]*$")


class Entry(NamedTuple):
    """One `key=value` of the text.

    Attributes:
        key: In lower case.
        token: The value as it is written, quotes included.
        start: Offset of the key.
        value_start: Offset of the token.
        end: Offset after the token.
    """

    key: str
    token: str
    start: int
    value_start: int
    end: int

    @property
    def value(self) -> str:
        """Without quotes."""
        return unquoted(self.token)


def entries(text: str, key: str) -> list[Entry]:
    r"""Every value of a key, in order.

    >>> [found.value for found in entries('A=1 # B=2\nb = "3 4" a=5\nX=B=6\n', "B")]
    ['3 4']

    Raises:
        HookError: A backslash at the end of a line cuts the value in two.
    """
    plain, _ = _plain(text)
    found = [_entry(match) for match in _PAIR.finditer(plain) if match[1].lower() == key.lower()]
    for entry in found:
        if text[entry.end : entry.end + 1] == "\\":
            raise HookError(f"slurm.conf: the value of {key} goes on in the next line: write it on one")
    return found


def includes(text: str) -> list[str]:
    r"""The files that the text includes, as they are written there.

    >>> includes("Include nodes.conf\n#include no.conf\ninclude /etc/%c.conf # yes\n")
    ['nodes.conf', '/etc/%c.conf']
    """
    return _INCLUDE.findall(_plain(text)[0])


def with_token(text: str, entry: Entry, token: str) -> str:
    """The text with the value of one entry replaced."""
    return text[: entry.value_start] + token + text[entry.end :]


def with_lines(text: str, lines: Collection[str]) -> str:
    r"""The text with lines of their own added at its end, or above its last line when nothing ends that one.

    >>> with_lines("A=1\nB=2", ["C=3"])
    'A=1\nC=3\nB=2'
    """
    _, last = _plain(text)
    return text[:last] + "".join(f"{line}\n" for line in lines) + text[last:]


def without(text: str, entry: Entry) -> str:
    r"""The text without one entry, and without its line when nothing else is on it.

    >>> text = "A=1\nB=2\nC=3 # why\n"
    >>> without(text, *entries(text, "b")), without(text, *entries(text, "c"))
    ('A=1\nC=3 # why\n', 'A=1\nB=2\n # why\n')
    """
    begin = text.rfind("\n", 0, entry.start) + 1
    newline = text.find("\n", entry.end)
    end = len(text) if newline < 0 else newline + 1
    if text[begin:end].strip() == text[entry.start : entry.end]:
        return text[:begin] + text[end:]
    return text[: entry.start] + text[entry.end :]


def unquoted(token: str) -> str:
    """A value without the quotes around it."""
    return token[1:-1] if len(token) > 1 and token[0] == token[-1] == '"' else token


def _entry(match: re.Match[str]) -> Entry:
    return Entry(match[1].lower(), match[2], match.start(), match.start(2), match.end())


def _plain(text: str) -> tuple[str, int]:
    """The text with spaces for comments and continuations, of the same length; and where a line may be added."""
    lines = []
    place = 0
    open_line = False
    for start, line in _lines(text):
        if not open_line:
            place = start
        plain = _blank_from(line, _COMMENT.search(line))
        continued = _CONTINUED.search(plain)
        open_line = continued is not None
        lines.append(_blank_from(plain, continued) + (" " if open_line else "\n"))
        ends = start + len(line) < len(text)
        if ends and not open_line:
            place = start + len(line) + 1
    return "".join(lines)[: len(text)], place


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line without its newline, with its offset; nothing for what follows the last newline when that is empty."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield start, text[start:end]
        start = end + 1


def _blank_from(line: str, match: re.Match[str] | None) -> str:
    return line if match is None else line[: match.start(1)].ljust(len(line))
