import json
import re
from decimal import Decimal

import pytest
import responses

from cvagent.clients.portal import Portal
from cvagent.clients.portal_offering import PortalOffering
from cvagent.clients.portal_orders import PortalOrders
from cvagent.errors import Conflict, Permanent, Retryable, SourceError, Unreadable
from cvagent.model.components import Accounting, Component
from cvagent.model.orders import OrderKind, OrderState, ResourceState
from cvagent.settings import Secret
from cvagent.standin.portal import PortalStandIn

URL = "https://portal.example.org"
TOKEN = "distinctive-portal-token-51c2"
OFFERING = "0" * 32
ORDERS = f"{URL}/api/marketplace-orders/"


def uuid(number):
    return f"{number:032x}"


def order(number, **fields):
    return {
        "uuid": uuid(number),
        "type": "Create",
        "state": "executing",
        "attributes": {"name": "train"},
        "limits": {"cpu": 10},
        "marketplace_resource_uuid": uuid(number + 1000),
        "resource_uuid": None,
        "project_uuid": uuid(1),
        "project_name": "Project",
        "customer_uuid": uuid(2),
        "customer_name": "Customer",
    } | fields


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def wire():
    with responses.RequestsMock(assert_all_requests_are_fired=False) as wire:
        yield wire


@pytest.fixture
def connect():
    made = []

    def connect(dialect="waldur", url=URL, token=None):
        made.append(Portal(url, token or Secret(text=TOKEN), dialect=dialect))
        return made[-1]

    yield connect
    for portal in made:
        portal.close()


def test_the_token_is_sent_as_the_portal_wants_it(connect, wire):
    wire.get(f"{URL}/api/configuration/", json={})
    connect().get("configuration/")
    assert wire.calls[0].request.headers["Authorization"] == f"token {TOKEN}"


def test_pages_are_followed_by_their_rel(connect, wire):
    second, third = f"{ORDERS}?page=2&page_size=300", f"{ORDERS}?page=3&page_size=300"
    wire.get(second, json=[2], headers={"Link": f'<{ORDERS}?page=1>; rel="first prev", <{third}>; rel="next"'})
    wire.get(third, json=[3], headers={"Link": f'<{third}>; rel="last"', "X-Result-Count": "3"})
    wire.get(ORDERS, json=[1], headers={"Link": f'<{third}>; rel="last", <{second}>; rel="next"'})
    assert connect().get_all("marketplace-orders/") == [1, 2, 3]


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example.org/api/x/", "http://portal.example.org/api/x/", "https://portal.example.org:8443/api/x/"],
)
def test_the_token_goes_to_no_other_server(connect, wire, elsewhere):
    wire.get(ORDERS, json=[1], headers={"Link": f'<{elsewhere}>; rel="next"'})
    with pytest.raises(SourceError, match=r"next page is on .*CVAGENT_PORTAL_URL"):
        connect().get_all("marketplace-orders/")
    assert len(wire.calls) == 1


def test_pages_below_a_path(connect, wire):
    base = f"{URL}/waldur"
    wire.get(f"{base}/api/x/?page=2", json=[2])
    wire.get(f"{base}/api/x/", json=[1], headers={"Link": f'<{base}/api/x/?page=2>; rel="next"'})
    assert connect(url=base).get_all("x/") == [1, 2]


def test_pages_that_go_in_circles_end(connect, wire):
    wire.get(ORDERS, json=[1], headers={"Link": f'<{ORDERS}?page=1>; rel="next"'})
    with pytest.raises(Unreadable, match="do not end"):
        connect().get_all("marketplace-orders/")


@pytest.mark.parametrize("promised", [0, 1, 3])
def test_a_list_that_is_not_as_long_as_promised_is_not_believed(connect, wire, promised):
    wire.get(ORDERS, json=[1, 2], headers={"X-Result-Count": str(promised)})
    with pytest.raises(Unreadable, match=f"holds {promised} items and showed 2"):
        connect().get_all("marketplace-orders/")


