"""How strict the stand-in is: what a careless client would find at a real portal."""

import pytest
from requests import Session

from cvagent.standin.portal import OFFERING, PortalStandIn


@pytest.fixture
def ask(stand_in):
    with Session() as session:
        session.trust_env = False

        def ask(method, path, body=None, token=None):
            headers = {"authorization": token or f"token {stand_in.token}"}
            url = f"{stand_in.url}/api/{path}"
            return session.request(method, url, json=body, headers=headers, timeout=10, allow_redirects=False)

        yield ask


@pytest.fixture
def usage(market, allocate, ask):
    """Send one usage of a resource, with a body as the dialect wants it and these changes to its entry or itself."""
    resource = allocate()

    def usage(amount=1, kind="cpu", **changes):
        subject = {"resource": resource.uuid} if market.dialect == "waldur" else {"plan_period": resource.period}
        body = {**subject, "usages": [{"type": kind, "amount": amount}], **changes}
        return ask("POST", "marketplace-component-usages/set_usage/", body).status_code

    usage.resource = resource
    return usage


def test_the_token(ask, stand_in, dialect):
    assert ask("GET", "freeipa-profiles/", token=f"Token {stand_in.token}").status_code == 200
    for wrong in (f"Basic {stand_in.token}", "token wrong", stand_in.token):
        answer = ask("GET", "freeipa-profiles/", token=wrong)
        assert (answer.status_code, "detail" in answer.json()) == (401, True)
    bearer = ask("GET", "freeipa-profiles/", token=f"Bearer {stand_in.token}").status_code
    assert bearer == (200 if dialect == "waldur" else 401)


def test_routes_of_other_dialects_are_not_there(ask, dialect):
    routes = {
        "order-items": "marketplace-order-items/",
        "orders": "marketplace-orders/",
        "waldur": "marketplace-provider-resources/",
    }
    there = [name for name, route in routes.items() if ask("GET", route).status_code == 200]
    assert there == {"order-items": ["order-items"], "orders": ["orders"], "waldur": ["orders", "waldur"]}[dialect]
    assert ask("GET", "freeipa-profiles").status_code == 404, "a slash is missing"
    assert ask("POST", "freeipa-profiles/").status_code == 405


def test_pages_are_found_by_rel_alone(ask, allocate, dialect):
    for number in range(5):
        allocate(f"a{number}")
    route = "marketplace-provider-resources/" if dialect == "waldur" else "marketplace-resources/"
    second = ask("GET", f"{route}?offering_uuid={OFFERING}&page_size=2&page=2")
    assert (len(second.json()), second.headers["X-Result-Count"]) == (2, "5")
    assert list(second.links) == ["first", "prev", "next", "last"]
    assert f"offering_uuid={OFFERING}" in second.links["next"]["url"]
    assert len(ask("GET", f"{route}?page_size=2&page=3").json()) == 1
    assert list(ask("GET", f"{route}?page_size=2&page=3&field=uuid").json()[0]) == ["uuid"]


@pytest.mark.parametrize(
    ("amount", "taken"),
    [
        (0, True),
        (12, True),
        (12.5, None),
        ("12.34", None),
        (12.345, False),
        (-1, False),
        ("many", False),
        (None, False),
    ],
)
def test_amounts(usage, amount, taken, dialect):
    expected = dialect != "order-items" if taken is None else taken
    assert usage(amount) == (201 if expected else 400)


def test_usage_of_what_is_not_sold(usage):
    assert usage(kind="gres/tpu") == 400


def test_fields_too_many_or_too_few(usage):
    assert usage(month="2026-03") == 400
    assert usage(usages=[]) == 400
    assert usage(usages=[{"type": "cpu"}]) == 400


@pytest.mark.parametrize("state", ["Creating", "Erred", "Terminated"])
def test_usage_in_the_wrong_state(usage, state):
    usage.resource.state = state
    assert usage() == 409


def test_a_date_names_the_month_where_it_is_known(usage, market, dialect):
    if dialect != "waldur":
        assert usage(date="2026-02-28T23:59:59Z") == 400
        return
    market.clock = lambda: 1772323200
    assert usage(date="2026-02-28T23:59:59Z") == 201
    assert usage(date="2026-03-01T01:00:00+02:00") == 201
    assert usage(date="2026-06-01T00:00:00Z") == 400
    assert usage(date="yesterday") == 400
    assert [one.month for one in market.usages.values()] == ["2026-02"]


def test_limits_must_be_numbers(ask, usage, dialect):
    routes = {"waldur": f"marketplace-provider-resources/{usage.resource.uuid}/set_limits/"}
    route = routes.get(dialect, f"marketplace-slurm-remote/{usage.resource.uuid}/set_limits/")
    for limits, status in (({"cpu": "many"}, 400), ({}, 400), ({"cpu": 5}, 200)):
        assert ask("POST", route, {"limits": limits} if dialect == "waldur" else limits).status_code == status


def test_a_rule_refuses_what_its_path_matches(ask, stand_in):
    stand_in.faults("400@freeipa")
    assert ask("GET", "freeipa-profiles/").status_code == 400
    assert ask("GET", "marketplace-component-usages/").status_code == 200


def test_a_dialect_that_there_is_not():
    with pytest.raises(ValueError, match="dialect 'klingon' is none of order-items, orders, waldur"):
        PortalStandIn("klingon")
