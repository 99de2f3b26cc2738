"""What comes in and goes out, pages, and bodies."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from cvagent.standin.portal.market import Market
from cvagent.standin.portal.objects import Refusal

MOST_A_PAGE = 300
USUAL_PAGE = 10


class Call(NamedTuple):
    """A request.

    Attributes:
        base: Scheme, host and port that it was sent to.
        path: From the slash after them on.
        query: Values by name, in order.
        document: The body; None when it is empty or no JSON.
    """

    method: str
    base: str
    path: str
    query: Mapping[str, Sequence[str]]
    authorization: str
    document: Any


class Answer(NamedTuple):
    """What is answered; without a body when that is None."""

    status: int
    body: Any
    headers: Mapping[str, str] = {}


Route = Callable[[Market, Call, str], Answer]


def not_found() -> Answer:
    """Build the answer for what is not there."""
    return Answer(404, {"detail": "Not found."})


def page(call: Call, items: Sequence[Any]) -> Answer:
    """One page of a list. The next one stands between others in the header, as it does at the portal."""
    size = min(int(call.query.get("page_size", [str(USUAL_PAGE)])[0]), MOST_A_PAGE)
    number = int(call.query.get("page", ["1"])[0])
    last = max(1, -(-len(items) // size))
    links = {"first": 1, "prev": number - 1, "next": number + 1, "last": last}
    shown = {rel: page for rel, page in links.items() if 1 <= page <= last and page != number}
    query = {name: value for name, value in call.query.items() if name != "page"}
    urls = {
        rel: f"{call.base}{call.path}?{urlencode({**query, 'page': page}, doseq=True)}" for rel, page in shown.items()
    }
    link = ", ".join(f'<{url}>; rel="{rel}"' for rel, url in urls.items())
    headers = {"x-result-count": str(len(items))} | ({"link": link} if link else {})
    return Answer(200, items[(number - 1) * size : number * size], headers)


def fields(body: Any, names: Sequence[str]) -> tuple[str, ...]:
    """The texts of a body that has exactly these."""
    if (
        not isinstance(body, dict)
        or set(body) != set(names)
        or not all(isinstance(text, str) for text in body.values())
    ):
        raise Refusal(400, {"non_field_errors": [f"exactly these texts are wanted: {', '.join(names)}"]})
    return tuple(body[name] for name in names)
