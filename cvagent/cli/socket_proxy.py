"""`cvagent socket-proxy`."""

import signal
import threading
from pathlib import Path

import click

from cvagent import logs
from cvagent.socket_proxy import Rules, SocketProxy


@click.command("socket-proxy", short_help="Let an agent run Slurm's commands in one container, and no more.")
@click.option("--listen", required=True, type=click.Path(path_type=Path), help="The unix socket to make.")
@click.option("--container", required=True, envvar="CVAGENT_SLURM_CONTAINER", help="As the agent names it.")
@click.option("--user", default="", help="Who the commands run as there. Default: whom the container runs as.")
@click.option("--bin-dir", default="", envvar="CVAGENT_SLURM_BIN_DIR", help="As the agent has it.")
@click.option("--slurm-conf", default="", envvar="CVAGENT_SLURM_CONF", help="As the agent has it.")
@click.option(
    "--engine",
    default="/var/run/docker.sock",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The Docker engine's own socket.",
)
def socket_proxy(*, listen: Path, engine: Path, **allowed: str) -> None:
    """Stand between an agent and the Docker engine: Slurm's commands in one container are let through, nothing else.

    Options that the agent has as settings may come from the same names in the environment.
    """
    _serve(listen, Rules(engine=engine, **allowed))


def _serve(listen: Path, rules: Rules) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises click.ClickException when the socket cannot be made."""
    logs.set_up("info", "text", tuple)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        proxy = SocketProxy(listen, rules)
    except OSError as error:
        raise click.ClickException(f"no socket can be made at {listen}: {error.strerror}") from None
    with proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        click.echo(f"Slurm's commands in the container {rules.container}, and nothing else: {listen}")
        stopped.wait()
        proxy.shutdown()
    listen.unlink(missing_ok=True)
