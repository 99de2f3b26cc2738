"""The tenant portal: reads its lists page by page and writes to it. Words in, words out; the token in no text.

What the words mean stands in `portal_records`, what is asked in `portal_orders`, `portal_offering` and `portal_usage`.
"""

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
from requests.utils import parse_header_links

from cvagent.clients.answers import Answer, Server, failure
from cvagent.clients.portal_dialects import DIALECTS, ORDER_ITEMS, ORDERS, WALDUR, Dialect
from cvagent.clients.wire import Token, Wire
from cvagent.errors import Conflict, DeliveryError, Retryable, SourceError, Unreadable

PAGE_SIZE = 300
_MAX_PAGE = 64 * 1024 * 1024
_MAX_SINGLE = 4 * 1024 * 1024
_MAX_PAGES = 10_000

_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _CONFLICT = 401, 403, 404, 409
_SUCCESS = range(200, 300)
_encode = msgspec.json.Encoder(decimal_format="number").encode
_PORTS = {"https": 443, "http": 80}

Query = Mapping[str, str | Sequence[str]]


class Portal:
    """One portal, spoken to in its dialect. Any thread may call.

    Args:
        url: `https://<server>`, perhaps with a path; what stands before `/api/`.
        token: See Wire; so are the others.
        dialect: Name of the dialect; `auto` finds it by asking.
    """

    def __init__(
        self, url: str, token: Token, ca_file: Path | None = None, *, dialect: str = "auto", timeout_s: float = 30
    ) -> None:
        # A 403 may concern one object alone.
        self._server = Server("the portal", "CVAGENT_PORTAL", url, "token", frozenset({_UNAUTHORIZED}))
        self._wire = Wire(self._server, token, ca_file, timeout_s)
        self._finding = threading.Lock()
        self._dialect = DIALECTS.get(dialect)
        self._asks = self._dialect is None
        self._date: float | None = None

    @property
    def dialect(self) -> Dialect:
        """The dialect it speaks; asked for once, and again when a list that it has is gone. Raises SourceError."""
        with self._finding:
            if self._dialect is None:
                self._dialect = self._find_dialect()
            return self._dialect

    @property
    def date(self) -> float | None:
        """Epoch seconds by the portal's clock at its last answer; None before the first, and when it tells no date."""
        return self._date

    def get(self, path: str, query: Query | None = None) -> Any:
        """What stands at a path; None when there is nothing (404).

        Args:
            path: Below `/api/`, with a slash at its end.
            query: A sequence stands for a name that is given several times.

        Raises:
            SourceError: There was no answer, or one that cannot be believed.
        """
        answer = self._read(_url(path, query), _MAX_SINGLE)
        return None if answer.status == _NOT_FOUND else _decoded(answer)

    def get_all(self, path: str, query: Query | None = None) -> list[Any]:
        """Every item of a list, over all its pages. Raises SourceError, also when there is no such list."""
        pages: list[list[Any]] = []
        promised: set[str] = set()
        for answer in self._pages(_url(path, {"page_size": str(PAGE_SIZE), **(query or {})})):
            page = _decoded(answer)
            if not isinstance(page, list):
                raise Unreadable(f"the portal's {path} is no list")
            pages.append(page)
            promised |= {count for count in [answer.headers.get("X-Result-Count", "")] if count.isdecimal()}
        if wrong := _why_not_whole(pages, promised):
            raise Unreadable(f"the portal's {path} {wrong}")
        return [item for page in pages for item in page]

    def post(self, path: str, body: Any = None) -> Any:
        """Write; what it answers, or None when it says nothing.

        Raises:
            Conflict: 409.
            Retryable, Permanent: As their statuses mean.
        """
        content = b"" if body is None else _encode(body)
        answer = self._ask("POST", _url(path), content, _MAX_SINGLE)
        if wrong := _failure(answer):
            raise wrong
        try:
            return _decoded(answer)
        except Unreadable as error:
            raise Retryable(f"no confirmation: {error}") from None

    def replace_token(self, token: Token) -> None:
        """Use another from the next request on."""
        self._wire.replace_token(token)

    def close(self) -> None:
        """Close all connections."""
        self._wire.close()

    def _find_dialect(self) -> Dialect:
        """Only the oldest has order items; only the newest has no associations. An older one has orders, too."""
        if self._has("marketplace-order-items/"):
            return ORDER_ITEMS
        if not self._has("marketplace-orders/"):
            reason = f"{self._server.url}/api/ has neither marketplace-orders nor marketplace-order-items"
            raise SourceError(f"{reason}: check CVAGENT_PORTAL_URL")
        return ORDERS if self._has("slurm-associations/") else WALDUR

    def _has(self, path: str) -> bool:
        """Whether there is such a list. Anybody on the way can answer 200 or 404; what is not the portal's own is none.

        Raises SourceError.
        """
        answer = self._try(_url(path, {"page_size": "1"}), _MAX_SINGLE)
        if answer.status in _SUCCESS and isinstance(_decoded(answer), list):
            return True
        if answer.status == _NOT_FOUND and _is_own(answer):
            return False
        said = _failure(answer) or answer.says()
        raise SourceError(f"no telling which dialect the portal speaks (CVAGENT_PORTAL_DIALECT says it): {said}")

    def _doubt(self, path: str) -> None:
        """Find the dialect anew when it was found by asking and a list that it has is not there."""
        with self._finding:
            if self._asks and self._dialect and path in map(_url, self._dialect.lists):
                self._dialect = None

    def _pages(self, path: str) -> Iterator[Answer]:
        seen: set[str] = set()
        following: str | None = path
        while following:
            if following in seen or len(seen) == _MAX_PAGES:
                raise Unreadable(f"the portal's pages of {path.partition('?')[0]} do not end")
            seen.add(following)
            answer = self._read(following, _MAX_PAGE)
            if answer.status == _NOT_FOUND:
                self._doubt(path.partition("?")[0])
                raise SourceError(f"{answer.says()} ({path.partition('?')[0]})")
            yield answer
            following = self._next(answer)

    def _next(self, answer: Answer) -> str | None:
        """The next page, as a path below ours; the token goes to no other server."""
        links = parse_header_links(answer.headers.get("Link", ""))
        url = next((link["url"] for link in links if "next" in link.get("rel", "").split()), None)
        if url is None:
            return None
        base = self._server.url
        path = urlsplit(url)._replace(scheme="", netloc="", fragment="").geturl()
        if _origin(url) != _origin(base) or not path.startswith(urlsplit(base).path + "/"):
            where = "://".join(map(str, _origin(url)[:2]))
            mend = "set CVAGENT_PORTAL_URL to the address that the portal has for itself"
            raise SourceError(f"the portal's next page is on {where}, not on {base}: {mend}")
        return path.removeprefix(urlsplit(base).path)

    def _read(self, path: str, most: int) -> Answer:
        """An answer to a question: a success, or 404."""
        answer = self._try(path, most)
        wrong = _failure(answer)
        if wrong and answer.status != _NOT_FOUND:
            raise SourceError(f"{wrong} ({path.partition('?')[0]})")
        return answer

    def _try(self, path: str, most: int) -> Answer:
        try:
            return self._ask("GET", path, b"", most)
        except Retryable as error:
            raise SourceError(str(error)) from None

    def _ask(self, method: str, path: str, body: bytes, most: int) -> Answer:
        answer = self._wire.ask(method, path, body, most)
        self._date = _epoch(answer.headers.get("Date", ""))
        return answer


