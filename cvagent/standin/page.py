"""The page at `/` and the control for other processes under `/standin`. No token: loopback only."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from cvagent.standin.api import ResourceApi
from cvagent.standin.ledger import Ledger, Stored
from cvagent.standin.local import controls, local, page

ROWS = 500
FIRST = 3

_PAGE = Path(__file__).with_name("page.html")


def application(ledger: Ledger) -> Starlette:
    """Build the whole web application of a stand-in."""
    routes = [
        Mount("/api", app=ResourceApi(ledger)),
        Route("/", local(ledger, page(_PAGE))),
        Route("/standin/state", local(ledger, _state)),
        Route("/standin/rows", local(ledger, _rows)),
        *controls(ledger),
    ]
    return Starlette(routes=routes)


async def _state(ledger: Ledger, _request: Request) -> Response:
    jobs, nodes = ledger.stored("JobConfig"), ledger.stored("NodeConfig")
    return JSONResponse({
        **_summary(ledger, jobs, nodes),
        "jobs": {key: stored.document for key, stored in jobs.items()},
        "nodes": {key: stored.document for key, stored in nodes.items()},
    })  # fmt: skip


async def _rows(ledger: Ledger, request: Request) -> Response:
    """Answer with what the page shows: the newest rows that hold the query's `filter`, and how many hold it."""
    wanted = request.query_params.get("filter", "").lower()
    jobs, nodes = ledger.stored("JobConfig"), ledger.stored("NodeConfig")
    shown = {"jobs": _newest(jobs, wanted, _job_row), "nodes": _newest(nodes, wanted, _node_row)}
    return JSONResponse({**_summary(ledger, jobs, nodes), "now": ledger.clock(), **shown})


def _summary(ledger: Ledger, jobs: dict[str, Stored], nodes: dict[str, Stored]) -> dict[str, Any]:
    return {
        "counts": {"jobs": len(jobs), "nodes": len(nodes)},
        "states": dict(Counter(stored.document["state"] for stored in jobs.values())),
        "requests": ledger.requests_total,
        "writes": ledger.writes_total,
        "connections": ledger.connections,
        "faults": ledger.faults.left(),
        "violations": ledger.violations,
    }


def _newest(stored: dict[str, Stored], wanted: str, row: Callable[[Stored], dict[str, Any]]) -> dict[str, Any]:
    """Fold resources into rows.

    Returns:
        `found`: how many hold the wanted text; `rows`: the newest 500 of them.
    """
    found = [one for one in reversed(stored.values()) if wanted in _haystack(one.document)]
    return {"found": len(found), "rows": [row(one) for one in found[:ROWS]]}


def _haystack(value: Any) -> str:
    """Join all texts of a document, in lower case.

    >>> _haystack({"key": {"id": "1@Lab"}, "nodes": {"values": ["n1", "n2"]}})
    '1@lab n1 n2'
    """
    if isinstance(value, str):
        return value.lower()
    items = value.values() if isinstance(value, dict) else value
    return " ".join(_haystack(item) for item in items)


def _job_row(stored: Stored) -> dict[str, Any]:
    job = stored.document
    places = [place for field in ("nodes", "interfaces") for place in job.get(field, {}).get("values", [])]
    return {
        "key": job["key"]["id"],
        "name": job["name"],
        "state": job["state"].removeprefix("JOB_STATE_"),
        "tenant": "type" in job,
        "unit": "interface" if "interfaces" in job else "node",
        "count": len(places),
        "first": places[:FIRST],
        "start": job["start_time"],
        "end": job.get("end_time", ""),
        "written": stored.at,
    }


def _node_row(stored: Stored) -> dict[str, Any]:
    node = stored.document
    interfaces = node["data_interfaces"]["values"]
    first = [" ".join((one["name"], one["mac_address"], *one["ip_addresses"]["values"])) for one in interfaces[:FIRST]]
    return {
        "key": node["key"]["id"],
        "location": node["location"],
        "unit": "interface",
        "count": len(interfaces),
        "first": first,
        "written": stored.at,
    }
