"""The page at `/` and the control for other processes under `/standin`. No token: loopback only."""

import json
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route

from cvagent.standin.api import Api
from cvagent.standin.ledger import Ledger, Stored

ROWS = 500
FIRST = 3

_PAGE = Path(__file__).with_name("page.html")
_LOCAL_NAMES = ("127.0.0.1", "localhost")

Action = Callable[[Ledger, Request], Awaitable[Response]]


def application(ledger: Ledger) -> Starlette:
    """Build the whole web application of a stand-in."""
    routes = [
        Mount("/api", app=Api(ledger)),
        Route("/", _local(ledger, _page)),
        Route("/standin/state", _local(ledger, _state)),
        Route("/standin/rows", _local(ledger, _rows)),
        Route("/standin/faults", _local(ledger, _set_faults), methods=["POST"]),
        Route("/standin/token", _local(ledger, _set_token), methods=["POST"]),
    ]
    return Starlette(routes=routes)


def _local(ledger: Ledger, action: Action) -> Callable[[Request], Awaitable[Response]]:
    """Keep out other web sites: a name of theirs that leads here, and a form that posts here."""

    async def local(request: Request) -> Response:
        if request.url.hostname not in _LOCAL_NAMES:
            return _problem("ask for this page as 127.0.0.1 or localhost")
        if request.method == "POST" and request.headers.get("content-type") != "application/json":
            return _problem("the content type must be application/json")
        return await action(ledger, request)

    return local


async def _page(_ledger: Ledger, _request: Request) -> Response:
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }
    return HTMLResponse(_PAGE.read_text().replace("NONCE", nonce), headers=headers)


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


async def _set_faults(ledger: Ledger, request: Request) -> Response:
    try:
        ledger.faults.put(await _only_text(request, "spec"))
    except ValueError as error:
        return _problem(str(error))
    return JSONResponse({"faults": ledger.faults.left()})


async def _set_token(ledger: Ledger, request: Request) -> Response:
    try:
        token = await _only_text(request, "token")
    except ValueError as error:
        return _problem(str(error))
    if not token:
        return _problem("the token must not be empty")
    ledger.token = token
    return JSONResponse({})


async def _only_text(request: Request, field: str) -> str:
    body = json.loads(await request.body())
    if not isinstance(body, dict) or list(body) != [field] or not isinstance(body[field], str):
        raise ValueError(f'the body must be {{"{field}": "..."}}')
    text: str = body[field]
    return text


def _problem(message: str) -> Response:
    return JSONResponse({"message": message}, 400)


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
