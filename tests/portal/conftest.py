import pytest

from cvagent.clients.portal import Portal
from cvagent.clients.portal_orders import PortalOrders
from cvagent.settings import Secret
from cvagent.standin.portal import DIALECTS, OFFERING, Component, Customer, Person, PortalStandIn, Project


@pytest.fixture(params=DIALECTS)
def dialect(request):
    return request.param


@pytest.fixture
def stand_in(dialect):
    with PortalStandIn(dialect) as running:
        for component in ("cpu", "mem", "gres/gpu"):
            running.market.components[component] = Component(component)
        yield running


@pytest.fixture
def market(stand_in):
    return stand_in.market


@pytest.fixture
def connect(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    made = []

    def connect(stand_in, dialect="auto", **options):
        made.append(Portal(stand_in.url, Secret(text=stand_in.token), dialect=dialect, **options))
        return made[-1]

    yield connect
    for portal in made:
        portal.close()


@pytest.fixture
def portal(connect, stand_in, dialect):
    """One that has found its dialect: to look is to set the portal going."""
    found = connect(stand_in)
    assert found.dialect.name == dialect
    return found


@pytest.fixture
def orders(portal):
    return PortalOrders(portal, OFFERING)


@pytest.fixture
def project(market):
    team = [Person("alice@portal", "Alice", "alice"), Person("bob@portal", "Bob")]
    return market.add_project(Project("Weather", Customer("Physics"), team))


@pytest.fixture
def allocate(market, project):
    """Make an allocation that is OK and has an account."""

    def allocate(name="training", backend_id=None, **limits):
        order = market.create(project, name, limits or {"cpu": 10})
        market.approve(order)
        market.allocate([order])
        if order.resource.allocation:
            market.move(order.resource, "ok")
        market.done(order)
        order.resource.backend_id = f"hpc_{name}" if backend_id is None else backend_id
        return order.resource

    return allocate
