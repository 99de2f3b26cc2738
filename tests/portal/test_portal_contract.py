"""The client against the stand-in, in each dialect, over real HTTP."""

import pytest
from requests import Session

from cvagent.clients.portal_orders import PortalOrders
from cvagent.errors import Conflict, Permanent, Retryable, SourceError
from cvagent.model.orders import OrderKind, OrderState, ResourceState
from cvagent.standin.portal import OFFERING, PortalStandIn
from cvagent.standin.portal.objects import Refusal

ABSENT = "f" * 32


@pytest.fixture
def ordered(market, project):
    def ordered(name="training", **limits):
        return market.create(project, name, limits or {"cpu": 10, "gres/gpu": 2.5})

    return ordered


def executing(market, order):
    market.approve(order)
    return order


def test_an_order_as_it_was_given(orders, market, ordered, project):
    order = executing(market, ordered())
    [found] = orders.orders().items
    assert (found.uuid, found.kind, found.state) == (order.uuid, OrderKind.CREATE, OrderState.EXECUTING)
    assert (found.name, dict(found.limits)) == ("training", {"cpu": 10, "gres/gpu": 2.5})
    assert (found.owner.project_uuid, found.owner.customer_name) == (project.uuid, "Physics")
    assert (found.resource_uuid, found.allocation_uuid) == (order.resource.uuid, None)


def test_the_allocation_comes_a_moment_later(orders, market, ordered, dialect):
    order = executing(market, ordered())
    assert orders.order(order.uuid).allocation_uuid is None
    allocation = order.resource.allocation
    assert (allocation is None) == (dialect == "waldur")
    assert orders.order(order.uuid).allocation_uuid == (allocation.uuid if allocation else None)


def test_nothing_there(orders):
    assert orders.order(ABSENT) is None
    assert orders.resource(ABSENT) is None


def test_an_order_of_another_offering_is_not_ours(portal, market, ordered):
    executing(market, ordered())
    assert PortalOrders(portal, "a" * 32).orders().items == ()


def test_an_order_that_waits_for_the_provider(orders, ordered, dialect):
    order = ordered()
    waiting = [found.state for found in orders.orders().items]
    if dialect == "order-items":
        assert waiting == []
        with pytest.raises(Permanent):
            orders.approve(order.uuid)
    else:
        assert waiting == [OrderState.PENDING_PROVIDER]
        orders.approve(order.uuid)
        with pytest.raises(Conflict):
            orders.approve(order.uuid)
        assert [found.state for found in orders.orders().items] == [OrderState.EXECUTING]


def test_done_only_once_and_only_what_executes(orders, market, ordered):
    order = ordered()
    with pytest.raises(Conflict):
        orders.set_done(order.uuid)
    market.approve(order)
    orders.set_done(order.uuid)
    with pytest.raises(Conflict):
        orders.set_done(order.uuid)
    assert orders.orders().items == ()
    assert orders.resource(order.resource.uuid).state is ResourceState.OK


def test_an_update_brings_its_limits(orders, market, allocate):
    resource = allocate(cpu=10)
    order = executing(market, market.change(resource, {"cpu": 20}))
    assert orders.resource(resource.uuid).state is ResourceState.UPDATING
    orders.set_done(order.uuid)
    found = orders.resource(resource.uuid)
    assert (found.state, dict(found.limits)) == (ResourceState.OK, {"cpu": 20})


def erred(orders, market, order):
    executing(market, order)
    orders.set_erred(order.uuid, "sacctmgr: no\n" + "x" * 3000)
    assert order.error_message.startswith("sacctmgr: no")
    with pytest.raises(Conflict):
        orders.set_erred(order.uuid, "again")
    return orders.resource(order.resource.uuid).state


def test_an_order_that_failed_says_why(orders, market, ordered, allocate):
    assert erred(orders, market, ordered()) is ResourceState.ERRED
    assert erred(orders, market, market.change(allocate(), {"cpu": 1})) is ResourceState.ERRED
    assert erred(orders, market, market.terminate(allocate())) is ResourceState.OK


def test_terminate(orders, market, allocate):
    order = executing(market, market.terminate(allocate()))
    assert orders.resource(order.resource.uuid).state is ResourceState.TERMINATING
    orders.set_done(order.uuid)
    assert orders.resource(order.resource.uuid).state is ResourceState.TERMINATED


def test_resources_by_state(orders, allocate):
    here, gone = allocate("here"), allocate("gone")
    gone.state = "Terminated"
    assert {one.uuid for one in orders.resources().items} == {here.uuid, gone.uuid}
    assert [one.uuid for one in orders.resources([ResourceState.OK, ResourceState.UPDATING]).items] == [here.uuid]


def test_a_list_of_many_pages(orders, allocate, stand_in):
    made = [allocate(f"a{number}") for number in range(301)]
    before = stand_in.requests_total
    assert [one.uuid for one in orders.resources().items] == [one.uuid for one in made]
    assert stand_in.requests_total - before == 2


def test_the_backend_id(orders, allocate):
    resource = allocate(backend_id="")
    orders.set_backend_id(resource.uuid, "hpc_1")
    assert orders.resource(resource.uuid).backend_id == "hpc_1"


