"""A whole lab: up, down, and what runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from slurmlab import config, daemons, nodes, preflight
from slurmlab import settings as lab_settings
from slurmlab.errors import LabError
from slurmlab.namespaces import end_holder, holder, inside, need_holder, start_holder
from slurmlab.settings import Settings

MARKER = ".cvagent-lab"
MADE_BY_US = ("bin", "db", "dev", "etc", "home", "hooks", "log", "run", "state", "enter", "settings.json", MARKER)
CGROUPS = Path("/sys/fs/cgroup")


def up(settings: Settings) -> None:
    """Starts whatever of the lab is not running yet, and brings its files up to date."""
    preflight.check(settings)
    _claim(settings)
    with _locked(settings.folder):
        say = _Clock().say
        changed = _write(settings)
        say(f"namespaces (holder is process {need_holder(settings.folder)})")
        _start_accounting(settings, say)
        _start_controller(settings, changed)
        say("slurmctld")
        nodes.make(settings)
        nodes.start(settings, *settings.names)
        nodes.wait_until_up(settings, *settings.names)
        say(f"{settings.nodes} nodes are up; Slurm's commands: {settings.path('bin')}")


def down(folder: str, *, wipe: bool) -> None:
    """Stops the lab. Without `wipe` in good order, so that jobs, state and accounting come back with the next `up`."""
    if not Path(folder, MARKER).exists():
        return
    with _locked(folder):
        if holder(folder) and not wipe:
            _stop_in_order(lab_settings.load(folder))
        end_holder(folder)
        _remove_cgroups(folder)
        if wipe:
            _wipe(folder)


def status(folder: str) -> str:
    """What runs, for people."""
    settings = lab_settings.load(folder)
    if holder(folder) is None:
        return f"{folder}: not running ({settings.nodes} nodes)"
    names = ("munged", "mariadbd", "slurmdbd", "slurmctld")
    lines = [f"{folder}: cluster {settings.cluster}, {settings.nodes} nodes, mode {settings.mode}"]
    lines += [f"{name:<10} {daemons.pid_of(settings, name) or 'not running'}" for name in names]
    slurmds = [name for name in settings.names if daemons.pid_of(settings, f"slurmd.{name}")]
    lines.append(f"{'slurmd':<10} {len(slurmds)} of {settings.nodes}")
    if daemons.pid_of(settings, "slurmctld"):
        lines.append(inside(settings, "sinfo", check=False).stdout.rstrip())
    return "\n".join(lines)


class _Clock:
    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._start:6.2f} s  {text}", flush=True)


def _claim(settings: Settings) -> None:
    folder = Path(settings.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / MARKER).exists():
        raise LabError(f"LAB={folder} holds other things: name an empty folder")
    (folder / MARKER).touch()
    folder.chmod(0o755)


def _write(settings: Settings) -> bool:
    """Writes the files and sees to the holder; True when slurm.conf changed."""
    if settings.cgroup and holder(settings.folder) is None:
        preflight.check_cgroups_free()
    for name in config.FOLDERS:
        settings.path(name).mkdir(exist_ok=True)
    _check_same_lab(settings)
    conf = settings.path("etc", "slurm.conf")
    before = conf.read_text() if conf.exists() else ""
    config.write_system_files(settings)
    config.write_slurm_files(settings)
    if holder(settings.folder) is None:
        for stale in settings.path("run").glob("*.pid"):
            stale.unlink()
        start_holder(settings)
    settings.save()
    config.write_commands(settings, need_holder(settings.folder))
    return before != conf.read_text()


def _check_same_lab(settings: Settings) -> None:
    if not settings.path("settings.json").exists():
        return
    known = lab_settings.load(settings.folder)
    fixed = {"cluster": (known.cluster, settings.cluster)}
    if holder(settings.folder):
        fixed |= {name: (getattr(known, name), getattr(settings, name)) for name in ("mode", "cgroup", "accounting")}
        fixed["nodes"] = (min(known.nodes, settings.nodes), known.nodes)
    for name, (there, asked) in fixed.items():
        if there != asked:
            raise LabError(f"the lab in {settings.folder} has another {name}: end it with lab/slurm down --wipe first")


def _start_accounting(settings: Settings, say: _Clock.say) -> None:
    daemons.start(settings, "munged")
    if not settings.accounting:
        return
    daemons.start(settings, "mariadbd")
    say("munged, mariadbd")
    daemons.start(settings, "slurmdbd")
    say("slurmdbd")
    registered = settings.path("db", "registered")
    if not registered.exists():
        daemons.register_cluster(settings)
        registered.touch()
        say("cluster and accounts registered")


def _start_controller(settings: Settings, changed: bool) -> None:
    if changed and daemons.pid_of(settings, "slurmctld"):
        # Another number of nodes makes a reconfigured slurmctld 22.05 exit; it must be restarted, slurmds too.
        daemons.stop(settings, "slurmctld", *(f"slurmd.{name}" for name in settings.names))
    daemons.start(settings, "slurmctld")


def _stop_in_order(settings: Settings) -> None:
    daemons.stop(settings, *(f"slurmd.{name}" for name in settings.names))
    for name in ("slurmctld", "slurmdbd", "mariadbd"):
        daemons.stop(settings, name)


def _remove_cgroups(folder: str) -> None:
    with contextlib.suppress(LabError):
        if lab_settings.load(folder).cgroup:
            for path in sorted(CGROUPS.glob("*/slurm_node*/**/"), reverse=True):
                with contextlib.suppress(OSError):
                    path.rmdir()


def _wipe(folder: str) -> None:
    for name in MADE_BY_US:
        path = Path(folder, name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        Path(folder).rmdir()


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """One `up` or `down` of a lab at a time; a killed one lets go."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
