"""A stand-in while it listens: for tests as a context manager, for people in the foreground."""

import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
from starlette.types import ASGIApp

from cvagent.standin.certificates import Certificates, make_certificates
from cvagent.standin.listener import EVERYWHERE, HOST, Listener
from cvagent.standin.log import Asked, Log

if TYPE_CHECKING:
    from typing_extensions import Self

TOKEN = "stand-in-token"  # noqa: S105


class Reach(NamedTuple):
    """How other machines reach a stand-in: by HTTPS. Whoever reaches it may steer it.

    Attributes:
        name: The host name in its certificate, beside localhost.
        ca_file: Where the certificate of its CA is written, for those who are to trust it.
    """

    name: str
    ca_file: Path


class Served:
    """A stand-in, on loopback unless it is told otherwise.

    Listens inside `with`; may be asked and steered from any thread.

    Args:
        app: What answers.
        log: What it keeps.
        port: 0 means any that is free.
        tls: Serve https, with a certificate of a private CA that is made for this stand-in alone; to other machines,
            too, when it says how they reach it.

    Attributes:
        url: `http://127.0.0.1:<port>`, or `https`. Known inside `with`, like `ca_file`.
        ca_file: PEM file of the CA; None without TLS.

    Raises:
        OSError: On entry: the port is taken.
        RuntimeError: On entry: TLS is asked for and cannot be had.
        ValueError: On entry: the name is no host name.
    """

    url: str
    ca_file: str | None = None

    def __init__(self, app: ASGIApp, log: Log, port: int, *, tls: bool | Reach) -> None:
        self._app = app
        self._log = log
        self._port = port
        self._tls = tls

    def __enter__(self) -> "Self":
        with ExitStack() as stack:
            certificates = self._certificates(stack) if self._tls else None
            host = EVERYWHERE if isinstance(self._tls, Reach) else HOST
            self._listener = Listener(self._app, host, self._port, certificates, self._log.count_connection)
            stack.callback(self._listener.close)
            self._listener.start()
            self._closing = stack.pop_all()
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self._listener.port}"
        return self

    def __exit__(self, *_error: object) -> None:
        self._closing.close()

    def _certificates(self, stack: ExitStack) -> Certificates:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="stand-in-"))
        if not isinstance(self._tls, Reach):
            certificates = make_certificates(Path(folder))
            self.ca_file = certificates.ca
            return certificates
        certificates = make_certificates(Path(folder), self._tls.name)
        fresh = self._tls.ca_file.with_suffix(".new")
        shutil.copyfile(certificates.ca, fresh)
        fresh.replace(self._tls.ca_file)
        self.ca_file = str(self._tls.ca_file)
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
        self._log.faults.put(spec)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 10) -> bool:
        """Wait until a condition on this stand-in holds; it is asked again after every request and change.

        Returns:
            False when the time ran out.
        """
        with self._log.changed:
            return self._log.changed.wait_for(condition, timeout_s)

    @property
    def token(self) -> str:
        """The token that is accepted. May be set at any time."""
        return self._log.token

    @token.setter
    def token(self, token: str) -> None:
        self._log.token = token

    @property
    def requests(self) -> list[Asked]:
        """The requests to the API in order, the newest 20,000 of them."""
        return self._log.requests

    @property
    def requests_total(self) -> int:
        """How many requests to the API there were."""
        return self._log.requests_total

    @property
    def connections(self) -> int:
        """How many connections were accepted (with TLS: that finished their handshake)."""
        return self._log.connections

    @property
    def violations(self) -> list[str]:
        """What a correct client never causes, the newest 1,000 sentences."""
        return self._log.violations


def foreground(stand_in: Served, greeting: Callable[[], list[str]]) -> None:
    """Run a stand-in until SIGINT or SIGTERM. Call it from the main thread.

    Args:
        stand_in: Not entered yet.
        greeting: Gives the lines that say how to reach it, once it listens.

    Raises:
        OSError, RuntimeError: As `Served` does.
    """
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with stand_in:
        lines = [*greeting(), f"Token: {stand_in.token}"]
        if stand_in.ca_file:
            lines.append(f"CA file: {stand_in.ca_file}")
        click.echo("\n".join([*lines, "Stop it with Ctrl-C."]))
        stopped.wait()