def test_an_allocation_moves_as_its_states_allow(orders, allocate, dialect):
    resource = allocate()
    orders.set_allocation_state(resource.uuid, "update_scheduled")
    orders.set_allocation_state(resource.uuid, "updating")
    if dialect == "waldur":
        return
    for state in ("creating", "deleting", "deletion_scheduled"):
        with pytest.raises(Conflict):
            orders.set_allocation_state(resource.uuid, state)
    orders.set_allocation_state(resource.uuid, "ok")
    orders.set_allocation_state(resource.uuid, "deletion_scheduled")
    orders.set_allocation_state(resource.uuid, "deleting")
    assert resource.allocation.state == "deleting"


def test_an_allocation_that_was_left_as_scheduled_takes_no_order(orders, market, allocate, dialect):
    resource = allocate()
    assert erred(orders, market, market.terminate(resource)) is ResourceState.OK
    end = market.terminate(resource)
    if dialect != "waldur":
        with pytest.raises(Refusal, match="an allocation that is deletion_scheduled"):
            market.approve(end)
        assert (end.state, resource.state) == ("pending-provider", "OK")
        orders.set_allocation_state(resource.uuid, "ok")
    market.approve(end)
    assert resource.state == "Terminating"


def test_the_team_and_their_names(orders, allocate, dialect):
    team = orders.team(allocate().uuid)
    told = "" if dialect == "order-items" else "alice"
    assert [(one.username, one.offering_username) for one in team.items] == [("alice@portal", told), ("bob@portal", "")]
    alice = team.items[0].uuid
    assert [tuple(one) for one in orders.freeipa_profiles().items] == [(alice, "alice")]
    if dialect == "order-items":
        with pytest.raises(SourceError):
            orders.offering_users()
    else:
        assert dict(map(tuple, orders.offering_users().items))[alice] == "alice"


def test_associations(orders, allocate, dialect):
    resource = allocate()
    orders.associate(resource.uuid, "alice")
    orders.associate(resource.uuid, "alice")
    orders.dissociate(resource.uuid, "bob")
    if dialect == "waldur":
        with pytest.raises(SourceError):
            orders.associations(ABSENT)
        return
    assert [one.username for one in orders.associations(resource.allocation.uuid).items] == ["alice"]
    orders.dissociate(resource.uuid, "alice")
    assert orders.associations(resource.allocation.uuid).items == ()


@pytest.mark.parametrize("fault", ["500", "503", "reset", "garbage", "redirect", "hang", "lost"])
def test_trouble_is_never_an_empty_list(connect, stand_in, allocate, dialect, fault):
    allocate()
    orders = PortalOrders(connect(stand_in, dialect, timeout_s=0.3), OFFERING)
    stand_in.faults(f"{fault}*2")
    for _ in range(2):
        with pytest.raises(SourceError):
            orders.resources()
    assert len(orders.resources().items) == 1


@pytest.mark.parametrize("fault", ["500", "503", "reset", "garbage", "redirect", "hang", "lost", "429"])
def test_a_write_that_got_no_answer_comes_back_later(connect, stand_in, allocate, dialect, fault):
    resource = allocate()
    orders = PortalOrders(connect(stand_in, dialect, timeout_s=0.3), OFFERING)
    stand_in.faults(f"{fault}*1")
    with pytest.raises(Retryable):
        orders.set_backend_id(resource.uuid, "hpc_2")
    orders.set_backend_id(resource.uuid, "hpc_2")
    assert resource.backend_id == "hpc_2"


def test_tls_and_its_ca(connect, dialect):
    with PortalStandIn(dialect, tls=True) as stand_in:
        assert connect(stand_in, ca_file=stand_in.ca_file).dialect.name == dialect
        with pytest.raises(SourceError, match="CVAGENT_PORTAL_CA_FILE"):
            connect(stand_in).dialect  # noqa: B018


def test_a_wrong_token(connect, stand_in, dialect):
    portal = connect(stand_in, dialect)
    stand_in.token = "another"
    with pytest.raises(SourceError, match="CVAGENT_PORTAL_TOKEN_FILE must name a valid one"):
        portal.get("marketplace-orders/")


def test_the_portals_clock(portal, market):
    market.clock = lambda: 1772323199.5
    portal.get("freeipa-profiles/")
    assert portal.date == 1772323199


def test_the_page_orders_changes_and_terminates(stand_in, market, project):
    with Session() as session:
        session.trust_env = False

        def act(path, **body):
            return session.post(f"{stand_in.url}/standin/{path}", json=body, timeout=10)

        assert act("order", project=project.uuid, name="x", limits={"cpu": 1}).ok
        [order] = market.orders.values()
        assert act("decide", order=order.uuid, action="approve").ok
        assert order.state == "executing"
        market.done(order)
        uuid = order.resource.uuid
        assert act("resource", resource=uuid, action="change", limits={"cpu": 2}).ok
        assert act("resource", resource=uuid, action="terminate", limits={}).status_code == 409
        assert act("resource", resource=uuid, action="paused", limits={}).ok
        assert act("resource", resource=uuid, action="explode", limits={}).status_code == 400
        assert act("member", project=project.uuid, username="carol").ok
        assert [person.username for person in project.team] == ["alice@portal", "bob@portal", "carol"]
        assert act("member", project=project.uuid, username="carol").ok
        shown = session.get(f"{stand_in.url}/standin/market", timeout=10).json()
        assert [(one["type"], one["state"]) for one in shown["orders"]] == [
            ("Update", "pending-provider"),
            ("Create", "done"),
        ]
        assert (shown["resources"][0]["flags"], len(shown["projects"][0]["team"])) == (["paused"], 2)
        assert "<title>Portal stand-in</title>" in session.get(f"{stand_in.url}/", timeout=10).text