@pytest.mark.parametrize(
    ("second", "counts", "reason"),
    [
        ([3], ("4", "3"), "holds 3 or 4 items and showed 3"),
        ([2, 4], ("4", "4"), "showed 1 items on two pages: it changed while it was read"),
        ([2, 4], (None, None), "showed 1 items on two pages"),
    ],
)
def test_a_list_that_changes_while_its_pages_are_read_is_not_believed(connect, wire, second, counts, reason):
    """Something went from the first page or the order is another: what stood between the pages was on neither."""
    counted = [{} if count is None else {"X-Result-Count": count} for count in counts]
    wire.get(f"{ORDERS}?page=2", json=[{"uuid": uuid(number)} for number in second], headers=counted[1])
    link = {"Link": f'<{ORDERS}?page=2>; rel="next"'}
    wire.get(ORDERS, json=[{"uuid": uuid(1)}, {"uuid": uuid(2)}], headers=link | counted[0])
    with pytest.raises(Unreadable, match=reason):
        connect().get_all("marketplace-orders/")


def test_items_without_a_uuid_may_be_equal(connect, wire):
    items = [{"name": "a"}, {"uuid": None}, {"uuid": [1]}, 1]
    wire.get(f"{ORDERS}?page=2", json=items, headers={"X-Result-Count": "soon"})
    wire.get(ORDERS, json=items, headers={"Link": f'<{ORDERS}?page=2>; rel="next"'})
    assert connect().get_all("marketplace-orders/") == items * 2


@pytest.mark.parametrize("body", ["<html>Sign in</html>", '{"detail": "x"}', "[1, 2", "", '["\\ud800"]', "[" * 9999])
def test_what_is_no_list_is_never_an_empty_one(connect, wire, body):
    wire.get(ORDERS, body=body)
    with pytest.raises(Unreadable):
        connect().get_all("marketplace-orders/")


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 429, 500, 502, 503])
def test_a_failed_list_is_never_an_empty_one(connect, wire, status):
    wire.get(ORDERS, status=status, json={"detail": "not\nnow"}, headers={"Location": "/"})
    with pytest.raises(SourceError) as failed:
        connect().get_all("marketplace-orders/")
    assert TOKEN not in str(failed.value)
    assert "\n" not in str(failed.value)


def test_no_answer(connect):
    with responses.RequestsMock(), pytest.raises(SourceError, match=f"no answer from {URL}"):
        connect().get("x/")


