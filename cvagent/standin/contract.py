"""What CloudVision accepts and answers, to the letter. Pure: no I/O, no clock, no state.

Documents stand here in wire form: what `json.loads` makes of a body, with the snake_case names that writes use.
"""

import datetime as dt
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

Document = Mapping[str, Any]
Check = Callable[[str, Any], None]

RUNNING = "JOB_STATE_RUNNING"
FINAL = ("JOB_STATE_COMPLETED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")
TENANT = "JOB_TYPE_TENANT"

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_CAMEL = {
    "start_time": "startTime",
    "end_time": "endTime",
    "data_interfaces": "dataInterfaces",
    "mac_address": "macAddress",
    "ip_addresses": "ipAddresses",
}
_GRPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 409: 10, 429: 8, 500: 13, 501: 12, 503: 14, 504: 4}
_GRPC_UNKNOWN = 2


class ContractError(ValueError):
    """A document breaks the contract; the text names the field and the rule."""


def grpc_status(http_status: int, message: str) -> dict[str, Any]:
    """Build the body of an error answer, as gRPC's gateway words it.

    >>> grpc_status(404, "no such job")
    {'code': 5, 'message': 'no such job', 'details': []}
    """
    return {"code": _GRPC_CODES.get(http_status, _GRPC_UNKNOWN), "message": message, "details": []}


def camel(value: Any) -> Any:
    """Spell the field names as reads do.

    >>> camel({"key": {"id": "1@lab"}, "start_time": "2026-03-01T10:30:00Z"})
    {'key': {'id': '1@lab'}, 'startTime': '2026-03-01T10:30:00Z'}
    """
    if isinstance(value, dict):
        return {_CAMEL.get(name, name): camel(item) for name, item in value.items()}
    return [camel(item) for item in value] if isinstance(value, list) else value


def matches(document: Any, wanted: Any) -> bool:
    """Tell whether a document holds all that a partialEqFilter names; lists must be equal as a whole.

    >>> matches({"key": {"id": "1@lab"}, "name": "a"}, {"key": {"id": "1@lab"}})
    True
    """
    if not isinstance(wanted, dict):
        return bool(document == wanted)
    return isinstance(document, dict) and all(
        name in document and matches(document[name], item) for name, item in wanted.items()
    )


def check(kind: str, document: Any) -> None:
    """Hold a document that shall be set against its kind, `JobConfig` or `NodeConfig`.

    Raises:
        ContractError: The document is not one that CloudVision accepts.
    """
    _DOCUMENTS[kind](kind, document)


def check_key(path: str, value: Any) -> None:
    """Hold a key, `{"id": "..."}`, against the contract.

    Raises:
        ContractError: It is not exactly that, or the id is empty.
    """
    _KEY(path, value)


def check_filter(kind: str, wanted: Any) -> None:
    """Refuse a partialEqFilter entry that names a field which its kind does not have, in either spelling.

    Raises:
        ContractError: It is no object, or a field is unknown.
    """
    _object(kind, wanted)
    for name in camel(wanted):
        if name not in _FILTERS[kind]:
            raise ContractError(f"{kind}.{name}: unknown field in partialEqFilter")


def inconsistencies(before: Document, after: Document) -> list[str]:
    """List what a Set has left in the store that makes no sense, although each write alone was valid.

    Set leaves unsent fields as they were: a job that runs again keeps the end of its earlier run.

    Args:
        before: What was stored; empty when nothing was.
        after: What is stored now.
    """
    found = []
    if after.get("state") == RUNNING and before.get("state") in FINAL:
        found.append(f"was {before['state']} and was set back to {RUNNING}")
    if after.get("state") == RUNNING and "end_time" in after:
        found.append(f"is {RUNNING} and keeps the end_time of an earlier write")
    if "nodes" in after and "interfaces" in after:
        found.append("holds both nodes and interfaces")
    return found


