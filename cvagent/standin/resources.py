"""The routes of the resource API: one call in, one answer out. No sockets."""

import datetime as dt
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from cvagent.standin.contract import ContractError, camel, check, check_filter, check_key, grpc_status, matches
from cvagent.standin.ledger import Ledger, Stored

PREFIX = "/api/resources/computejob/v1"


class Call(NamedTuple):
    """A request to the API.

    Attributes:
        key: The query's `key.id`; "" when there is none.
        authorization: The header as it came; "" when there is none.
        document: The body; None when it is empty or no JSON.
    """

    method: str
    path: str
    key: str
    authorization: str
    document: Any


class Answer(NamedTuple):
    """A status and either one JSON body or the lines of a stream."""

    status: int
    body: bytes | Iterator[bytes]


Route = Callable[[Ledger, str, Call], Answer]


def answer(ledger: Ledger, call: Call) -> Answer:
    """Do what the call asks for."""
    if call.authorization != f"Bearer {ledger.token}":
        return refused(401, "missing or invalid token")
    route = _ROUTES.get((call.method, call.path))
    if route is None:
        return _no_route(call)
    try:
        return route[0](ledger, route[1], call)
    except ContractError as error:
        return refused(400, str(error))


def refused(status: int, message: str) -> Answer:
    """Build an error answer."""
    return Answer(status, _json(grpc_status(status, message)))


def named(call: Call) -> tuple[str, int]:
    """Tell what a call is about, however broken it is: the key when it is one, and the number of keys.

    >>> named(Call("POST", "/some", "", "", {"values": [{}, {}]}))
    ('', 2)
    """
    if call.key:
        return call.key, 1
    body = call.document if isinstance(call.document, dict) else {}
    for listed in (body.get("values"), body.get("keys")):
        if isinstance(listed, list):
            return "", len(listed)
    key = _id(body.get("key"))
    return key, 1 if key else 0


def _no_route(call: Call) -> Answer:
    if any(path == call.path for _, path in _ROUTES):
        return refused(405, f"Method Not Allowed: {call.method} {call.path}")
    return refused(404, f"Not Found: {call.path}")


def _set(ledger: Ledger, kind: str, call: Call) -> Answer:
    return _written(call.document, _store(ledger, kind, call.document))


def _get(ledger: Ledger, kind: str, call: Call) -> Answer:
    if not ledger.reads:
        return refused(501, f"{kind} cannot be read")
    stored = ledger.find(kind, _asked_key(kind, call))
    return _written(stored.document, stored.at) if stored else refused(404, f"{kind} {call.key}: not found")


def _delete(ledger: Ledger, kind: str, call: Call) -> Answer:
    key = _asked_key(kind, call)
    return Answer(200, _json({"key": {"id": key}, "time": rfc3339(ledger.delete(kind, key))}))


def _get_all(ledger: Ledger, kind: str, call: Call) -> Answer:
    if not ledger.reads:
        return refused(501, f"{kind} cannot be read")
    filters = _filters(kind, call.document) if call.method == "POST" else []
    stored = ledger.stored(kind).values()
    return Answer(200, (_initial(one) for one in stored if _passes(one.document, filters)))


def _set_some(ledger: Ledger, kind: str, call: Call) -> Answer:
    return _each(ledger, call, "values", lambda document: _store(ledger, kind, document))


def _delete_some(ledger: Ledger, kind: str, call: Call) -> Answer:
    def delete(key: Any) -> None:
        check_key("key", key)
        ledger.delete(kind, key["id"])

    return _each(ledger, call, "keys", delete)


def _delete_all(_ledger: Ledger, kind: str, _call: Call) -> Answer:
    return refused(403, f"deleting every {kind} is never allowed")


def _each(ledger: Ledger, call: Call, field: str, act: Callable[[Any], object]) -> Answer:
    """Act on each member of a batch; the answer lists only those that failed."""
    if not ledger.batch:
        return refused(404, f"Not Found: {call.path}")
    errors = [(member, _error(act, member)) for member in _only_list(call.document, field)]
    return Answer(200, iter([_failed(member, error) for member, error in errors if error]))


def _error(act: Callable[[Any], object], member: Any) -> str:
    try:
        act(member)
    except ContractError as error:
        return str(error)
    return ""


def _failed(member: Any, error: str) -> bytes:
    key = member.get("key") if isinstance(member, dict) and "key" in member else member
    return _line({"result": {"key": {"id": _id(key)}, "error": error}})


def _store(ledger: Ledger, kind: str, document: Any) -> float:
    check(kind, document)
    rule = ledger.faults.refusal(document["key"]["id"]) if kind == "JobConfig" else ""
    if rule:
        raise ContractError(f"{kind} {document['key']['id']}: refused by the rule {rule}")
    return ledger.set(kind, document)


def _asked_key(kind: str, call: Call) -> str:
    check_key(f"{kind}.key", {"id": call.key})
    return call.key


def _filters(kind: str, document: Any) -> list[Any]:
    filters = _only_list(document, "partialEqFilter") if document else []
    for wanted in filters:
        check_filter(kind, wanted)
    return [camel(wanted) for wanted in filters]


def _passes(document: Any, filters: list[Any]) -> bool:
    return not filters or any(matches(camel(document), wanted) for wanted in filters)


def _only_list(document: Any, field: str) -> list[Any]:
    if not isinstance(document, dict) or list(document) != [field] or not isinstance(document[field], list):
        raise ContractError(f'the body must be {{"{field}": [...]}}')
    found: list[Any] = document[field]
    return found


def _id(key: Any) -> str:
    found = key.get("id") if isinstance(key, dict) else ""
    return found if isinstance(found, str) else ""


def _initial(stored: Stored) -> bytes:
    return _line({"result": {"value": camel(stored.document), "time": rfc3339(stored.at), "type": "INITIAL"}})


def _written(document: Any, at: float) -> Answer:
    return Answer(200, _json({"value": camel(document), "time": rfc3339(at)}))


def rfc3339(at: float) -> str:
    """Spell epoch seconds as CloudVision does.

    >>> rfc3339(0)
    '1970-01-01T00:00:00.000000Z'
    """
    return dt.datetime.fromtimestamp(at, dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _line(document: Any) -> bytes:
    return _json(document) + b"\n"


_KINDS: dict[tuple[str, str], Route] = {
    ("POST", ""): _set,
    ("GET", ""): _get,
    ("GET", "/all"): _get_all,
    ("POST", "/all"): _get_all,
    ("DELETE", "/all"): _delete_all,
    ("POST", "/some"): _set_some,
}
_NODES: dict[tuple[str, str], Route] = {("DELETE", ""): _delete, ("POST", "/deletesome"): _delete_some}
_ROUTES: dict[tuple[str, str], tuple[Route, str]] = {
    (method, f"{PREFIX}/{kind}{tail}"): (route, kind)
    for kind, routes in (("JobConfig", _KINDS), ("NodeConfig", {**_KINDS, **_NODES}))
    for (method, tail), route in routes.items()
}
