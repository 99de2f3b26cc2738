"""Pages and controls for people and other processes on this machine. No token: loopback only."""

import json
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from cvagent.standin.log import Log

_LOOK = Path(__file__).with_name("look.css")
_LOCAL_NAMES = ("127.0.0.1", "localhost")

_State = TypeVar("_State", bound=Log)
Action = Callable[[_State, Request], Awaitable[Response]]


def local(state: _State, action: Action[_State]) -> Callable[[Request], Awaitable[Response]]:
    """Keep out other web sites: a name of theirs that leads here, and a form that posts here."""

    async def answer(request: Request) -> Response:
        if request.url.hostname not in _LOCAL_NAMES:
            return problem("ask for this page as 127.0.0.1 or localhost")
        if request.method == "POST" and request.headers.get("content-type") != "application/json":
            return problem("the content type must be application/json")
        try:
            return await action(state, request)
        except ValueError as error:
            return problem(str(error))

    return answer


def controls(log: Log) -> list[Route]:
    """Build the controls that every stand-in has."""
    return [
        Route("/standin/faults", local(log, _set_faults), methods=["POST"]),
        Route("/standin/token", local(log, _set_token), methods=["POST"]),
    ]


def page(file: Path) -> Action[Any]:
    """Build the action that shows an HTML file, in which LOOK stands for the common style and NONCE for a nonce."""
    text = file.read_text().replace("LOOK", _LOOK.read_text())

    async def show(_state: Any, _request: Request) -> Response:
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
        return HTMLResponse(text.replace("NONCE", nonce), headers=headers)

    return show


def problem(message: str, status: int = 400) -> Response:
    """Build the answer to what cannot be done."""
    return JSONResponse({"message": message}, status)


async def fields(request: Request, *names: str) -> list[Any]:
    """Give the values of a body that has exactly these fields. Raises ValueError."""
    body = json.loads(await request.body())
    if not isinstance(body, dict) or set(body) != set(names):
        wanted = ", ".join(f'"{name}": ...' for name in names)
        raise ValueError(f"the body must be {{{wanted}}}")
    return [body[name] for name in names]


async def _only_text(request: Request, field: str) -> str:
    (text,) = await fields(request, field)
    return str(text)


async def _set_faults(log: Log, request: Request) -> Response:
    log.faults.put(await _only_text(request, "spec"))
    return JSONResponse({"faults": log.faults.left()})


async def _set_token(log: Log, request: Request) -> Response:
    token = await _only_text(request, "token")
    if not token:
        raise ValueError("the token must not be empty")
    log.token = token
    return JSONResponse({})