def _url(path: str, query: Query | None = None) -> str:
    return f"/api/{path}" + (f"?{urlencode(query, doseq=True)}" if query else "")


def _failure(answer: Answer) -> DeliveryError | None:
    if answer.status == _CONFLICT:
        return Conflict(answer.says())
    if answer.status == _FORBIDDEN:
        return Retryable(f"{answer.says()} (is the token's user a manager of the offering?)")
    return failure(answer)


def _is_own(answer: Answer) -> bool:
    """Whether a 404 is the portal's: it has words of its own, and Django's page for routes that it does not know."""
    with suppress(Unreadable):
        said = _decoded(answer)
        return isinstance(said, dict) and "detail" in said
    return b"The requested resource was not found on this server." in answer.body


def _why_not_whole(pages: Sequence[Sequence[Any]], promised: Collection[str]) -> str | None:
    """Why these pages are no whole list, such as one that changed while they were read; None when they may be.

    Args:
        pages: Items without a uuid, as some lists have, tell nothing.
        promised: How many items the pages said that there are; none where the portal does not say.
    """
    shown = sum(map(len, pages))
    if any(count != str(shown) for count in promised):
        return f"holds {' or '.join(sorted(promised))} items and showed {shown}"
    uuids = [
        {item["uuid"] for item in page if isinstance(item, dict) and isinstance(item.get("uuid"), str)}
        for page in pages
    ]
    twice = sum(map(len, uuids)) - len(set().union(*uuids))
    return f"showed {twice} items on two pages: it changed while it was read" if twice else None


def _number(text: str) -> Decimal | str:
    """A number with a point or an exponent, to the letter; as it stands when it is beyond all that Decimal holds.

    >>> _number("1e400"), _number("1e9999999999999999999999")
    (Decimal('1E+400'), '1e9999999999999999999999')
    """
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


_decode = msgspec.json.Decoder(float_hook=_number).decode


def _decoded(answer: Answer) -> Any:
    """An answer's JSON; None when it is empty."""
    try:
        return _decode(answer.body) if answer.body.strip() else None
    except (msgspec.DecodeError, RecursionError):
        raise Unreadable(f"{answer.says()}, which is no JSON") from None


def _origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port.

    >>> _origin("https://Portal.example.org/api/") == _origin("https://portal.example.org:443")
    True
    """
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)


def _epoch(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
