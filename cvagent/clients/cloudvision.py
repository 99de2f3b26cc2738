"""CloudVision's REST API: the one place that knows its paths and answers. Words in, words out; the token in no text."""

import datetime as dt
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from cvagent.clients.answers import Answer, Server, failed_keys, failure, must_be_success, stream
from cvagent.clients.wire import Token, Wire
from cvagent.errors import DeliveryError, Permanent, Retryable

_JOBS = "/api/resources/computejob/v1/JobConfig"
_NODES = "/api/resources/computejob/v1/NodeConfig"
# Answers in bytes: to one document, and to a batch, of which every document may fail with a text.
_MAX_SINGLE = 1024 * 1024
_MAX_BATCH = 16 * 1024 * 1024
_MAX_ALL = 256 * 1024 * 1024

_NOT_FOUND = 404
_NO_SUCH_API = frozenset({404, 405, 501})


class Ping(NamedTuple):
    """How the server answered a question that changes nothing. 404 may mean: no such API, or merely no such key."""

    status: int
    date: str | None
    tls: bool


class _Key(msgspec.Struct):
    id: str


class _Values(msgspec.Struct, frozen=True):
    values: tuple[str, ...] = ()


class HeldJob(msgspec.Struct, rename="camel"):
    """A JobConfig as CloudVision shows it."""

    key: _Key
    state: str
    start_time: dt.datetime
    end_time: dt.datetime | None = None
    name: str = ""
    type: str = ""
    location: str = ""
    nodes: _Values = _Values()
    interfaces: _Values = _Values()


class _Held(msgspec.Struct):
    value: HeldJob


class _Listed(msgspec.Struct):
    result: _Held


class Unsupported(Permanent):
    """This CloudVision takes no batches: write one by one, for good."""


class CloudVision:
    """Writes JobConfigs and NodeConfigs over connections that stay open. Any thread may call.

    Args:
        url: `https://<server>`.
        token: See Wire; so are the others.

    Attributes:
        batches: Whether the server takes batches; None while unknown.
    """

    def __init__(
        self, url: str, token: Token, ca_file: Path | None = None, timeout_s: float = 10, pool: int = 8
    ) -> None:
        self.batches: bool | None = None
        self._url = url.rstrip("/")
        server = Server("CloudVision", "CVAGENT_CLOUDVISION", self._url)
        self._wire = Wire(server, token, ca_file, timeout_s, pool)

    def set_job(self, body: Mapping[str, Any]) -> None:
        """Write one JobConfig, or raise Retryable or Permanent."""
        self._set(_JOBS, body)

    def set_node(self, body: Mapping[str, Any]) -> None:
        """Write one NodeConfig, or raise Retryable or Permanent."""
        self._set(_NODES, body)

    def delete_node(self, key: str) -> None:
        """Delete one NodeConfig, or raise Retryable or Permanent. One that is not there is deleted."""
        answer = self._wire.ask("DELETE", f"{_NODES}?key.id={quote(key, safe='')}", b"", _MAX_SINGLE)
        if answer.status == _NOT_FOUND:
            return
        if wrong := self._failure(answer):
            raise wrong
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
        answer = self._wire.ask("POST", path, msgspec.json.encode(body), _MAX_SINGLE)
        if wrong := self._failure(answer):
            raise wrong
        must_be_success(answer)

    def _batch(self, path: str, body: Mapping[str, Any], keys: AbstractSet[str]) -> dict[str, str]:
        if self.batches is False:
            raise Unsupported
        answer = self._wire.ask("POST", path, msgspec.json.encode(body), _MAX_BATCH)
        if answer.status in _NO_SUCH_API:
            self.batches = False
            raise Unsupported
        if wrong := self._failure(answer):
            raise wrong
        failed = dict(failed_keys(answer))
        if failed.keys() - keys:
            raise Retryable("CloudVision's answer to a batch names keys that were not sent")
        self.batches = True
        return failed

    def ping(self) -> Ping:
        """Ask for a key that hardly exists; raise Retryable unless address, certificate and token are right."""
        answer = self._wire.ask("GET", f"{_JOBS}?key.id=cvagent-check", b"", _MAX_SINGLE)
        wrong = self._failure(answer)
        if isinstance(wrong, Retryable) and answer.status not in _NO_SUCH_API:
            raise wrong
        return Ping(answer.status, answer.headers.get("Date"), self._url.startswith("https://"))

    def job(self, key: str) -> HeldJob | None:
        """What CloudVision holds under a key; None when that is nothing, or when this CloudVision does not tell.

        Raises Retryable: without an answer neither is known.
        """
        answer = self._wire.ask("GET", f"{_JOBS}?key.id={quote(key, safe='')}", b"", _MAX_SINGLE)
        if answer.status in _NO_SUCH_API:
            return None
        if wrong := self._failure(answer):
            if isinstance(wrong, Retryable):
                raise wrong
            return None
        try:
            return msgspec.json.decode(answer.body, type=_Held).value
        except msgspec.ValidationError:
            return None
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise Retryable(f"CloudVision's answer about a job cannot be read: {answer.says()}") from None

    def jobs(self, only: Mapping[str, str] | None = None) -> dict[str, HeldJob] | None:
        """What CloudVision holds, by key; what cannot be read is left out. None when this CloudVision does not tell.

        Args:
            only: Fields with their values, so that it need not show all; there may be others among them all the same.

        Raises Retryable or Permanent.
        """
        answer = self._all(only)
        if answer.status in _NO_SUCH_API:
            return None
        if wrong := self._failure(answer):
            raise wrong
        held = {}
        try:
            for item in stream(answer.body):
                with suppress(msgspec.ValidationError):
                    read = msgspec.convert(item, _Listed).result.value
                    held[read.key.id] = read
        except (ValueError, RecursionError):
            raise Retryable(f"CloudVision's list of jobs cannot be read: {answer.says()}") from None
        return held

    def _all(self, only: Mapping[str, str] | None) -> Answer:
        """The list; the whole of it where it cannot be filtered."""
        if only:
            answer = self._wire.ask("POST", f"{_JOBS}/all", msgspec.json.encode({"partialEqFilter": [only]}), _MAX_ALL)
            if answer.status not in _NO_SUCH_API and not isinstance(self._failure(answer), Permanent):
                return answer
        return self._wire.ask("GET", f"{_JOBS}/all", b"", _MAX_ALL)

    def replace_token(self, token: Token) -> None:
        """Use another from the next request on."""
        self._wire.replace_token(token)

    def close(self) -> None:
        """Close all connections."""
        self._wire.close()

    def _failure(self, answer: Answer) -> DeliveryError | None:
        """What an HTTP status means for a write."""
        if answer.status in _NO_SUCH_API:
            text = f"this CloudVision does not know the computejob API: {self._url}{_JOBS} answers {answer.status}"
            return Retryable(f"{text}; check CVAGENT_CLOUDVISION_URL and CloudVision's release", everything=True)
        return failure(answer)
