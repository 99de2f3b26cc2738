"""The resource API over ASGI: reads a request, lets a fault strike it, answers."""

import json
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from cvagent.standin.ledger import Asked, Ledger
from cvagent.standin.resources import Answer, Call, answer, named, refused

RETRY_AFTER_S = 1
PIECE_BYTES = 65536

_LOGIN_PAGE = Response("<html><title>Sign in</title></html>", media_type="text/html")


class Api:
    """An ASGI application for everything under `/api`. Every request takes one fault."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or leave it unanswered where a fault says so."""
        try:
            call = await _call(Request(scope, receive))
        except ClientDisconnect:
            return
        self._watch(call)
        fault = self._ledger.faults.take()
        response = self._strike(fault, call)
        self._note(call, response.status_code if response else 0, fault)
        if response:
            await response(scope, receive, send)
            return
        if fault != "hang":
            _abort(scope)
        await _gone(receive)

    def _strike(self, fault: str, call: Call) -> Response | None:
        """Apply the call where its fault lets it through; None means that no answer may be sent."""
        if fault in ("hang", "reset"):
            return None
        if fault == "redirect":
            return Response(status_code=302, headers={"location": call.path})
        if fault.isdigit():
            return _response(refused(int(fault), f"fault {fault} was asked for"))
        normal = _response(answer(self._ledger, call))
        return {"lost": None, "garbage": _LOGIN_PAGE}.get(fault, normal)

    def _watch(self, call: Call) -> None:
        if call.method == "DELETE" and call.path.endswith("/all"):
            self._ledger.accuse(f"DELETE {call.path} was sent")

    def _note(self, call: Call, status: int, fault: str) -> None:
        key, keys = named(call)
        self._ledger.note(Asked(self._ledger.clock(), call.method, call.path, key, keys, status, fault))


async def _call(request: Request) -> Call:
    scope = request.scope
    query = parse_qs(scope["query_string"].decode("latin-1")) if scope["query_string"] else {}
    key = query.get("key.id", [""])[0]
    authorization = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    return Call(scope["method"], scope["path"], key, authorization.decode("latin-1"), _parsed(await request.body()))


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        return None


def _response(found: Answer) -> Response:
    headers = {"date": formatdate(usegmt=True)}
    if found.status == HTTPStatus.TOO_MANY_REQUESTS:
        headers["retry-after"] = str(RETRY_AFTER_S)
    if isinstance(found.body, bytes):
        return Response(found.body, found.status, headers, "application/json")
    return StreamingResponse(_pieces(found.body), found.status, headers, "application/json")


async def _pieces(lines: Iterator[bytes]) -> AsyncIterator[bytes]:
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) > PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _abort(scope: Scope) -> None:
    """Reset the connection; without the linger option the kernel would end it in good order."""
    transport = scope["state"]["transport"]
    linger_0_s = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_0_s)
    transport.abort()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
