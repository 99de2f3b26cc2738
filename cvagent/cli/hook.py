"""`cvagent hook`: its commands and their options. What they do is imported when they run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., None])

_OPTIONS = (
    click.option(
        "--slurm-conf",
        type=click.Path(path_type=Path),
        envvar=["CVAGENT_SLURM_CONF", "SLURM_CONF"],
        default="/etc/slurm/slurm.conf",
        show_default=True,
        help="slurmctld's own slurm.conf.",
    ),
    click.option(
        "--script",
        type=click.Path(path_type=Path),
        default="/usr/local/libexec/cvagent-hook",
        show_default=True,
        help="Where the hook is installed.",
    ),
    click.option(
        "--spool",
        type=click.Path(path_type=Path),
        envvar="CVAGENT_HOOK_SPOOL",
        default="/var/spool/cvagent",
        show_default=True,
        help="Where notes are left.",
    ),
    click.option("--user", metavar="USER", help="Slurm's user. Default: slurm.conf's SlurmUser."),
    click.option(
        "--slurm-bin-dir",
        type=click.Path(path_type=Path),
        envvar="CVAGENT_SLURM_BIN_DIR",
        help="Where scontrol is. Default: on the PATH.",
    ),
)


def _about_a_site(command: _Command) -> _Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group()
def hook() -> None:
    """Let Slurm say at once that a job began or ended.

    Run these on slurmctld's machine. docs/hook.md says what one gains and gives up.
    """


@hook.command(short_help="Put the hook into slurm.conf.")
@_about_a_site
@click.option("--group", type=int, metavar="GID", help="Id of the agent's group, when it runs as a user of its own.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def install(*, group: int | None, yes: bool, **site: Any) -> None:
    """Put the hook into slurm.conf, beside the site's own hooks. Shows the change and asks before it makes it.

    Say it again after an upgrade, to bring the installed script up to date.
    """
    from cvagent.cli.hook_site import Site, install_hook

    install_hook(Site(**site), group, yes=yes)


@hook.command(short_help="Take it out of slurm.conf again.")
@_about_a_site
@click.option("--yes", is_flag=True, help="Do not ask.")
def uninstall(*, yes: bool, **site: Any) -> None:
    """Make slurm.conf what it would be without the hook. Shows the change and asks before it makes it.

    The scripts are removed once slurmctld no longer runs them.
    """
    from cvagent.cli.hook_site import Site, uninstall_hook

    uninstall_hook(Site(**site), yes=yes)


@hook.command(short_help="Say whether it is in place and notes arrive.")
@_about_a_site
@click.pass_obj
def status(env_file: Path | None, /, **site: Any) -> None:
    """Say whether the hook is in place and notes arrive: a line each, with the mend.

    Exit code 1 when anything is wrong.
    """
    from cvagent.cli.hook_site import Site
    from cvagent.cli.hook_status import show_hook

    raise SystemExit(0 if show_hook(Site(**site), env_file) else 1)
