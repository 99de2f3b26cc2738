"""uvicorn in a thread, on loopback unless it is told otherwise. It can go away and come back on the same port."""

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from cvagent.standin.certificates import Certificates

HOST = "127.0.0.1"
EVERYWHERE = ""
KEEP_ALIVE_S = 75
START_S = 10
CUT_S = 0.5
TURNS = 4


class Listener:
    """Serves an application until it is stopped. `start` and `stop` may alternate.

    Args:
        app: What answers.
        host: HOST or EVERYWHERE.
        port: 0 means any that is free; it is kept from then on.
        certificates: None means plain HTTP.
        on_connection: Called for each connection that may carry requests (with TLS: after the handshake).

    Raises:
        OSError: The port is taken.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        certificates: Certificates | None,
        on_connection: Callable[[], None],
    ) -> None:
        self._host = host
        # Bound for good and never listening: the port stays ours while the listener is away.
        self._claim = _bound(host, port)
        self.port: int = self._claim.getsockname()[1]
        self._config = uvicorn.Config(
            app,
            http=_protocol(on_connection),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,  # uvicorn's own loop would keep it right
            timeout_keep_alive=KEEP_ALIVE_S,
            ssl_certfile=certificates.certificate if certificates else None,
            ssl_keyfile=certificates.key if certificates else None,
        )
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen; comes back when connections are accepted. Nothing happens when it listens already.

        Raises:
            OSError: The port is taken.
        """
        if self._server is None:
            self._server = _Server(self._config, _bound(self._host, self.port))
            self._server.start()

    def stop(self) -> None:
        """Close the listening socket, cut every connection, and wait until both are done."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def close(self) -> None:
        """Stop and give the port back."""
        self.stop()
        self._claim.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, listening: socket.socket) -> None:
        super().__init__(config)
        self._ready = threading.Event()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self.run, args=([listening],), name="stand-in", daemon=True)

    def start(self) -> None:
        self._thread.start()
        if not self._ready.wait(START_S):
            raise RuntimeError(f"the stand-in did not start within {START_S} s")

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._ready.set()

    async def main_loop(self) -> None:
        """Wait to be stopped; uvicorn would look ten times a second, and every test would wait for that."""
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Cut where uvicorn would wait for clients: requests may hang here on purpose."""
        # Nothing more is accepted, and what was accepted is begun, before the close: asyncio would drop it half made.
        for listening in sockets or []:
            asyncio.get_running_loop().remove_reader(listening)
        await _turns()
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=CUT_S)
        await _end_handshakes()


async def _end_handshakes() -> None:
    """End the tasks that are left: asyncio's own, one for each handshake that the client has not finished."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await _turns()


async def _turns() -> None:
    """Let asyncio begin what it has just accepted, and finish what was just aborted."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


def _bound(host: str, port: int) -> socket.socket:
    # asyncio turns Nagle's delay off only where the protocol is named; with it each answer would take 40 ms.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def _protocol(on_connection: Callable[[], None]) -> type[asyncio.Protocol]:
    """Build a protocol that shows its transport to the application, in the scope's state."""

    class Shown(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        app_state: dict[str, Any]

        def connection_made(self, transport: Any) -> None:
            self.app_state = {**self.app_state, "transport": transport}
            super().connection_made(transport)
            on_connection()

    return Shown
