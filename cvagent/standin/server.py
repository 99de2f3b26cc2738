"""The stand-in as a whole: for tests as a context manager, for people in the foreground."""

import signal
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, final

import click

from cvagent.standin.certificates import Certificates, make_certificates
from cvagent.standin.ledger import Asked, Ledger, Write
from cvagent.standin.listener import Listener
from cvagent.standin.page import application

TOKEN = "stand-in-token"  # noqa: S105
PORT = 8480


@final
class StandIn:
    """A strict CloudVision on loopback. Listens inside `with`; may be asked and steered from any thread.

    Args:
        port: 0 means any that is free.
        token: What must follow `Bearer `.
        tls: Serve https, with a certificate of a private CA that is made for this stand-in alone.
        faults: See `cvagent.standin.faults.ALLOWED`.
        batch: Whether the routes for many resources exist (else 404).
        reads: Whether resources can be read (else 501).

    Attributes:
        url: `http://127.0.0.1:<port>`, or `https`. Known inside `with`, like `ca_file`.
        ca_file: PEM file of the CA; None without TLS.

    Raises:
        ValueError: `faults` is wrong.
        OSError: On entry: the port is taken.
        RuntimeError: On entry: TLS is asked for and cannot be had.
    """

    url: str
    ca_file: str | None = None

    def __init__(  # noqa: PLR0913 - each is a switch of the command line
        self,
        port: int = 0,
        token: str = TOKEN,
        *,
        tls: bool = False,
        faults: str = "",
        batch: bool = True,
        reads: bool = True,
    ) -> None:
        self._ledger = Ledger(token, faults, batch=batch, reads=reads)
        self._port = port
        self._tls = tls

    def __enter__(self) -> "StandIn":
        with ExitStack() as stack:
            certificates = self._certificates(stack) if self._tls else None
            app = application(self._ledger)
            self._listener = Listener(app, self._port, certificates, self._ledger.count_connection)
            stack.callback(self._listener.close)
            self._listener.start()
            self._closing = stack.pop_all()
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self._listener.port}"
        return self

    def __exit__(self, *_error: object) -> None:
        self._closing.close()

    def _certificates(self, stack: ExitStack) -> Certificates:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="stand-in-"))
        certificates = make_certificates(Path(folder))
        self.ca_file = certificates.ca
        return certificates

    def up(self) -> None:
        """Listen (again), on the same port. Comes back when connections are accepted."""
        self._listener.start()

    def down(self) -> None:
        """Refuse and cut every connection until `up`. What is stored stays."""
        self._listener.stop()

    def faults(self, spec: str) -> None:
        """Replace the faults in force; "" clears them.

        Raises:
            ValueError: The SPEC is wrong; the text says what is allowed.
        """
        self._ledger.faults.put(spec)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 10) -> bool:
        """Wait until a condition on this stand-in holds; it is asked again after every request and write.

        Returns:
            False when the time ran out.
        """
        with self._ledger.changed:
            return self._ledger.changed.wait_for(condition, timeout_s)

    @property
    def token(self) -> str:
        """The token that is accepted. May be set at any time."""
        return self._ledger.token

    @token.setter
    def token(self, token: str) -> None:
        self._ledger.token = token

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """The stored JobConfigs by key, in wire form, oldest write first. A copy; its documents are not."""
        return {key: stored.document for key, stored in self._ledger.stored("JobConfig").items()}

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """The stored NodeConfigs, like `jobs`."""
        return {key: stored.document for key, stored in self._ledger.stored("NodeConfig").items()}

    @property
    def history(self) -> list[Write]:
        """The applied writes in order, the newest 200,000 of them."""
        return self._ledger.history

    @property
    def requests(self) -> list[Asked]:
        """The requests to the API in order, the newest 20,000 of them."""
        return self._ledger.requests

    @property
    def requests_total(self) -> int:
        """How many requests to the API there were."""
        return self._ledger.requests_total

    @property
    def connections(self) -> int:
        """How many connections were accepted (with TLS: that finished their handshake)."""
        return self._ledger.connections

    @property
    def violations(self) -> list[str]:
        """What a correct client never causes, the newest 1,000 sentences."""
        return self._ledger.violations


def main(  # noqa: PLR0913 - each is a switch of the command line
    port: int = PORT,
    *,
    tls: bool = False,
    faults: str = "",
    token: str = TOKEN,
    batch: bool = True,
    reads: bool = True,
) -> None:
    """Run a stand-in in the foreground until SIGINT or SIGTERM. Call it from the main thread.

    Raises:
        ValueError, OSError, RuntimeError: As `StandIn` does.
    """
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with StandIn(port, token, tls=tls, faults=faults, batch=batch, reads=reads) as stand_in:
        click.echo(_greeting(stand_in))
        stopped.wait()


def _greeting(stand_in: StandIn) -> str:
    lines = [
        f"A CloudVision stand-in is listening. Its page: {stand_in.url}/",
        f"CVAGENT_CLOUDVISION_URL={stand_in.url}",
        f"Token: {stand_in.token}",
    ]
    if stand_in.ca_file:
        lines.append(f"CA file: {stand_in.ca_file}")
    return "\n".join([*lines, "Stop it with Ctrl-C."])
