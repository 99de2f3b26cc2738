"""Reads what a server answers. Words for people are one line each, without the token."""

import json
import re
import time
from collections.abc import Collection, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import msgspec

from cvagent.errors import DeliveryError, Permanent, Retryable

MAX_TEXT = 300
_CHUNK = 64 * 1024
_LONGEST_WAIT_S = 24 * 3600
_SUCCESS, _REDIRECT, _FINAL = range(200, 300), range(300, 400), range(400, 500)
# HTTP statuses that say more than their hundred; of the others the 4xx are final.
_OF_THE_DOCUMENT = frozenset({408, 425, 500})
_OF_THE_SERVER = frozenset({407, 429})
_BLANK = re.compile(r"[\x00-\x20\x7f-\xa0\ud800-\udfff]+")
_NOT_BLANK = re.compile(r"\S")


class Server(NamedTuple):
    """Who is spoken to.

    Attributes:
        name: As it begins a sentence for people, such as CloudVision.
        setting: What its settings begin with, such as CVAGENT_CLOUDVISION.
        url: `https://<server>`, perhaps with a path; no slash at the end.
        scheme: The word before the token.
        refusing: Statuses that mean a refused token.
    """

    name: str
    setting: str
    url: str
    scheme: str = "Bearer"
    refusing: Collection[int] = frozenset({401, 403})


class Answer(NamedTuple):
    """One answer of any status, the token it was asked with, and who gave it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    token: str
    server: Server

    def says(self) -> str:
        """Status and message for people."""
        return f"{self.server.name} answered {self.status}: {one_line(_message(self.body), self.token) or 'no message'}"


def failure(answer: Answer) -> DeliveryError | None:
    """What an HTTP status means for a write. Redirects are not followed: after most of them a POST comes as a GET."""
    status, server = answer.status, answer.server
    if status in _SUCCESS:
        return None
    if status in _REDIRECT:
        where = one_line(answer.headers.get("Location", "nowhere").partition("?")[0], answer.token)
        mend = f"set {server.setting}_URL to the final address"
        return Retryable(f"{server.url} answers with a redirect to {where}: {mend}", everything=True)
    if status in _FINAL and status not in _OF_THE_DOCUMENT | _OF_THE_SERVER:
        return Permanent(answer.says())
    return Retryable(answer.says(), after_s=retry_after(answer.headers), everything=status not in _OF_THE_DOCUMENT)


def must_be_success(answer: Answer) -> None:
    """A page of a proxy or a login may come with 200 too, and so may an error."""
    try:
        said = msgspec.json.decode(answer.body.strip() or b"{}")
    except (msgspec.DecodeError, RecursionError):
        said = {"error": "no JSON"}
    if isinstance(said, dict) and said.keys() & {"error", "code"}:
        raise Retryable(f"no confirmation: {answer.says()}")


def stream(body: bytes) -> Iterator[Any]:
    """JSON objects that stand one after the other. Raises ValueError or RecursionError."""
    decoder, text, end = json.JSONDecoder(), body.decode(errors="replace"), 0
    while begin := _NOT_BLANK.search(text, end):
        item, end = decoder.raw_decode(text, begin.start())
        yield item


def failed_keys(answer: Answer) -> Iterator[tuple[str, str]]:
    """Key and error of each failure."""
    try:
        for item in stream(answer.body):
            yield str(item["result"]["key"]["id"]), one_line(str(item["result"].get("error")), answer.token)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Retryable(f"CloudVision's answer to a batch names no keys: {answer.says()}") from None


def _message(body: bytes) -> str:
    """The server's own words: the message of a gRPC status, or the body as it is."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return body[:_CHUNK].decode(errors="replace")
    inner = said.get("error", said) if isinstance(said, dict) else said
    return str(inner.get("message", inner) if isinstance(inner, dict) else inner)


def one_line(text: str, token: str) -> str:
    r"""For people: without the token, control characters and line ends, and not too long.

    >>> one_line("no\n\x1b[31m t0ken", "t0ken")
    'no [31m ***'
    """
    return _BLANK.sub(" ", text.replace(token, "***")).strip()[:MAX_TEXT]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a number or from a date read by the server's own clock; None when it says neither."""
    text = headers.get("Retry-After", "")
    try:
        if text.isdecimal():
            return float(min(int(text[:9]), _LONGEST_WAIT_S))
        now = parsedate_to_datetime(headers["Date"]).timestamp() if "Date" in headers else time.time()
        return min(max(parsedate_to_datetime(text).timestamp() - now, 0.0), _LONGEST_WAIT_S)
    except (ValueError, OverflowError):
        return None
