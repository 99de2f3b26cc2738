"""CloudVision's REST API: the one place that knows its paths and answers. Words in, words out; the token in no text."""

import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies

from cvagent import __version__
from cvagent.clients.answers import MAX_TEXT, Answer, failed_keys, must_be_success, one_line, retry_after
from cvagent.errors import CvagentError, DeliveryError, Permanent, Retryable

_JOBS = "/api/resources/computejob/v1/JobConfig"
_NODES = "/api/resources/computejob/v1/NodeConfig"
# Answers in bytes: to one document, and to a batch, of which every document may fail with a text.
_MAX_SINGLE = 1024 * 1024
_MAX_BATCH = 16 * 1024 * 1024
_CHUNK = 64 * 1024
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")

# HTTP statuses that say more than their hundred; of the others the 4xx are final.
_OF_THE_DOCUMENT = frozenset({408, 425, 500})
_OF_THE_SERVER = frozenset({407, 429})
_NOT_FOUND = 404
_NO_SUCH_API = frozenset({404, 405, 501})
_REFUSED_TOKEN = frozenset({401, 403})
_SUCCESS, _REDIRECT, _FINAL = range(200, 300), range(300, 400), range(400, 500)


class Token(Protocol):
    """The service account's token, from wherever it is kept."""

    def value(self) -> str:
        """As it was last read."""

    def reread(self) -> object:
        """Read it again: it may have been replaced."""


class Ping(NamedTuple):
    """How the server answered a question that changes nothing. 404 may mean: no such API, or merely no such key."""

    status: int
    date: str | None
    tls: bool


class Unsupported(Permanent):
    """This CloudVision takes no batches: write one by one, for good."""


