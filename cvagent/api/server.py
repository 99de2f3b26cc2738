"""The routes, and the thread that serves them. Nothing can be written here but what nodes report."""

import errno
import socket
import threading
from contextlib import suppress
from typing import Annotated, Literal

import msgspec
import uvicorn
from fastapi import FastAPI, HTTPException, Query
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from cvagent.api.documents import encode_facts, encode_rows
from cvagent.api.gate import Gate
from cvagent.api.metrics import CONTENT_TYPE, Scrape
from cvagent.api.observer import Board
from cvagent.api.page import Page, View
from cvagent.api.readiness import look
from cvagent.api.reports import PATH as REPORTS
from cvagent.api.reports import add_reports
from cvagent.errors import CvagentError, SettingsError, StoreError
from cvagent.ports import Clock, Outbox
from cvagent.settings import Listen
from cvagent.sources.node_reports import Mailbox

JSON = "application/json"
MAX_ROWS = 100_000

_START_S = 10.0
# A request under way may take so long when the server stops; the thread is left behind after a second more.
_GRACE_S = 1
# What is so at every start; any other reason may have passed by the next one.
_LASTING = frozenset({errno.EACCES})
_REASONS = {
    errno.EADDRINUSE: "another program listens there",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
    errno.EACCES: "this user may not listen on that port (below 1024?)",
}


def make_app(view: View, mailbox: Mailbox | None = None) -> ASGIApp:
    """The web application.

    Of the settings it uses cloudvision_url, portal_url, mode, http_listen, http_secret, report_secret, and whether the
    store is in memory. Nodes may report when there are both a report_secret and a mailbox.

    Raises:
        SettingsError: The server listens beyond loopback and has no token.
    """
    settings = view.settings
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    page = Page(view)
    _add_probes(app, view.outbox, view.board, view.clock)
    _add_pages(app, page, view.outbox, view.board, view.clock)
    own = {}
    if mailbox and settings.report_secret:
        add_reports(app, mailbox)
        own = {REPORTS: settings.report_secret}
    listen = settings.http_listen or Listen("127.0.0.1", 0)
    # Around all of it, so that what FastAPI answers by itself is guarded too.
    return Gate(app, listen, settings.http_secret, _headers(page.style_source), own)


def _add_probes(app: FastAPI, outbox: Outbox, board: Board, clock: Clock) -> None:
    """Add what monitoring asks for."""
    scrape = Scrape(board.metrics, board, outbox, clock)

    @app.get("/healthz")
    async def healthz() -> Response:
        """Asks nobody: neither the store nor a thread of the pool."""
        return PlainTextResponse("ok\n")

    @app.get("/readyz")
    def readyz() -> Response:
        """A `readiness.Readiness` as JSON."""
        readiness = look(board, outbox, clock.now())
        return Response(msgspec.json.encode(readiness), 200 if readiness.ready else 503, media_type=JSON)

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(scrape.text(), media_type=CONTENT_TYPE)


def _add_pages(app: FastAPI, page: Page, outbox: Outbox, board: Board, clock: Clock) -> None:
    """Add what people and the command line ask for."""

    @app.get("/")
    def status_page() -> Response:
        return HTMLResponse(page.render())

    @app.get("/documents")
    def rows(
        sink: str,
        status: Literal["pending", "accepted", "set_aside"] | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_ROWS)] = 500,
    ) -> Response:
        """See `documents`. 404 for a sink that this agent does not have, 503 when the store does not answer."""
        if sink not in board.sinks():
            raise HTTPException(404, f"no such sink; there are: {', '.join(board.sinks())}")
        try:
            return Response(encode_rows(outbox.rows(sink, status, limit)), media_type=JSON)
        except StoreError as error:
            raise HTTPException(503, str(error)) from None

    @app.get("/facts")
    def facts(node: Annotated[list[str] | None, Query()] = None) -> Response:
        """See `documents`. Of all nodes when none is named; 503 when the store does not answer."""
        try:
            found = outbox.facts().of(node) if node else outbox.facts().after(0)
        except StoreError as error:
            raise HTTPException(503, str(error)) from None
        return Response(encode_facts(found), media_type=JSON)

    @app.get("/cost")
    def cost() -> Response:
        """A `bill.Cost` as JSON."""
        return Response(msgspec.json.encode(board.bill.cost(clock.now())), media_type=JSON)

    @app.get("/favicon.ico")
    async def favicon() -> Response:
        return Response(status_code=204)


def _headers(style_source: str) -> dict[str, str]:
    policy = (
        f"default-src 'none'; style-src {style_source}; img-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


class HttpServer:
    """Serves an application in a thread. May be started once.

    Args:
        listen: Port 0 takes any that is free; `port` tells which.
    """

    def __init__(self, app: ASGIApp, listen: Listen) -> None:
        self._listen = listen
        self._server = _Server(_config(app))
        self._thread: threading.Thread | None = None
        self.port = listen.port

    @property
    def url(self) -> str:
        """Where the page is, without a slash at the end."""
        host = f"[{self._listen.host}]" if ":" in self._listen.host else self._listen.host
        return f"http://{host}:{self.port}"

    def start(self) -> None:
        """Listen; comes back when requests are answered.

        Raises:
            SettingsError: The address may not be had; the text names CVAGENT_HTTP_LISTEN.
            CvagentError: It cannot be had now.
        """
        listening = _listening(self._listen)
        self.port = listening.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, args=([listening],), name="http", daemon=True)
        self._thread.start()
        if not self._server.ready.wait(_START_S):
            raise CvagentError(f"the status page on {self.url} did not start within {_START_S:g} s")

    def stop(self) -> None:
        """Answer what was asked, close every connection, and come back: within about two seconds, come what may."""
        self._server.should_exit = True
        if self._thread:
            self._thread.join(_GRACE_S + 1)


class _Server(uvicorn.Server):
    """Says when it listens. In a thread uvicorn leaves signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
    )


def _listening(listen: Listen) -> socket.socket:
    """A socket that listens. Raises as `HttpServer.start` does."""
    try:
        found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name like localhost may stand for both families; IPv4 is what most clients try.
        family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        return _bound(family, address)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror)
        failure = SettingsError if error.errno in _LASTING else CvagentError
        raise failure(f"CVAGENT_HTTP_LISTEN: cannot listen on {listen.host}:{listen.port}: {reason}") from None


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        with suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen()
    except OSError:
        made.close()
        raise
    return made
