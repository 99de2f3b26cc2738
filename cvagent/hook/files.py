"""Writes the files of an installation: each in one step, with the owner and rights it had, and a backup beside it."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

from cvagent.errors import HookError
from cvagent.hook.site import Change


def write(change: Change, stamp: str) -> Path | None:
    """Put a change into effect; the path of the backup of what was there.

    The name of the backup ends with `stamp`.

    Raises:
        HookError: It could not be written, or is no longer as it was when the change was planned. It is unchanged.
    """
    try:
        if change.before is None:
            change.path.parent.mkdir(parents=True, exist_ok=True)
            _replace(change.path, _bytes(change.after), 0o755)
            return None
        if change.path.read_bytes() != _bytes(change.before):
            raise HookError(f"{change.path} was changed meanwhile: run this again")
        backup = change.path.with_name(f"{change.path.name}.cvagent-backup-{stamp}")
        _replace(backup, _bytes(change.before), None, change.path)
        _replace(change.path, _bytes(change.after), None, change.path)
    except OSError as error:
        raise HookError(f"{error.filename or change.path}: cannot be written: {error.strerror}") from None
    return backup


def make_spool(spool: Path, user: int, group: int | None) -> None:
    """Make the spool: Slurm's user leaves notes in it, the agent's group takes them out.

    `user` and `group` are ids; without a group the agent runs as Slurm's user or as root.

    Raises:
        HookError: It could not be made, and is not there.
    """
    try:
        spool.parent.mkdir(parents=True, exist_ok=True)
        spool.mkdir(0o700)
        os.chown(spool, user, -1 if group is None else group)
        spool.chmod(0o700 if group is None else 0o770)
    except FileExistsError:
        pass
    except OSError as error:
        raise HookError(f"{spool}: cannot be made: {error.strerror}") from None


def spool_trouble(spool: Path, user: int) -> str | None:
    """What is wrong with a spool, with the mend; None when nothing is."""
    try:
        found = spool.stat()
    except OSError as error:
        return f"{spool}: {error.strerror}: cvagent hook install makes it, as root"
    if not stat.S_ISDIR(found.st_mode):
        return f"{spool} is no directory"
    if found.st_uid != user:
        return f"{spool} belongs to user {found.st_uid} and not to Slurm's: chown {user} {spool}"
    if found.st_mode & 0o007:
        return f"{spool} is open to everybody: chmod o= {spool}"
    return None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _replace(path: Path, content: bytes, mode: int | None, like: Path | None = None) -> None:
    """Write a file in one step, with the rights, owner and extended attributes of another one."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if like:
            shutil.copystat(like, name)
            os.utime(name)
            os.chown(name, like.stat().st_uid, like.stat().st_gid)
        if mode is not None:
            Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
