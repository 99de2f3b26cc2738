"""The command line. Each command imports what it needs when it runs, so that `cvagent --help` is quick.

Exit codes: 0 all is well, 1 something failed, 2 wrong usage or settings.
"""

from pathlib import Path

import click

from cvagent import __version__
from cvagent.cli.explain import explain
from cvagent.cli.hook import hook
from cvagent.cli.moments import moment_of
from cvagent.cli.socket_proxy import socket_proxy
from cvagent.cli.stand_ins import stand_in, stand_in_portal
from cvagent.errors import CvagentError, SettingsError


class _Program(click.Group):
    """Lists commands in the order of this file, and turns our own errors into a line and the right exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            click.echo(f"Error: wrong settings\n{error}", err=True)
            ctx.exit(2)
        except CvagentError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="cvagent")
@click.option(
    "--env-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with settings. Default: the one CVAGENT_ENV_FILE names, else .env in this directory.",
)
@click.pass_context
def main(ctx: click.Context, env_file: Path | None) -> None:
    """Tell Arista CloudVision which Slurm job runs where.

    Settings come from the environment and an env file; `cvagent check` says whether they work, `cvagent plan` what
    would be sent, and `cvagent run` (or `python -m cvagent`) sends it, until it is stopped.

    \b
    Exit codes: 0 all is well, 1 something failed, 2 wrong usage or settings.
    """
    ctx.obj = env_file


@main.command(short_help="Run, until SIGTERM or Ctrl-C.")
@click.option(
    "--once", is_flag=True, help="One round, deliver what is due, and end. Exit code 1 when anything is left."
)
@click.option("--force", is_flag=True, help="With --once: end runs and delete nodes even beyond CVAGENT_REMOVAL_SHARE.")
@click.pass_obj
def run(env_file: Path | None, *, once: bool, force: bool) -> None:
    """Run the mode that CVAGENT_MODE names, until SIGTERM or Ctrl-C.

    SIGHUP reads filters, intervals and secrets again; wrong new settings leave the old ones in force.
    """
    if force and not once:
        raise click.UsageError("--force goes with --once: a person looks at each forced round")
    from cvagent.cli.run import run_agent

    run_agent(env_file, once=once, force=force)


@main.command()
@click.argument("flow", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
@click.option("--force", is_flag=True, help="Show what --force would do about withheld changes.")
@click.pass_obj
def plan(env_file: Path | None, flow: str | None, *, as_json: bool, force: bool) -> None:
    """Show what a round would change. Writes nothing.

    FLOW is one of the flows of the mode (jobs, nodes, usage; accounts, tenants, order_states, members, associations);
    all of them when it is left out. With the store in memory the agent that runs on CVAGENT_HTTP_LISTEN is asked what
    it knows.
    """
    from cvagent.cli.plan import show_plans

    show_plans(env_file, flow, as_json=as_json, force=force)


@main.command(short_help="Say what works and what does not, with the mend.")
@click.pass_obj
def check(env_file: Path | None) -> None:
    """Check settings, Slurm, clock, CloudVision and the tenant portal: a line each, with the mend. Writes nothing.

    Exit code 1 when anything is wrong.
    """
    from cvagent.cli.check import check_all

    raise SystemExit(0 if check_all(env_file) else 1)


@main.command(short_help="Say where portal, Slurm and CloudVision differ, with the mend.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array for programs.")
@click.pass_obj
def drift(env_file: Path | None, *, as_json: bool) -> None:
    """Compare the portal's allocations, Slurm's accounts and CloudVision's tenants. Changes nothing.

    Each difference comes with the commands that mend it; look at them before you run them. Exit code 1 when there
    is any.
    """
    from cvagent.cli.drift import show_drift

    raise SystemExit(0 if show_drift(env_file, as_json=as_json) else 1)


@main.command()
@click.argument("job_ids", metavar="JOB_ID...", nargs=-1, required=True, type=click.IntRange(min=1))
@click.pass_obj
def resend(env_file: Path | None, job_ids: tuple[int, ...]) -> None:
    """Send these jobs again, from what Slurm says now. Safe to repeat.

    JOB_ID is Slurm's raw job id (sacct's JobIDRaw). Every run of the job that Slurm still knows is sent.
    """
    from cvagent.cli.resend import resend_jobs

    resend_jobs(env_file, job_ids)


@main.command(short_help="Send every job that ended in a span of time.")
@click.option("--since", required=True, metavar="T", help="2026-03-01, 2026-03-01T10:30, or 36h, 7d before now. UTC.")
@click.option("--until", metavar="T", help="Likewise. Default: now, running jobs included.")
@click.pass_obj
def backfill(env_file: Path | None, since: str, until: str | None) -> None:
    """Send every job that ended in a span of time, from Slurm's accounting. Safe to repeat."""
    from cvagent.cli.resend import backfill_jobs

    backfill_jobs(env_file, moment_of(since, "--since"), moment_of(until, "--until") if until else None)


