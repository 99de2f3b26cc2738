"""`cvagent cost`: the bill in plain words."""

from pathlib import Path

import click
import msgspec

from cvagent.api.bill import Cost
from cvagent.cli.known import Pages
from cvagent.settings import load_settings


def show_cost(env_file: Path | None, *, as_json: bool) -> None:
    """Print what the running agent cost Slurm in the last hour. Raises NoAgent when none answers."""
    settings, _ = load_settings(env_file)
    body = Pages(settings).get("/cost")
    if as_json:
        click.echo(body.decode())
        return
    for line in told(msgspec.json.decode(body, type=Cost)):
        click.echo(line)


def told(cost: Cost) -> list[str]:
    """The bill, a sentence a line."""
    minutes = max(1, round(cost.span_s / 60))
    count = sum(command.count for command in cost.commands.values())
    seconds = sum(command.seconds for command in cost.commands.values())
    lines = [
        f"In the last {_some(minutes, 'minute')} the agent ran {_some(count, 'Slurm command')}, {seconds:.1f} s in all:"
    ]
    for name, command in sorted(cost.commands.items()):
        failed = f", {command.failed} failed" if command.failed else ""
        each = command.seconds / command.count
        lines.append(f"  {name:<10} {command.count:>6} times, {each * 1000:.0f} ms each{failed}")
    lines += _share(cost)
    stretched = [f"{flow} {factor:.0f} times" for flow, factor in cost.stretch.items() if factor > 1]
    lines.append(
        f"slurmctld answers slowly: intervals are stretched ({', '.join(stretched)})."
        if stretched
        else "Intervals are as set."
    )
    return lines


def _share(cost: Cost) -> list[str]:
    if not cost.served_s or not cost.rpcs[1]:
        return ["slurmctld's own count is not known yet: it is asked every five minutes."]
    (ours, everybody), (busy_s, all_busy_s) = cost.rpcs, cost.rpc_seconds
    share = f"{busy_s / all_busy_s:.1%}" if all_busy_s else "nothing"
    span = _some(round(cost.served_s / 60), "minute")
    asked = f"slurmctld answered {_some(everybody, 'request')} in {span}"
    ours_told = f"{ours:,} of them ({ours / everybody:.1%}) were user {cost.user}'s"
    time_told = f"took {share} of its time ({busy_s:.2f} of {all_busy_s:.2f} s)"
    return [
        f"{asked}; {ours_told} and {time_told}.",
        f"All that user {cost.user} does counts here, not the agent alone.",
    ]


def _some(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")
