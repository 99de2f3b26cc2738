"""`cvagent stand-in` and `cvagent stand-in-portal`."""

from pathlib import Path

import click

Named = tuple[str, Path] | None

reach = click.option(
    "--name",
    type=(str, click.Path(path_type=Path, dir_okay=False)),
    metavar="NAME CA_FILE",
    help="Let other machines reach it under this name, by HTTPS, and write its CA's certificate to a file. Whoever "
    "reaches it may steer it. Default: loopback only.",
)


@click.command("stand-in", short_help="Run a strict stand-in for CloudVision on loopback.")
@click.option("--port", default=8480, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free one.")
@click.option("--tls", is_flag=True, help="HTTPS with a private CA of its own; prints where the CA file is.")
@reach
@click.option("--fault", default="", metavar="SPEC", help="For example 503*20,hang*2,reset*3,429*5,lost*1.")
@click.option("--token", default="stand-in-token", show_default=True, help="The token it asks for.")
@click.option("--no-batch", is_flag=True, help="Answer 404 on the routes that write many.")
@click.option("--no-reads", is_flag=True, help="Answer 404 on the routes that read.")
def stand_in(*, port: int, tls: bool, name: Named, fault: str, token: str, no_batch: bool, no_reads: bool) -> None:
    """Run a strict stand-in for CloudVision on loopback, with a page that shows jobs as they change."""
    from cvagent.standin import Reach
    from cvagent.standin import main as serve

    try:
        serve(
            port=port,
            tls=Reach(*name) if name else tls,
            faults=fault,
            token=token,
            batch=not no_batch,
            reads=not no_reads,
        )
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("stand-in-portal", short_help="Run a strict stand-in for the tenant portal on loopback.")
@click.option("--dialect", default="waldur", show_default=True, type=click.Choice(["order-items", "orders", "waldur"]))
@click.option("--port", default=8481, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free one.")
@click.option("--tls", is_flag=True, help="HTTPS with a private CA of its own; prints where the CA file is.")
@reach
@click.option("--fault", default="", metavar="SPEC", help="For example 503*20,hang*2,reset*3,429*5,lost*1.")
@click.option("--token", default="stand-in-token", show_default=True, help="The token it asks for.")
def stand_in_portal(*, dialect: str, port: int, tls: bool, name: Named, fault: str, token: str) -> None:
    """Run a strict stand-in for the tenant portal on loopback, with a page on which one orders and terminates."""
    from cvagent.standin import Reach
    from cvagent.standin.portal import main as serve

    try:
        serve(dialect, port, tls=Reach(*name) if name else tls, faults=fault, token=token)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
