"""POST /nodes/report: a node sends what its inventory printed. Who may do so is the gate's affair."""

import asyncio

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.requests import ClientDisconnect

from cvagent.sources.node_reports import MOST_BYTES, Mailbox, Taken

PATH = "/nodes/report"

_PATIENCE_S = 10.0
_ANSWERS = {
    Taken.TAKEN: (202, "taken"),
    Taken.STRANGER: (404, "Slurm knows no such node: set SLURMD_NODENAME to its name in Slurm"),
    Taken.TOO_SOON: (429, "this node has just reported"),
    Taken.NO_ROOM: (503, "too many reports wait"),
    Taken.TOO_EARLY: (503, "Slurm was not asked yet for its nodes"),
}
_WAIT = {"Retry-After": "5"}


def add_reports(app: FastAPI, mailbox: Mailbox) -> None:
    """Add the route."""

    @app.post(PATH)
    async def report(request: Request) -> Response:
        """202 when it is taken, 400 for what is no inventory, 413 for too much of it; see _ANSWERS."""
        try:
            line = await asyncio.wait_for(_body(request), _PATIENCE_S)
        except (TimeoutError, asyncio.TimeoutError, ClientDisconnect):
            return _answer(408, f"the report was not here within {_PATIENCE_S:g} s")
        if line is None:
            return _answer(413, f"a report has at most {MOST_BYTES >> 20} MiB")
        try:
            return _answer(*_ANSWERS[mailbox.put(line)])
        except ValueError as error:
            return _answer(400, str(error)[:300])


async def _body(request: Request) -> bytes | None:
    """None when it is too long."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)


def _answer(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status, _WAIT if status in {429, 503} else None)
