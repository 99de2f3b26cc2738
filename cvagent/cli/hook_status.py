"""`cvagent hook status`: a line for each thing that must be right, with the mend."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import requests

from cvagent.cli.check import show_all
from cvagent.cli.finding import Finding
from cvagent.cli.hook_site import Site
from cvagent.errors import CvagentError
from cvagent.hook import files
from cvagent.hook.site import KEYS, SlurmConf, spool_of
from cvagent.settings import load_settings

_PAGES_TIMEOUT_S = 5
# A running agent takes notes out within a second or two.
_WAITS_S = 10


def show_hook(site: Site, env_file: Path | None) -> bool:
    """Print a line for each thing that must be right; whether nothing is wrong."""
    return show_all(_findings(site, env_file))


def _findings(site: Site, env_file: Path | None) -> Iterator[Finding]:
    conf = SlurmConf(site.slurm_conf)
    wanted = site.installation()
    named = {key: [Path(item.entry.value) for item in conf.found(key)] for key in KEYS}
    ours = {key: [path for path in paths if wanted.owns(str(path))] for key, paths in named.items()}
    for key in KEYS:
        text = f"{key} in {conf.path} names {ours[key][0]}" if ours[key] else f"{key} does not name the hook"
        yield Finding(bool(ours[key]), "slurm.conf", text)
    scripts = sorted({path for paths in ours.values() for path in paths})
    yield _heard(site.in_force(), scripts)
    yield from map(_script, scripts)
    spool = next(filter(None, map(spool_of, scripts)), site.spool)
    trouble = files.spool_trouble(spool, site.slurm_user(conf))
    yield Finding(not trouble, "spool", trouble or f"{spool} is there")
    if not trouble:
        yield _waiting(spool)
    yield _arriving(env_file)


def _heard(in_force: str | None, scripts: Sequence[Path]) -> Finding:
    if in_force is None:
        return Finding(None, "slurmctld", "does not answer: whether it runs the hook is not known")
    missing = [str(path) for path in scripts if str(path) not in in_force]
    if missing:
        return Finding(False, "slurmctld", f"does not run {', '.join(missing)} yet: scontrol reconfigure")
    return Finding(True, "slurmctld", "has read slurm.conf")


def _script(path: Path) -> Finding:
    if not path.exists():
        return Finding(False, "script", f"{path} is not there, and jobs cannot start: cvagent hook install")
    if not path.stat().st_mode & 0o001:
        return Finding(False, "script", f"{path} is not executable by all: chmod 755 {path}")
    return Finding(True, "script", f"{path} is executable")


def _waiting(spool: Path) -> Finding:
    try:
        oldest = min((entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(spool)), default=None)
    except OSError as error:
        return Finding(None, "spool", f"{spool}: {error.strerror}: this user may not look into it")
    waits_s = 0 if oldest is None else int(time.time() - oldest)
    if waits_s > _WAITS_S:
        return Finding(False, "notes", f"notes wait, the oldest for {waits_s} s: no agent watches {spool}")
    return Finding(True, "notes", "none waits to be read")


def _arriving(env_file: Path | None) -> Finding:
    try:
        settings, _ = load_settings(env_file)
        listen = settings.http_listen
        if listen is None:
            return Finding(None, "agent", "serves no metrics (CVAGENT_HTTP_LISTEN=off): whether it hears is not known")
        text = requests.get(f"{listen.near_url}/metrics", timeout=_PAGES_TIMEOUT_S).text
    except (CvagentError, requests.RequestException):
        return Finding(None, "agent", "does not answer under these settings: whether it hears is not known")
    number, last = (_metric(text, name) for name in ("cvagent_notes_total", "cvagent_last_note_timestamp_seconds"))
    if not number:
        return Finding(
            None,
            "agent",
            "has heard of no note since it started; slurmctld before 24.11 begins no hook until its own restart",
        )
    return Finding(True, "agent", f"has heard of {number:.0f} notes, the last {time.time() - last:.0f} s ago")


def _metric(text: str, name: str) -> float:
    found = re.search(rf"(?m)^{name} (\S+)$", text)
    return float(found[1]) if found else 0.0