def _object(path: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise ContractError(f"{path}: must be a JSON object")


def _text(path: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise ContractError(f"{path}: must be a non-empty string")


def _mac(path: str, value: Any) -> None:
    if not isinstance(value, str) or not _MAC.fullmatch(value):
        raise ContractError(f"{path}: must be a MAC in lower case with colons, like 0c:42:a1:00:00:01")


def _ip_address(path: str, value: Any) -> None:
    try:
        ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise ContractError(f"{path}: must be an IP address without a prefix length") from None


def _moment(path: str, value: Any) -> None:
    found = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    try:
        dt.datetime.fromisoformat(found[1] if found else "")
    except ValueError:
        raise ContractError(f"{path}: must be an RFC 3339 time in UTC, like 2026-03-01T10:30:00Z") from None


def _instant(moment: str) -> tuple[str, str]:
    found = _MOMENT.fullmatch(moment)
    return (found[1], (found[2] or "").ljust(9, "0")) if found else ("", "")


def _one_of(*words: str) -> Check:
    def one_of(path: str, value: Any) -> None:
        if value not in words:
            raise ContractError(f"{path}: must be {' or '.join(words)}")

    return one_of


def _record(required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    """Build a check of an object: these fields and no other."""
    checks = {**required, **optional}

    def record(path: str, value: Any) -> None:
        _object(path, value)
        for name, item in value.items():
            if name not in checks:
                raise ContractError(f"{path}.{name}: unknown field")
            checks[name](f"{path}.{name}", item)
        for name in required:
            if name not in value:
                raise ContractError(f"{path}.{name}: is missing")

    return record


def _values(item_check: Check, *, may_be_empty: bool = False) -> Check:
    def listed(path: str, value: Any) -> None:
        if not isinstance(value, list):
            raise ContractError(f"{path}: must be a list")
        if not value and not may_be_empty:
            raise ContractError(f"{path}: must not be empty")
        for index, item in enumerate(value):
            item_check(f"{path}[{index}]", item)

    return _record({"values": listed}, {})


def _job(path: str, job: Any) -> None:
    _JOB(path, job)
    if ("nodes" in job) == ("interfaces" in job):
        raise ContractError(f"{path}: exactly one of nodes and interfaces is needed")
    if job["state"] == RUNNING and "end_time" in job:
        raise ContractError(f"{path}.end_time: is forbidden while the state is {RUNNING}")
    if job["state"] in FINAL and "end_time" not in job:
        raise ContractError(f"{path}.end_time: is missing, the state is {job['state']}")
    if "end_time" in job and _instant(job["end_time"]) < _instant(job["start_time"]):
        raise ContractError(f"{path}.end_time: is before start_time")


def _node(path: str, node: Any) -> None:
    _NODE(path, node)
    if node["hostname"] != node["key"]["id"]:
        raise ContractError(f"{path}.hostname: must equal key.id")


_KEY = _record({"id": _text}, {})
_INTERFACE = _record({"name": _text, "mac_address": _mac, "ip_addresses": _values(_ip_address, may_be_empty=True)}, {})
_JOB_REQUIRED = {
    "key": _KEY,
    "name": _text,
    "state": _one_of(RUNNING, *FINAL),
    "start_time": _moment,
    "location": _text,
}
_JOB_OPTIONAL = {"nodes": _values(_text), "interfaces": _values(_mac), "end_time": _moment, "type": _one_of(TENANT)}
_NODE_REQUIRED = {"key": _KEY, "location": _text, "hostname": _text, "data_interfaces": _values(_INTERFACE)}
_JOB = _record(_JOB_REQUIRED, _JOB_OPTIONAL)
_NODE = _record(_NODE_REQUIRED, {})
_DOCUMENTS = {"JobConfig": _job, "NodeConfig": _node}
_FILTERS = {
    "JobConfig": frozenset(camel({**_JOB_REQUIRED, **_JOB_OPTIONAL})),
    "NodeConfig": frozenset(camel(_NODE_REQUIRED)),
}
