"""`python -m benchmarks [NAME...] [--write]`: measures and prints the table. Exit code 1 when a goal is missed."""

import datetime as dt
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator

import click
from rich.console import Console
from rich.table import Table

from benchmarks import delivery, hook, interfaces, inventory, memory, rounds, rpcs, start, stores, tenancy
from benchmarks.measure import ROOT, Row
from benchmarks.slurm_lab import slurm_version

MEASUREMENTS: dict[str, Callable[[], Iterator[Row]]] = {
    "rounds": rounds.measure,
    "delivery": delivery.measure,
    "memory": memory.measure,
    "start": start.measure,
    "rpcs": rpcs.measure,
    "hook": hook.measure,
    "interfaces": interfaces.measure,
    "inventory": inventory.measure,
    "stores": stores.measure,
    "tenancy": tenancy.measure,
}
PAGE = ROOT / "docs" / "performance.md"
HEAD = ("what", "measured", "beside", "ratio", "goal", "met")
_BEGIN, _END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(MEASUREMENTS)))
@click.option("--write", is_flag=True, help="Write the table of docs/performance.md anew. Only for all of them.")
def main(names: tuple[str, ...], *, write: bool) -> None:
    """Measure what cvagent costs. Takes some minutes; other work on the machine makes it wrong."""
    if write and names:
        raise click.UsageError("the table is written as a whole: leave the names out")
    measured = [row for name in names or MEASUREMENTS for row in _told(name)]
    _show(measured)
    if write:
        _write(measured)
    sys.exit(any(row.met is False for row in measured))


def _told(name: str) -> Iterator[Row]:
    for row in MEASUREMENTS[name]():
        click.echo(" | ".join(_cells(row)), err=True)
        yield row


def _cells(row: Row) -> tuple[str, ...]:
    ratio = f"{row.ratio:.2g}x" if row.ratio is not None else ""
    met = {True: "yes", False: "no", None: ""}[row.met]
    return row.name, row.measured, row.reference, ratio, row.goal, met


def _show(measured: Iterable[Row]) -> None:
    table = Table(*HEAD)
    for row in measured:
        table.add_row(*_cells(row))
    Console().print(table)


def _write(measured: Iterable[Row]) -> None:
    lines = [HEAD, ("---",) * len(HEAD), *map(_cells, measured)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    page = PAGE.read_text()
    before, _, rest = page.partition(_BEGIN)
    PAGE.write_text(f"{before}{_BEGIN}{_machine()}\n\n{table}{_END}{rest.partition(_END)[2]}")


def _machine() -> str:
    today = dt.datetime.now(dt.timezone.utc).date()
    return f"{today}: {os.cpu_count()} cores, Python {platform.python_version()}, Slurm {slurm_version()}."


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