main.add_command(explain)


@main.command(short_help="Have nodes read their interfaces now, and send them.")
@click.argument("nodes", metavar="[NODES]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Say which nodes would be asked and which cannot be; ask none.")
@click.pass_obj
def inventory(env_file: Path | None, nodes: tuple[str, ...], *, dry_run: bool) -> None:
    """Have nodes read their interfaces now, and send what changed to CloudVision. Safe to repeat.

    NODES are names or hostlists (node[1-4],node9); all nodes of the cluster when left out. Exit code 1 when a node
    could not be asked or did not answer; each is named with the reason.
    """
    from cvagent.cli.inventory import take_inventory

    take_inventory(env_file, nodes, dry_run=dry_run)


@main.group()
def outbox() -> None:
    """Look at what waits for CloudVision, and mend it.

    Works on the store that CVAGENT_STORE_URL names; with the store in memory, `list` asks the running agent.
    """


@outbox.command("list")
@click.option(
    "--status", type=click.Choice(["pending", "set_aside", "accepted"]), help="Default: pending and set aside."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def outbox_list(env_file: Path | None, status: str | None, *, as_json: bool) -> None:
    """List entries with their tries and the last error."""
    from cvagent.cli.outbox import list_entries

    list_entries(env_file, status, as_json=as_json)


@outbox.command("retry")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that wait or are set aside.")
@click.pass_obj
def outbox_retry(env_file: Path | None, keys: tuple[str, ...], *, everything: bool) -> None:
    """Make entries due at once, those that were set aside too."""
    from cvagent.cli.outbox import retry_entries

    retry_entries(env_file, _which(keys, everything=everything))


@outbox.command("drop")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that wait or are set aside.")
@click.pass_obj
def outbox_drop(env_file: Path | None, keys: tuple[str, ...], *, everything: bool) -> None:
    """Forget entries that wait or are set aside. A job that is still running is decided anew in the next round."""
    from cvagent.cli.outbox import drop_entries

    drop_entries(env_file, _which(keys, everything=everything))


main.add_command(hook)


@main.command(short_help="Say what the agent costs Slurm.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
@click.pass_obj
def cost(env_file: Path | None, *, as_json: bool) -> None:
    """Say what the running agent cost Slurm in the last hour, in plain words.

    Its commands and their time, and its user's share of what slurmctld served (from sdiag, asked every five minutes).
    """
    from cvagent.cli.cost import show_cost

    show_cost(env_file, as_json=as_json)


main.add_command(stand_in)
main.add_command(stand_in_portal)
main.add_command(socket_proxy)


@main.command(short_help="See it work: real Slurm, stand-ins, agent.")
@click.option("--nodes", default=4, show_default=True, type=click.IntRange(3, 64), help="Nodes of the real Slurm.")
@click.option("--recorded", is_flag=True, help="Replay a recorded cluster instead of starting a real Slurm.")
@click.option("--for", "seconds", type=click.IntRange(min=1), help="End by itself after so many seconds.")
def demo(*, nodes: int, recorded: bool, seconds: int | None) -> None:
    """See it work: a real Slurm on this machine, a stand-in CloudVision, a stand-in portal, the agent, and jobs.

    Needs root and Debian's Slurm packages for the real Slurm (`make demo` installs them); replays a recorded
    cluster otherwise, and says so. Ctrl-C stops and removes everything.
    """
    from cvagent.cli.demo import show_demo

    raise SystemExit(show_demo(nodes=nodes, recorded=recorded, seconds=seconds))


def _which(keys: tuple[str, ...], *, everything: bool) -> tuple[str, ...]:
    if everything == bool(keys):
        raise click.UsageError("name the keys, or give --all")
    return keys
