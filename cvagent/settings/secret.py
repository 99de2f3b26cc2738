"""A secret and the file it may come from. Knows no settings; every text made here leaves the secret out."""

import re
import stat
from pathlib import Path
from typing import NamedTuple

from cvagent.errors import SettingsError


def checked(text: str) -> str:
    """The text itself when it can be a token or a URL; ValueError, without the text, when it cannot.

    >>> checked("abc def")
    Traceback (most recent call last):
    ValueError: holds a space, a control character or one beyond ASCII
    """
    if not text:
        raise ValueError("is empty")
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("holds a space, a control character or one beyond ASCII")
    return text


def read(path: Path) -> str:
    """The secret in a file, less one newline at its end. Raises ValueError, which shows neither path nor text."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return checked(content.decode("ascii", "replace").removesuffix("\n").removesuffix("\r"))


def exposure(path: Path) -> str | None:
    """One line when everybody on the machine may read the file; None when not, or when it lies below /run.

    Container engines mount secrets world-readable below /run, where only the container sees them.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & stat.S_IROTH or Path("/run") in path.absolute().parents:
        return None
    return f"{path} can be read by everybody (mode {mode:04o}): chmod 600"


class _Loaded(NamedTuple):
    """What was read last, and the text before that: a request under way may still carry it."""

    text: str
    before: str
    stamp: tuple[int, ...]


class Secret:
    """A secret that may change while the program runs. Any thread may ask.

    Args:
        text: The secret itself, or
        path: a file that holds it. The file is read at the first `value()`, not here.
    """

    def __init__(self, *, text: str = "", path: Path | None = None) -> None:
        self._path = path
        self._loaded = _Loaded(text, "", ())

    def __repr__(self) -> str:
        return f"Secret(path={str(self._path)!r})" if self._path else "Secret(text='***')"

    def __eq__(self, other: object) -> bool:
        """Equal when they come from the same place: one file, or one text."""
        if not isinstance(other, Secret):
            return NotImplemented
        return self._path == other._path and (self._path is not None or self._loaded == other._loaded)

    def __hash__(self) -> int:
        return hash(self._path)

    def value(self) -> str:
        """The secret; the file is read again when it was changed or replaced.

        Raises SettingsError, naming the file, when it is missing, unreadable, empty, or holds no token.
        """
        if self._path and self._stamp(self._path) != self._loaded.stamp:
            return self.reread()
        return self._loaded.text

    def reread(self) -> str:
        """The secret, read anew even when the file looks unchanged. Raises as `value` does."""
        if self._path:
            # Stamp first: a file replaced between the two steps then looks changed the next time.
            stamp = self._stamp(self._path)
            self._loaded = self._renewed(self._read(self._path), stamp)
        return self._loaded.text

    def texts(self) -> tuple[str, ...]:
        """What must not be shown: the secret as last read and the one before it. Reads nothing."""
        return tuple(text for text in self._loaded[:2] if text)

    def _renewed(self, text: str, stamp: tuple[int, ...]) -> _Loaded:
        now = self._loaded
        return _Loaded(text, now.before if text == now.text else now.text, stamp)

    @staticmethod
    def _read(path: Path) -> str:
        try:
            return read(path)
        except ValueError as error:
            raise SettingsError(f"{path}: {error}") from None

    @staticmethod
    def _stamp(path: Path) -> tuple[int, ...]:
        """Device, inode, time of change (ns) and size of the file."""
        try:
            seen = path.stat()
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
        return seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_size