def test_no_proxy_is_asked_for_what_is_on_loopback(connect, monkeypatch):
    """It would see the token, which travels as it is over http://."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with PortalStandIn() as stand_in:
        portal = connect(url=stand_in.url, token=Secret(text=stand_in.token))
        assert portal.get_all("marketplace-orders/") == []


def test_nothing_there(connect, wire):
    wire.get(f"{URL}/api/x/", status=404, json={"detail": "Not found."})
    assert connect().get("x/") is None


def test_the_token_is_read_again_when_it_is_refused(connect, wire, tmp_path):
    path = tmp_path / "token"
    path.write_text("old-token")
    token = Secret(path=path)
    token.value()
    path.write_text(TOKEN)
    wire.get(
        f"{URL}/api/x/",
        json={"a": 1},
        match=[responses.matchers.header_matcher({"Authorization": f"token {TOKEN}"})],
    )
    assert connect(token=token).get("x/") == {"a": 1}


@pytest.mark.parametrize(
    ("status", "kind", "everything"),
    [
        (400, Permanent, None),
        (403, Retryable, False),
        (404, Permanent, None),
        (409, Conflict, None),
        (429, Retryable, True),
        (500, Retryable, False),
        (503, Retryable, True),
        (302, Retryable, True),
    ],
)
def test_what_a_status_means_for_a_write(connect, wire, status, kind, everything):
    wire.post(f"{URL}/api/x/", status=status, json={"detail": "no"}, headers={"Location": "/"})
    with pytest.raises(kind) as failed:
        connect().post("x/", {"a": 1})
    assert getattr(failed.value, "everything", None) is everything


@pytest.mark.parametrize(("status", "body"), [(200, ""), (201, ""), (204, ""), (200, "{}"), (202, '{"a": 1}')])
def test_a_write_is_confirmed_with_few_words(connect, wire, status, body):
    wire.post(f"{URL}/api/x/", status=status, body=body)
    connect().post("x/")


def test_a_login_page_confirms_nothing(connect, wire):
    wire.post(f"{URL}/api/x/", body="<html>Sign in</html>")
    with pytest.raises(Retryable, match="no confirmation"):
        connect().post("x/")


def test_the_portals_own_time(connect, wire):
    wire.get(f"{URL}/api/x/", json={}, headers={"Date": "Sun, 01 Mar 2026 00:00:05 GMT"})
    portal = connect()
    assert portal.date is None
    portal.get("x/")
    assert portal.date == 1772323205


def speak(wire, there):
    """Let the portal have these lists, and no others."""
    for route in ("marketplace-order-items", "marketplace-orders", "slurm-associations"):
        nothing = {"status": 404, "json": {"detail": "Not found."}}
        wire.upsert("GET", f"{URL}/api/{route}/", **({"json": []} if route in there else nothing))


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ({"marketplace-order-items", "marketplace-orders", "slurm-associations"}, "order-items"),
        ({"marketplace-orders", "slurm-associations"}, "orders"),
        ({"marketplace-orders"}, "waldur"),
    ],
)
def test_the_dialect_is_found_by_asking(connect, wire, there, found):
    speak(wire, there)
    portal = connect("auto")
    assert portal.dialect.name == found
    asked = len(wire.calls)
    assert portal.dialect.name == found
    assert len(wire.calls) == asked


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, "<html>Maintenance</html>"), "no JSON"),
        ((200, ""), "answered 200: no message"),
        ((200, '{"marketplace-orders": "https://portal"}'), "answered 200"),
        ((404, "default backend - 404"), "default backend"),
        ((404, "[]"), "answered 404"),
        ((403, '{"detail": "no"}'), "manager of the offering"),
        ((302, ""), "redirect"),
    ],
)
@pytest.mark.parametrize("place", ["marketplace-order-items", "marketplace-orders", "slurm-associations"])
def test_what_anybody_on_the_way_answers_tells_no_dialect(connect, wire, place, answer, reason):
    speak(wire, {"marketplace-orders", "slurm-associations"})
    wire.upsert("GET", f"{URL}/api/{place}/", status=answer[0], body=answer[1], headers={"Location": "/"})
    portal = connect("auto")
    with pytest.raises(SourceError, match=reason):
        portal.dialect  # noqa: B018
    speak(wire, {"marketplace-orders", "slurm-associations"})
    assert portal.dialect.name == "orders"


def test_the_page_for_a_route_that_the_portal_does_not_know(connect, wire):
    speak(wire, {"marketplace-orders"})
    page = "<html><h1>Not Found</h1><p>The requested resource was not found on this server.</p></html>"
    wire.upsert("GET", f"{URL}/api/slurm-associations/", status=404, body=page)
    assert connect("auto").dialect.name == "waldur"


@pytest.mark.parametrize(("asks", "then"), [("auto", "waldur"), ("orders", "orders")])
def test_a_dialect_whose_lists_are_gone_is_found_anew(connect, wire, asks, then):
    speak(wire, {"marketplace-orders", "slurm-associations"})
    portal = connect(asks)
    assert portal.dialect.name == "orders"
    speak(wire, {"marketplace-orders"})
    with pytest.raises(SourceError):
        portal.get_all("slurm-associations/")
    assert portal.dialect.name == then


@pytest.mark.parametrize(("status", "reason"), [(404, "check CVAGENT_PORTAL_URL"), (500, "500"), (401, "token")])
def test_a_dialect_that_cannot_be_found(connect, wire, status, reason):
    wire.get(re.compile(f"{URL}/api/.*"), status=status, json={"detail": "x"})
    with pytest.raises(SourceError, match=reason):
        connect("auto").dialect  # noqa: B018


def test_an_order_with_everything_missing_that_may_be(connect, wire):
    wire.get(ORDERS, json=[order(7, attributes=None, limits=None, resource_name="b", colour="red", backend_id=None)])
    [found] = PortalOrders(connect(), OFFERING).orders().items
    assert (found.kind, found.state, found.name) == (OrderKind.CREATE, OrderState.EXECUTING, "b")
    assert (found.limits, found.resource_uuid, found.allocation_uuid) == ({}, uuid(1007), None)


def test_one_odd_order_spoils_no_other(connect, wire):
    odd = [
        order(1, type="Explode"),
        order(2, state=None),
        order(3, uuid=None),
        order(4, limits={"cpu": "many"}),
        order(5, project_uuid="../x"),
        None,
        "order",
    ]
    wire.get(ORDERS, json=[order(8), *odd, order(9, limits={"cpu": "1.50", "mem": None})])
    found = PortalOrders(connect(), OFFERING).orders()
    assert [one.uuid for one in found.items] == [uuid(8), uuid(9)]
    assert found.items[1].limits == {"cpu": Decimal("1.50")}
    assert len(found.problems) == len(odd)
    assert found.problems[0] == f"order '{uuid(1)}': its type is 'Explode', which is not known here"


@pytest.mark.parametrize("limit", ["1e400", "1e999999", "-1e400", "1" + "0" * 400])
def test_a_limit_beyond_all_floats_is_what_it_says(connect, wire, limit):
    body = json.dumps([order(8), order(9, limits={"cpu": "HERE"})]).replace('"HERE"', limit)
    wire.get(ORDERS, body=body)
    found = PortalOrders(connect(), OFFERING).orders()
    assert [one.uuid for one in found.items] == [uuid(8), uuid(9)]
    assert found.items[1].limits == {"cpu": Decimal(limit)}


@pytest.mark.parametrize("limit", ["NaN", "Infinity", "1e9999999999999999999", 1e300, -1])
def test_a_limit_is_a_number(connect, wire, limit):
    wire.get(ORDERS, json=[order(8), order(9, limits={"cpu": limit})])
    found = PortalOrders(connect(), OFFERING).orders()
    assert len(found.items) == (1 if isinstance(limit, str) else 2)
    assert len(found.problems) == 2 - len(found.items)


def test_a_resource_in_an_unknown_state_is_there(connect, wire):
    owner = {key: value for key, value in order(1).items() if key.startswith(("project", "customer"))}
    raws = [{"uuid": uuid(1), "state": "Melting", **owner}, {"uuid": uuid(2), "state": "OK", "paused": True, **owner}]
    wire.get(f"{URL}/api/marketplace-provider-resources/", json=raws)
    found = PortalOrders(connect(), OFFERING).resources()
    assert [(one.state, one.paused) for one in found.items] == [(None, None), (ResourceState.OK, True)]
    assert found.problems == ()


@pytest.mark.parametrize("components", [None, {}, "cpu"])
@pytest.mark.parametrize("dialect", ["order-items", "waldur"])
def test_what_is_sold_is_never_replaced_unseen(connect, wire, dialect, components):
    wire.get(re.compile(f"{URL}/api/.*"), json={"uuid": uuid(1), "name": "Slurm", "components": components})
    with pytest.raises(Unreadable, match=r"its components are .*, which is no list"):
        PortalOffering(connect(dialect), uuid(1)).declare([Component("cpu", "CPU", "Hours", Accounting.USAGE)])
    assert [call.request.method for call in wire.calls] == ["GET"]
