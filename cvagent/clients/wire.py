"""One HTTP server over connections that stay open: TLS, token, time limits, bounded answers. Knows no paths."""

import os
import re
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool

from cvagent import __version__
from cvagent.clients.answers import MAX_TEXT, Answer, Server, one_line
from cvagent.errors import CvagentError, Retryable
from cvagent.settings import is_loopback

_CHUNK = 64 * 1024
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


class Token(Protocol):
    """A service account's token, from wherever it is kept."""

    def value(self) -> str:
        """As it was last read."""

    def reread(self) -> object:
        """Read it again: it may have been replaced."""


class _OneWrite(HTTPSConnection):
    """Sends head and body of a request at once: one TLS record and one system call where there would be two."""

    _held: bytearray | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        """See HTTPConnection."""
        self._held = bytearray()
        super().request(*args, **kwargs)

    def send(self, data: Any) -> None:
        """See http.client.HTTPConnection."""
        if self._held is None:
            super().send(data)
        else:
            self._held += data

    def getresponse(self) -> Any:
        """See HTTPConnection."""
        held, self._held = self._held, None
        super().send(held or b"")
        return super().getresponse()


class _OneServer(HTTPAdapter):
    """Every request goes to the same server: its connections are looked up once, not for each request."""

    _connections: Any = None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """See HTTPAdapter."""
        if self._connections is None:
            connections = super().get_connection_with_tls_context(*args, **kwargs)
            if isinstance(connections, HTTPSConnectionPool):
                connections.ConnectionCls = _OneWrite
            self._connections = connections
        return self._connections


class Wire:
    """Requests to one server. Any thread may call.

    Args:
        server: Who is spoken to.
        token: Asked for each request, read again when it is refused.
        ca_file: CAs to trust (PEM); None takes what REQUESTS_CA_BUNDLE and its like name, else the built-in ones.
        timeout_s: For connecting, for each pause in an answer and for its whole body, in seconds.
        pool: How many connections are kept.
    """

    def __init__(
        self, server: Server, token: Token, ca_file: Path | None = None, timeout_s: float = 10, pool: int = 8
    ) -> None:
        self.server = server
        self._token = token
        self._rereading = threading.Lock()
        self._timeout_s = timeout_s
        self._headers = CaseInsensitiveDict(
            {"User-Agent": f"cvagent/{__version__}", "Content-Type": "application/json"}
        )
        # A session would look at netrc, cookies and redirects, of which there are none.
        self._adapter = _OneServer(pool_maxsize=pool, max_retries=0)
        self._send = partial(
            self._adapter.send,
            verify=str(ca_file) if ca_file else next(filter(None, map(os.environ.get, _CA_VARIABLES)), True),
            proxies=_proxies(server.url),
            timeout=timeout_s,
            stream=True,
        )

    def ask(self, method: str, path: str, body: bytes = b"", most: int = 1024 * 1024) -> Answer:
        """One answer of any status but those of a refused token, which is read again first.

        Args:
            method: GET, POST, ...
            path: With its query, from the slash after the server's url on: no other server ever sees the token.
            body: JSON, or nothing.
            most: Bytes of the answer that are read.

        Raises:
            Retryable: There was no answer, or the token is refused. It concerns the server.
        """
        token = self._token_now(None)
        answer = self._ask(method, path, body, most, token)
        if answer.status in self.server.refusing and (newer := self._token_now(token)) != token:
            answer = self._ask(method, path, body, most, newer)
        if answer.status in self.server.refusing:
            text = f"the token is refused; {self._token_setting} must name a valid one. {answer.says()}"
            raise Retryable(text[:MAX_TEXT], everything=True)
        return answer

    def replace_token(self, token: Token) -> None:
        """Use another from the next request on."""
        self._token = token

    def close(self) -> None:
        """Close all connections."""
        self._adapter.close()

    @property
    def _token_setting(self) -> str:
        return f"{self.server.setting}_TOKEN_FILE"

    def _token_now(self, refused: str | None) -> str:
        """The token; read again first when it is still the refused one."""
        try:
            with self._rereading:
                if self._token.value() == refused:
                    self._token.reread()
                token = self._token.value()
        except (OSError, CvagentError) as error:
            raise Retryable(f"no token ({self._token_setting}): {error}", everything=True) from None
        if not re.fullmatch(r"[!-~]+", token):
            raise Retryable(f"{self._token_setting} holds nothing that can be a token", everything=True)
        return token

    def _ask(self, method: str, path: str, body: bytes, most: int, token: str) -> Answer:
        """One request, built by hand: that spares a look at cookies and the environment."""
        request = requests.PreparedRequest()
        request.method, request.url, request.body = method, self.server.url + path, body
        request.headers = self._headers.copy()
        request.headers["Authorization"] = f"{self.server.scheme} {token}"
        request.headers["Content-Length"] = str(len(body))
        try:
            with self._send(request) as response:
                headers: Mapping[str, str] = response.headers
                return Answer(response.status_code, headers, self._read(response, most), token, self.server)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Retryable(one_line(self._no_answer(error), token), everything=True) from None

    def _read(self, response: requests.Response, most: int) -> bytes:
        """The body, or its beginning when it is longer than `most` bytes."""
        began, body = time.monotonic(), bytearray()
        while len(body) < most and (chunk := response.raw.read1(min(_CHUNK, most - len(body)), decode_content=True)):
            body += chunk
            if time.monotonic() - began > self._timeout_s:
                raise requests.ReadTimeout
        return bytes(body)

    def _no_answer(self, error: Exception) -> str:
        """Why there was no answer: the innermost error knows."""
        url = self.server.url
        if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
            return f"{url} gave no answer within {self._timeout_s:g} s"
        root: BaseException = error
        while inner := root.__cause__ or root.__context__:
            root = inner
        words = getattr(root, "verify_message", None) or getattr(root, "strerror", None) or str(root)
        if "certificate" in words.lower():
            return f"{url} is not trusted ({words}): {self.server.setting}_CA_FILE names the CA to trust"
        proxy = isinstance(error, requests.exceptions.ProxyError)
        return f"no answer from {'the proxy on the way to ' * proxy}{url} ({self.server.setting}_URL): {words}"


def _proxies(url: str) -> dict[str, str]:
    """Proxies by scheme, as the environment names them; none on loopback, where they would see what is not encrypted.

    >>> _proxies("http://127.0.0.1:8481"), _proxies("https://localhost/waldur")
    ({}, {})
    """
    return {} if is_loopback(urlsplit(url).hostname or "") else get_environ_proxies(url)
