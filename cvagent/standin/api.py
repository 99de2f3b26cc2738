"""An API over ASGI: reads a request, lets a fault strike it, answers."""

import json
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from cvagent.standin.ledger import Ledger
from cvagent.standin.log import Asked, Log
from cvagent.standin.resources import Answer, Call, answer, named, refused

RETRY_AFTER_S = 1
PIECE_BYTES = 65536


class Api(ABC):
    """An ASGI application for everything under `/api`. Every request takes one fault.

    Args:
        log: What is kept of the requests.
    """

    def __init__(self, log: Log) -> None:
        self._log = log

    @abstractmethod
    async def read(self, request: Request) -> Any:
        """Make a call of a request, however broken it is."""

    @abstractmethod
    def answer(self, call: Any) -> Response:
        """Do what the call asks for."""

    @abstractmethod
    def refuse(self, status: int, message: str) -> Response:
        """Build an error answer."""

    @abstractmethod
    def named(self, call: Any) -> tuple[str, int]:
        """Tell the key that a call is about and how many there are; see Asked."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or leave it unanswered where a fault says so."""
        try:
            call = await self.read(Request(scope, receive))
        except ClientDisconnect:
            return
        fault = self._log.faults.take()
        response = self._strike(fault, call, scope["path"])
        key, keys = self.named(call)
        status = response.status_code if response else 0
        self._log.note(Asked(self._log.clock(), scope["method"], scope["path"], key, keys, status, fault))
        if response:
            response.headers["date"] = formatdate(self._log.clock(), usegmt=True)
            await response(scope, receive, send)
            return
        if fault != "hang":
            _abort(scope)
        await _gone(receive)

    def _strike(self, fault: str, call: Any, path: str) -> Response | None:
        """Apply the call where its fault lets it through; None means that no answer may be sent."""
        if fault in ("hang", "reset"):
            return None
        if fault == "redirect":
            return Response(status_code=302, headers={"location": path})
        if fault.isdigit():
            response = self.refuse(int(fault), f"fault {fault} was asked for")
            if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
                response.headers["retry-after"] = str(RETRY_AFTER_S)
            return response
        normal = self.answer(call)
        garbage = HTMLResponse("<html><title>Sign in</title></html>")
        return {"lost": None, "garbage": garbage}.get(fault, normal)


class ResourceApi(Api):
    """CloudVision's resource API."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self._ledger = ledger

    async def read(self, request: Request) -> Call:
        """See Api."""
        scope = request.scope
        query = parse_qs(scope["query_string"].decode("latin-1")) if scope["query_string"] else {}
        key = query.get("key.id", [""])[0]
        call = Call(scope["method"], scope["path"], key, authorization(scope), parsed(await request.body()))
        if call.method == "DELETE" and call.path.endswith("/all"):
            self._ledger.accuse(f"DELETE {call.path} was sent")
        return call

    def answer(self, call: Call) -> Response:
        """See Api."""
        return _response(answer(self._ledger, call))

    def refuse(self, status: int, message: str) -> Response:
        """See Api."""
        return _response(refused(status, message))

    def named(self, call: Call) -> tuple[str, int]:
        """See Api."""
        return named(call)


def authorization(scope: Scope) -> str:
    """Give the header as it came; "" when there is none."""
    found: bytes = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    return found.decode("latin-1")


def parsed(body: bytes) -> Any:
    """Give a body's JSON; None when it is empty or no JSON."""
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        return None


def _response(found: Answer) -> Response:
    if isinstance(found.body, bytes):
        return Response(found.body, found.status, media_type="application/json")
    return StreamingResponse(_pieces(found.body), found.status, media_type="application/json")


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
