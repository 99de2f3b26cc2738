"""Records that nobody can forge: each field of sacct's, each record of squeue's ends with a mark."""

import secrets
from collections.abc import Iterator, Sequence

from cvagent.errors import Unreadable

# Linux allows 128 KiB for one argument.
_MAX_LIST = 100_000
# So many of sacct's rows are taken apart at a time.
_ROWS = 2000


def new_mark() -> str:
    """A mark that nobody can foresee."""
    return f"\x1e{secrets.token_hex(8)}"


def split_rows(text: str, mark: str, width: int) -> Iterator[list[str]]:
    """Split sacct's rows: each of `width` fields ends with the mark, each row with a newline more.

    Raises:
        Unreadable: It is half an answer, or another one.
    """
    rest = text
    while text:
        *fields, rest = rest.split(mark, width * _ROWS)
        if not fields or (len(fields) < width * _ROWS and rest != "\n"):
            raise Unreadable("sacct printed half a record at the end of its answer")
        if len(fields) % width:
            raise Unreadable(f"sacct printed {len(fields)} fields, which is no multiple of the {width} asked for")
        for first in range(0, len(fields), width):
            row = fields[first : first + width]
            row[0] = row[0].removeprefix("\n")
            yield row
        if rest == "\n":
            return


def number(text: str) -> int:
    """Digits alone: Python would also read the task `16_4` as a number. Raises ValueError."""
    if text.isascii() and text.isdigit():
        return int(text)
    raise ValueError(f"'{text[:40]}' is no number")


def lists(words: Sequence[object]) -> Iterator[str]:
    """The words separated by commas, each list short enough for one argument."""
    start, size = 0, 0
    for index, word in enumerate(words):
        size += len(str(word)) + 1
        if size > _MAX_LIST:
            yield ",".join(map(str, words[start:index]))
            start, size = index, 0
    if start < len(words):
        yield ",".join(map(str, words[start:]))