class _Session(requests.Session):
    """Only to prepare a redirect that nobody follows, requests would read all of its body: see none."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """See requests.Session."""


class _OneServer(HTTPAdapter):
    """Every request goes to the same server: its connections are looked up once, not for each request."""

    _connections: Any = None

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """See HTTPAdapter."""
        self._connections = self._connections or super().get_connection_with_tls_context(*args, **kwargs)
        return self._connections


class CloudVision:
    """Writes JobConfigs and NodeConfigs over connections that stay open. Any thread may call.

    Args:
        url: `https://<server>`.
        token: Asked for each request, read again when it is refused.
        ca_file: CAs to trust (PEM); None takes what REQUESTS_CA_BUNDLE and its like name, else the built-in ones.
        timeout_s: For connecting, for each pause in an answer and for its whole body, in seconds.
        pool: How many connections are kept.

    Attributes:
        batches: Whether the server takes batches; None while unknown.
    """

    def __init__(
        self, url: str, token: Token, ca_file: Path | None = None, timeout_s: float = 10, pool: int = 8
    ) -> None:
        self.batches: bool | None = None
        self._url = url.rstrip("/")
        self._token = token
        self._rereading = threading.Lock()
        self._timeout_s = timeout_s
        self._headers = CaseInsensitiveDict(
            {"User-Agent": f"cvagent/{__version__}", "Content-Type": "application/json"}
        )
        self._session = _Session()
        self._session.mount(self._url, _OneServer(pool_maxsize=pool, max_retries=0))
        self._send = partial(
            self._session.send,
            verify=str(ca_file) if ca_file else next(filter(None, map(os.environ.get, _CA_VARIABLES)), True),
            proxies=get_environ_proxies(self._url),
            timeout=timeout_s,
            allow_redirects=False,
            stream=True,
        )

    def set_job(self, body: Mapping[str, Any]) -> None:
        """Write one JobConfig, or raise Retryable or Permanent."""
        self._set(_JOBS, body)

    def set_node(self, body: Mapping[str, Any]) -> None:
        """Write one NodeConfig, or raise Retryable or Permanent."""
        self._set(_NODES, body)

    def delete_node(self, key: str) -> None:
        """Delete one NodeConfig, or raise Retryable or Permanent. One that is not there is deleted."""
        answer = self._exchange("DELETE", f"{self._url}{_NODES}?key.id={quote(key, safe='')}", b"", _MAX_SINGLE)
        if answer.status == _NOT_FOUND:
            return
        if failure := self._failure(answer):
            raise failure
        must_be_success(answer)

    def set_jobs(self, bodies: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Write many JobConfigs at once; return key id and error text of those that failed.

        Raises:
            Unsupported: The server takes no batches; `batches` is False from now on.
            Retryable, Permanent: Nothing is known about any of them.
        """
        return self._batch(f"{_JOBS}/some", {"values": bodies}, {body["key"]["id"] for body in bodies})

    def set_nodes(self, bodies: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Write many NodeConfigs at once; see `set_jobs`."""
        return self._batch(f"{_NODES}/some", {"values": bodies}, {body["key"]["id"] for body in bodies})

    def delete_nodes(self, keys: Sequence[str]) -> dict[str, str]:
        """Delete many NodeConfigs at once; see `set_jobs`."""
        return self._batch(f"{_NODES}/deletesome", {"keys": [{"id": key} for key in keys]}, set(keys))

    def _set(self, path: str, body: Mapping[str, Any]) -> None:
        answer = self._exchange("POST", self._url + path, msgspec.json.encode(body), _MAX_SINGLE)
        if failure := self._failure(answer):
            raise failure
        must_be_success(answer)

    def _batch(self, path: str, body: Mapping[str, Any], keys: AbstractSet[str]) -> dict[str, str]:
        if self.batches is False:
            raise Unsupported
        answer = self._exchange("POST", self._url + path, msgspec.json.encode(body), _MAX_BATCH)
        if answer.status in _NO_SUCH_API:
            self.batches = False
            raise Unsupported
        if failure := self._failure(answer):
            raise failure
        failed = dict(failed_keys(answer))
        if failed.keys() - keys:
            raise Retryable("CloudVision's answer to a batch names keys that were not sent")
        self.batches = True
        return failed

    def ping(self) -> Ping:
        """Ask for a key that hardly exists; raise Retryable unless address, certificate and token are right."""
        answer = self._exchange("GET", f"{self._url}{_JOBS}?key.id=cvagent-check", b"", _MAX_SINGLE)
        failure = self._failure(answer)
        if isinstance(failure, Retryable) and answer.status not in _NO_SUCH_API:
            raise failure
        return Ping(answer.status, answer.headers.get("Date"), self._url.startswith("https://"))

    def replace_token(self, token: Token) -> None:
        """Use another from the next request on."""
        self._token = token

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def _exchange(self, method: str, url: str, body: bytes, most: int) -> Answer:
        """One answer of any status but 401 and 403; those only after the token was read again."""
        token = self._token_now(None)
        answer = self._ask(method, url, body, most, token)
        if answer.status in _REFUSED_TOKEN and (newer := self._token_now(token)) != token:
            answer = self._ask(method, url, body, most, newer)
        if answer.status in _REFUSED_TOKEN:
            text = f"the token is refused; CVAGENT_CLOUDVISION_TOKEN_FILE must name a valid one. {answer.says()}"
            raise Retryable(text[:MAX_TEXT], everything=True)
        return answer

    def _token_now(self, refused: str | None) -> str:
        """The token; read again first when it is still the refused one."""
        try:
            with self._rereading:
                if self._token.value() == refused:
                    self._token.reread()
                token = self._token.value()
        except (OSError, CvagentError) as error:
            raise Retryable(f"no token (CVAGENT_CLOUDVISION_TOKEN_FILE): {error}", everything=True) from None
        if not re.fullmatch(r"[!-~]+", token):
            raise Retryable("CVAGENT_CLOUDVISION_TOKEN_FILE holds nothing that can be a token", everything=True)
        return token

    def _ask(self, method: str, url: str, body: bytes, most: int, token: str) -> Answer:
        """One request. Built by hand: that spares the session's look at netrc, cookies and the environment."""
        request = requests.PreparedRequest()
        request.method, request.url, request.body = method, url, body
        request.headers = self._headers.copy()
        request.headers["Authorization"] = f"Bearer {token}"
        request.headers["Content-Length"] = str(len(body))
        try:
            with self._send(request) as response:
                return Answer(response.status_code, response.headers, self._read(response, most), token)
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
        if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
            return f"{self._url} gave no answer within {self._timeout_s:g} s"
        root: BaseException = error
        while inner := root.__cause__ or root.__context__:
            root = inner
        words = getattr(root, "verify_message", None) or getattr(root, "strerror", None) or str(root)
        if "certificate" in words.lower():
            return f"{self._url} is not trusted ({words}): CVAGENT_CLOUDVISION_CA_FILE names the CA to trust"
        proxy = isinstance(error, requests.exceptions.ProxyError)
        return f"no answer from {'the proxy on the way to ' * proxy}{self._url}: {words}"

    def _failure(self, answer: Answer) -> DeliveryError | None:
        """What an HTTP status means for a write."""
        status = answer.status
        if status in _SUCCESS:
            return None
        if status in _NO_SUCH_API:
            text = f"this CloudVision does not know the computejob API: {self._url}{_JOBS} answers {status}"
            return Retryable(f"{text}; check CVAGENT_CLOUDVISION_URL and CloudVision's release", everything=True)
        if status in _REDIRECT:
            where = one_line(answer.headers.get("Location", "nowhere").partition("?")[0], answer.token)
            text = f"{self._url} answers with a redirect to {where}: set CVAGENT_CLOUDVISION_URL to the final address"
            return Retryable(text, everything=True)
        if status in _FINAL and status not in _OF_THE_DOCUMENT | _OF_THE_SERVER:
            return Permanent(answer.says())
        return Retryable(answer.says(), after_s=retry_after(answer.headers), everything=status not in _OF_THE_DOCUMENT)
