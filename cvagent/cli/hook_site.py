"""`cvagent hook install` and `uninstall`: show the change, ask, make it, and say what is left to do."""

import difflib
import pwd
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click

from cvagent.clients.runner import NativeRunner
from cvagent.errors import CommandFailed, HookError
from cvagent.hook import files
from cvagent.hook.site import (
    KEYS,
    RECONFIGURED_SINCE,
    SEVERAL_LINES_SINCE,
    Change,
    Installation,
    SlurmConf,
    plan_install,
    plan_uninstall,
)

_TIMEOUT_S = 20


class Site(NamedTuple):
    """What the options of the three commands say.

    Attributes:
        user: Name or id of Slurm's user; None: slurm.conf's SlurmUser.
        slurm_bin_dir: Folder of Slurm's commands; None: found on the PATH.
    """

    slurm_conf: Path
    script: Path
    spool: Path
    user: str | None
    slurm_bin_dir: Path | None

    def installation(self) -> Installation:
        """Where the hook is to be. Raises HookError for a path that slurm.conf or a shell would read otherwise."""
        for path in (self.script, self.spool):
            if not re.fullmatch(r"/[A-Za-z0-9_.+/-]+", str(path)):
                raise HookError(f"{path}: must be an absolute path of letters, digits and _ . + - /")
        return Installation(self.script, self.spool, self.several_lines())

    def several_lines(self) -> bool:
        """Whether this release of Slurm is known to take several lines of one key."""
        return self._release() >= SEVERAL_LINES_SINCE

    def hears_at_once(self) -> bool:
        """Whether slurmctld runs the hook once it has read slurm.conf; else it has to be started anew."""
        in_force = self.in_force() or ""
        return self._release() >= RECONFIGURED_SINCE or not any(
            re.search(rf"(?m)^{key} *= \(null\)", in_force) for key in KEYS
        )

    def in_force(self) -> str | None:
        """What slurmctld has as its configuration at this moment; None when it does not answer."""
        return self._ask("show", "config")

    def slurm_user(self, conf: SlurmConf) -> int:
        """Id of the user that runs the hook. Raises HookError when this machine does not know it."""
        name = self.user or conf.value("SlurmUser") or "root"
        try:
            return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
        except KeyError:
            raise HookError(f"this machine has no user {name}: give --user") from None

    def _release(self) -> tuple[int, int]:
        """Such as (22, 5); (0, 0) when it is not known."""
        found = re.search(r"(\d+)\.(\d+)", self._ask("--version") or "")
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def _ask(self, *words: str) -> str | None:
        runner = NativeRunner(self.slurm_bin_dir, self.slurm_conf)
        try:
            return runner.run(["scontrol", *words], timeout_s=_TIMEOUT_S).decode(errors="replace")
        except CommandFailed:
            return None


def install_hook(site: Site, group: int | None, *, yes: bool) -> None:
    """Show the changes, ask, make them, and say what is left to do. Raises HookError."""
    conf = SlurmConf(site.slurm_conf)
    user = site.slurm_user(conf)
    changes = plan_install(conf, site.installation())
    if not changes and site.spool.is_dir():
        click.echo(f"Nothing to change: {site.slurm_conf} names the hook.")
        return
    _show(changes)
    if not site.spool.is_dir():
        click.echo(
            f"Makes {site.spool}, owned by user {user}, open to {'nobody else' if group is None else 'its group'}."
        )
    _ask_first(yes=yes)
    files.make_spool(site.spool, user, group)
    enough = site.hears_at_once()
    _write(changes)
    if enough:
        click.echo("slurmctld must read it: scontrol reconfigure (no restart).")
    else:
        click.echo(
            "slurmctld must be restarted: one of a release before 24.11 that started without a hook begins none."
        )
    if len(conf.found("SlurmctldHost")) > 1:
        click.echo(
            f"Several SlurmctldHost: each of them needs {site.script.parent}/{site.script.name}* and {site.spool}."
        )
    click.echo(f"The agent must watch it: CVAGENT_HOOK_SPOOL={site.spool}, and a restart of the agent.")


def uninstall_hook(site: Site, *, yes: bool) -> None:
    """Show the changes, ask, make them; remove the scripts once slurmctld no longer runs them. Raises HookError."""
    wanted = site.installation()
    changes = plan_uninstall(SlurmConf(site.slurm_conf), wanted)
    scripts = [path for path in (wanted.script, *map(wanted.wrapper, KEYS)) if path.exists()]
    if not changes and not scripts:
        click.echo(f"Nothing to change: {site.slurm_conf} does not name the hook.")
        return
    if changes:
        _show(changes)
        _ask_first(yes=yes)
        _write(changes)
    in_force = site.in_force()
    if in_force is None or any(str(path) in in_force for path in scripts):
        click.echo(
            f"slurmctld may still run {', '.join(map(str, scripts))}: a job whose prolog is gone would not start."
        )
        click.echo("Now scontrol reconfigure; then say this again to remove what is left.")
        return
    for path in scripts:
        path.unlink()
        click.echo(f"Removed {path}.")
    click.echo(f"{site.spool} is left as it is.")


def _show(changes: Sequence[Change]) -> None:
    for change in changes:
        if change.before is None:
            click.echo(f"Makes {change.path} (mode 755).")
            continue
        lines = difflib.unified_diff(
            change.before.split("\n"), change.after.split("\n"), str(change.path), str(change.path), n=1, lineterm=""
        )
        for line in lines:
            click.echo(line.encode("utf-8", "replace"))


def _ask_first(*, yes: bool) -> None:
    if not yes and not click.confirm("Change this?"):
        raise click.Abort


def _write(changes: Sequence[Change]) -> None:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for change in changes:
        backup = files.write(change, stamp)
        click.echo(f"Wrote {change.path}" + (f"; as it was: {backup}" if backup else ""))
