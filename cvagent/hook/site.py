"""What a site's slurm.conf is to say with the hook in it, and without. Reads files and writes none."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cvagent.errors import HookError
from cvagent.hook import slurm_conf
from cvagent.hook.slurm_conf import Entry

KEYS = ("PrologSlurmctld", "EpilogSlurmctld")
SCRIPT = Path(__file__).with_name("cvagent-hook")

# 24.11 was seen to run several lines of one key; the manual of 22.05 does not know them.
SEVERAL_LINES_SINCE = (24, 11)
# A slurmctld of 22.05 that started without a hook goes on without one when it reads of one; one of 24.11 begins it.
RECONFIGURED_SINCE = (24, 11)

_SAID = "# slurm.conf said: "
_DEPTH = 10


class Change(NamedTuple):
    """A file as it is and as it is to be.

    Attributes:
        before: None when it is to be made.
    """

    path: Path
    before: str | None
    after: str


class Installation(NamedTuple):
    """Where the hook is to be.

    Attributes:
        script: The installed copy. Copies that run a hook of the site afterwards have the key behind its name.
        spool: Absolute.
        several: Slurm takes several lines of one key.
    """

    script: Path
    spool: Path
    several: bool = False

    def wrapper(self, key: str) -> Path:
        """The copy that runs the site's own hook of this key afterwards."""
        return self.script.with_name(f"{self.script.name}-{key}")

    def owns(self, value: str) -> bool:
        """Whether a value of slurm.conf is one of ours."""
        return Path(value) in {self.script, *map(self.wrapper, KEYS)}


class Found(NamedTuple):
    """One entry, with the file it stands in."""

    path: Path
    entry: Entry


class SlurmConf:
    """slurm.conf with the files it includes.

    Raises:
        HookError: One of them cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.texts: dict[Path, str] = {}
        self._read(self.path, 0)

    def found(self, key: str) -> list[Found]:
        """Every value of a key, file by file."""
        return [Found(path, entry) for path, text in self.texts.items() for entry in slurm_conf.entries(text, key)]

    def value(self, key: str) -> str | None:
        """The last value; None when there is none."""
        found = self.found(key)
        return found[-1].entry.value if found else None

    def _read(self, path: Path, depth: int) -> None:
        if path in self.texts or depth > _DEPTH:
            return
        try:
            text = path.read_bytes().decode("utf-8", "surrogateescape")
        except OSError as error:
            raise HookError(f"{path}: cannot be read: {error.strerror}") from None
        self.texts[path] = text
        cluster = self.value("ClusterName") or ""
        for name in slurm_conf.includes(text):
            self._read(self.path.parent / name.replace("%c", cluster), depth + 1)


def plan_install(conf: SlurmConf, wanted: Installation) -> list[Change]:
    """The changes that put the hook in or bring its copies up to date, scripts first; empty when all is as wanted.

    Raises:
        HookError: The site's own hook cannot be kept.
    """
    texts = dict(conf.texts)
    scripts: dict[Path, str] = {}
    lines = []
    for key in KEYS:
        found = conf.found(key)
        ours = next((item.entry.value for item in found if wanted.owns(item.entry.value)), None)
        wrapper = wanted.wrapper(key)
        if ours == str(wrapper):
            scripts[wrapper] = _script(wanted.spool, _said(wrapper))
        elif ours or wanted.several or not found:
            scripts[wanted.script] = _script(wanted.spool)
            lines += [] if ours else [f"{key}={wanted.script}"]
        else:
            path, entry = _last(key, texts, conf)
            scripts[wrapper] = _script(wanted.spool, entry.token)
            texts[path] = slurm_conf.with_token(texts[path], entry, str(wrapper))
    if lines:
        texts[conf.path] = slurm_conf.with_lines(texts[conf.path], lines)
    return _changed({path: _text(path) for path in scripts}, scripts) + _changed(conf.texts, texts)


def plan_uninstall(conf: SlurmConf, wanted: Installation) -> list[Change]:
    """The changes of slurm.conf that take the hook out; empty when it is not in.

    Raises:
        HookError: A copy that knows what slurm.conf said before is gone.
    """
    texts = {path: _without_ours(text, wanted) for path, text in conf.texts.items()}
    return _changed(conf.texts, texts)


def _last(key: str, texts: Mapping[Path, str], conf: SlurmConf) -> Found:
    """The value in force, where it stands in texts that may have been changed already."""
    files = sorted({item.path for item in conf.found(key)})
    if len(files) > 1:
        raise HookError(f"{key} stands in {' and in '.join(map(str, files))}: keep the one that is meant")
    return Found(files[0], slurm_conf.entries(texts[files[0]], key)[-1])


def spool_of(script: Path) -> Path | None:
    """The spool that an installed copy names; None when there is none."""
    found = re.search(r"(?m)^spool=(.*)$", _text(script) or "")
    return Path("".join(shlex.split(found[1]))) if found else None


def _without_ours(text: str, wanted: Installation) -> str:
    for key in KEYS:
        for entry in reversed(slurm_conf.entries(text, key)):
            if Path(entry.value) == wanted.wrapper(key):
                text = slurm_conf.with_token(text, entry, _said(wanted.wrapper(key)))
            elif Path(entry.value) == wanted.script:
                text = slurm_conf.without(text, entry)
    return text


def _script(spool: Path, token: str | None = None) -> str:
    """A copy of the hook that knows its spool and, where slurm.conf said something before, runs that afterwards."""
    text = re.sub(r"(?m)^spool=.*$", lambda _: f"spool={shlex.quote(str(spool))}", SCRIPT.read_text(), count=1)
    if token is None:
        return text
    site = f"site_hook={shlex.quote(_runnable(token))}\n{_SAID}{token}"
    return re.sub(r"(?m)^site_hook=$", lambda _: site, text, count=1)


def _runnable(token: str) -> str:
    path = slurm_conf.unquoted(token)
    if not path.startswith("/") or "\\" in path:
        raise HookError(f"slurm.conf: {token} is no absolute path that a script can run: add the hook by hand")
    return path


def _said(wrapper: Path) -> str:
    try:
        lines = wrapper.read_text(errors="surrogateescape").splitlines()
    except OSError as error:
        raise HookError(f"{wrapper} knows what slurm.conf said before, but: {error.strerror}. See the backup") from None
    return next(line.removeprefix(_SAID) for line in lines if line.startswith(_SAID))


def _changed(before: Mapping[Path, str | None], after: Mapping[Path, str]) -> list[Change]:
    return [Change(path, text, after[path]) for path, text in before.items() if text != after[path]]


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HookError(f"{path}: cannot be read: {error.strerror}") from None
