"""What `cvagent demo` shows on the terminal: allocations from the portal to CloudVision, and jobs."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from cvagent.clients.accounts import SlurmAccounts
from cvagent.errors import SourceError
from cvagent.model.accounts import Account
from cvagent.standin import StandIn
from cvagent.standin.portal import PortalStandIn
from cvagent.standin.portal.objects import Resource

_COLOURS = {"RUNNING": "cyan", "COMPLETED": "green", "FAILED": "red", "CANCELLED": "yellow"}
_PORTAL_COLOURS = {"OK": "green", "Erred": "red", "Terminated": "yellow"}
_ALLOCATIONS = 5
_NOTHING = "\u2013"


class Tenants(NamedTuple):
    """Where allocations are ordered, and where their accounts are."""

    portal: PortalStandIn
    slurm: SlurmAccounts


def tables(stand_in: StandIn, tenants: Tenants | None, rows: int) -> Group:
    """Both tables, of so many rows at most."""
    jobs = stand_in.jobs
    configs = [job for job in jobs.values() if "type" not in job]
    if tenants is None:
        return Group(*_jobs(stand_in, configs, rows))
    resources = list(tenants.portal.market.resources.values())[: -_ALLOCATIONS - 1 : -1]
    return Group(_allocations(resources, tenants.slurm, jobs), "", *_jobs(stand_in, configs, rows - len(resources) - 5))


def _allocations(resources: list[Resource], slurm: SlurmAccounts, jobs: Mapping[str, Any]) -> Table:
    table = _table(
        "Allocations: ordered at the portal, account in Slurm, tenant in CloudVision",
        *(_sharing("ordered", 3), _wide("portal", 11), _sharing("account in Slurm", 5)),
        *(_sharing("users", 3), _sharing("GrpTRESMins", 5), _wide("tenant", 9)),
    )
    try:
        accounts = slurm.tree().accounts
    except SourceError:
        accounts = None
    for resource in resources:
        table.add_row(
            _plain(resource.name),
            Text(resource.state, style=_PORTAL_COLOURS.get(resource.state, "cyan")),
            *_account(accounts, resource.backend_id),
            _tenant(jobs, resource.uuid),
        )
    return table


def _account(accounts: Mapping[str, Account] | None, name: str) -> Iterator[Text]:
    """Name, users and limits."""
    if accounts is None:
        return map(Text, ("no answer", _NOTHING, _NOTHING))
    account = accounts.get(name.lower())
    if account is None:
        return map(Text, (_NOTHING,) * 3)
    limits = ",".join(f"{tres}={minutes}" for tres, minutes in account.tres_minutes.items())
    return map(Text, (account.name, ",".join(sorted(account.users)), limits))


def _tenant(jobs: Mapping[str, Any], uuid: str) -> Text:
    """Its nodes, or how it ended."""
    found = [job for job in jobs.values() if "type" in job and job["key"]["id"].partition(".")[0] == uuid]
    if not found:
        return Text(_NOTHING)
    state = str(found[-1]["state"]).removeprefix("JOB_STATE_")
    nodes = ",".join(found[-1].get("nodes", {}).get("values", ()))
    return Text(nodes if state == "RUNNING" else state, style=_COLOURS.get(state, ""))


def _jobs(stand_in: StandIn, jobs: list[dict[str, Any]], rows: int) -> Iterator[Table | Text]:
    newest = sorted(jobs, key=lambda job: (str(job["start_time"]), str(job["key"]["id"])), reverse=True)
    table = _table(
        f"CloudVision holds {len(jobs)} jobs, newest first",
        *(_wide("job", 9), _sharing("name"), _wide("state", 9), _sharing("nodes"), _wide("start", 8), _wide("end", 8)),
    )
    for job in newest[: max(rows, 1)]:
        table.add_row(*_cells(job))
    yield table
    counts = {state: sum(job["state"] == f"JOB_STATE_{state}" for job in jobs) for state in _COLOURS}
    line = Text("   ").join(Text(f"{count} {state.lower()}", style=_COLOURS[state]) for state, count in counts.items())
    if stand_in.nodes:
        line.append(f"   {len(stand_in.nodes)} nodes with their interfaces")
    yield line


def _table(title: str, *columns: Column) -> Table:
    return Table(*columns, title=title, title_justify="left", expand=True)


def _wide(name: str, width: int) -> Column:
    """A column of so many letters or more."""
    return Column(name, no_wrap=True, overflow="ellipsis", min_width=width)


def _sharing(name: str, ratio: int = 1) -> Column:
    """A column that shares what is left."""
    return Column(name, no_wrap=True, overflow="ellipsis", ratio=ratio)


def _cells(job: Mapping[str, Any]) -> list[Text]:
    state = str(job["state"]).removeprefix("JOB_STATE_")
    nodes = ",".join(job.get("nodes", {}).get("values", ()))
    times = [str(job.get(name, ""))[11:19] for name in ("start_time", "end_time")]
    return [
        Text(job["key"]["id"]),
        _plain(str(job["name"])),
        Text(state, style=_COLOURS.get(state, "")),
        Text(nodes),
        *map(Text, times),
    ]


def _plain(name: str) -> Text:
    """Names come from strangers."""
    return Text("".join(letter if letter.isprintable() else "\ufffd" for letter in name))
