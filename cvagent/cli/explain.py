"""The commands of `cvagent explain`."""

from pathlib import Path

import click

from cvagent.cli.moments import moment_of

_JSON = click.option("--json", "as_object", is_flag=True, help="JSON for programs.")


@click.group(short_help="Say how CloudVision came to know of a job, a node or a MAC.")
def explain() -> None:
    """Say what CloudVision was told of a job, a node or a MAC, when, and how that was found out.

    Reads the store that CVAGENT_STORE_URL names; with the store in memory, asks the running agent. Asks no node and
    changes nothing. Exit code 1 for what is not known.
    """


@explain.command("job")
@click.argument("job_id", metavar="JOB_ID", type=click.IntRange(min=1))
@_JSON
@click.pass_obj
def explain_job(env_file: Path | None, job_id: int, *, as_object: bool) -> None:
    """Say which nodes, GPUs and interfaces a job has, and how sure that is.

    JOB_ID is Slurm's raw job id (sacct's JobIDRaw). Every run of the job that the store knows is told.
    """
    from cvagent.cli.explain_known import tell_job

    tell_job(env_file, job_id, as_object=as_object)


@explain.command("node")
@click.argument("node")
@_JSON
@click.pass_obj
def explain_node(env_file: Path | None, node: str, *, as_object: bool) -> None:
    """Say what a node told of its interfaces, and which jobs are there now."""
    from cvagent.cli.explain_known import tell_node

    tell_node(env_file, node, as_object=as_object)


@explain.command("mac")
@click.argument("mac")
@click.option("--at", metavar="T", help="2026-03-01T10:30, or 36h, 7d before now. UTC. Default: now.")
@_JSON
@click.pass_obj
def explain_mac(env_file: Path | None, mac: str, at: str | None, *, as_object: bool) -> None:
    """Say whose interface this is, and which jobs hold it now or held it then.

    The store keeps a job for CVAGENT_LOOKBACK_H hours after its end, a day at least; in memory it keeps the newest.
    """
    from cvagent.cli.explain_known import tell_mac

    tell_mac(env_file, mac, moment_of(at, "--at") if at else None, as_object=as_object)
