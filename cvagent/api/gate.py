"""Who may look. Beyond loopback a token is asked for; on loopback without one, the name by which we were called.

The second keeps out web sites that let a name of theirs lead to this machine (DNS rebinding).
"""

import base64
import binascii
import hmac
import logging
from collections.abc import Mapping

from fastapi.responses import PlainTextResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cvagent.errors import SettingsError
from cvagent.settings import Listen, Secret, is_loopback

log = logging.getLogger(__name__)

# Probes and Prometheus carry no token; these three show no job.
OPEN = frozenset({"/healthz", "/readyz", "/metrics"})


class Gate:
    """Lets a request pass or answers it, and adds headers to every answer.

    Args:
        listen: Where the server listens.
        token: What is asked for; None: nothing, on loopback only.
        own: Paths that always ask for a token of their own, and for no other.
        headers: Added to every answer, its refusals included.

    Raises:
        SettingsError: There is no token and the server listens beyond loopback.
    """

    def __init__(
        self,
        app: ASGIApp,
        listen: Listen,
        token: Secret | None,
        headers: Mapping[str, str],
        own: Mapping[str, Secret] | None = None,
    ) -> None:
        if token is None and not listen.loopback:
            raise SettingsError("CVAGENT_HTTP_TOKEN_FILE: is needed when CVAGENT_HTTP_LISTEN is beyond loopback")
        self._app = app
        self._token = token
        self._headers = headers
        self._own = own or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        refusal = self._refusal(scope["path"], Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, path: str, headers: Headers) -> PlainTextResponse | None:
        if path in self._own:
            return _wrong_token(self._own[path], headers.get("authorization", ""))
        if self._token is None:
            return _foreign_name(headers.get("host"))
        if path in OPEN:
            return None
        return _wrong_token(self._token, headers.get("authorization", ""))


def _foreign_name(host: str | None) -> PlainTextResponse | None:
    if not host:
        return _answer(400, "The request names no host.")
    if not is_loopback(_name(host)):
        return _answer(421, "Ask for this page as localhost or 127.0.0.1, or set CVAGENT_HTTP_TOKEN_FILE.")
    return None


def _wrong_token(token: Secret, authorization: str) -> PlainTextResponse | None:
    try:
        wanted = token.value()
    except SettingsError as error:
        log.warning("no page can be shown: %s", error)
        return _answer(503, "The token of this server cannot be read: see its log.")
    if hmac.compare_digest(presented(authorization).encode(), wanted.encode()):
        return None
    return _answer(
        401,
        "A token is needed: as Bearer token, or as the password of any user.",
        {"WWW-Authenticate": 'Basic realm="cvagent", charset="UTF-8"'},
    )


def presented(authorization: str) -> str:
    """The token in an Authorization header, empty when there is none: a Bearer token or a Basic password.

    >>> presented("Bearer abc"), presented("Basic YW55Ym9keTphYmM="), presented("Basic ?")
    ('abc', 'abc', '')
    """
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(rest, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def _name(host: str) -> str:
    """A Host header without its port and brackets, in lower case.

    >>> _name("LocalHost:9410"), _name("[::1]:9410"), _name("[::1]")
    ('localhost', '::1', '::1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _answer(status: int, text: str, headers: Mapping[str, str] | None = None) -> PlainTextResponse:
    return PlainTextResponse(f"{text}\n", status, headers)
