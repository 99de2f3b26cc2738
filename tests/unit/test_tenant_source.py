"""What an agent finds out about tenants: from the portal, from nodes, and from CloudVision when its store is empty."""

import json
from threading import Event

import pytest
from fakes import FakeClock, FakeObserver
from msgspec.structs import replace
from tenancy import ACCOUNT, a_resource, a_tenancy, a_tree, provided

from cvagent.clients.cloudvision import CloudVision
from cvagent.errors import Retryable, SourceError, Unreadable
from cvagent.flows import FLOWS
from cvagent.loops import Collector, Courier, Horizon
from cvagent.model.orders import ResourceState
from cvagent.ports import Surroundings
from cvagent.pull.places import PlaceRules
from cvagent.pull.tenants import TenantRules
from cvagent.sinks.cloudvision_tenants import CloudVisionTenants
from cvagent.sources.tenants import TenantMeans, TenantSource
from cvagent.sources.told_tenants import ToldTenants
from cvagent.standin import TOKEN, StandIn
from cvagent.store.outbox import SqlOutbox

FLOW = next(flow for flow in FLOWS if flow.name == "tenants")
CLAIM = {"cloudvision": {"v": 1, "nodes": "n1"}}
FIRST = a_resource(backend_metadata=CLAIM)
TREE = a_tree(*provided())
RULES = TenantRules(PlaceRules(sources=("metadata",)))


class Token:
    def value(self):
        return TOKEN

    def reread(self):
        pass


class Portal:
    """A portal's list, what it shows by uuid, and how often that was asked for."""

    def __init__(self, *resources):
        self.listed = list(resources)
        self.kept = {resource.uuid: resource for resource in resources}
        self.sought = []

    def observe(self, ask):
        return a_tenancy(tree=TREE, resources=tuple(self.listed), at=ask.now)

    def resource(self, uuid):
        self.sought.append(uuid)
        found = self.kept.get(uuid)
        if isinstance(found, SourceError):
            raise found
        return found


class Facts:
    def __init__(self, **lines):
        self.lines = lines
        self.asked = 0

    def after(self, _at):
        self.asked += 1
        return {node: (line, 1.0) for node, line in self.lines.items()}


class Rounds:
    """Rounds of one agent, and what CloudVision holds after each."""

    def __init__(self, cloudvision, portal, facts=None, outbox=None, **options):
        self.cloudvision = cloudvision
        self.outbox = outbox or SqlOutbox("sqlite://", "lab")
        self.observer = FakeObserver()
        self.clock = FakeClock()
        told = ToldTenants(lambda: CloudVision(cloudvision.url, Token(), **options), "lab", pause_s=0)
        stored = lambda: self.outbox.known("cloudvision_tenants", 0)  # noqa: E731
        means = TenantMeans(portal, portal, None, facts or Facts(), told, stored)
        source = TenantSource(means, ("metadata",), "HPC_", interfaces=False)
        around = Surroundings(self.outbox, self.clock, self.observer, lambda _: None, Event())
        self.collector = Collector(FLOW, source, RULES, Horizon(0), around)
        sink = CloudVisionTenants(CloudVision(cloudvision.url, Token()), "lab")
        self.courier = Courier(sink, 1.0, around)

    def round(self, after_s=60):
        self.clock.forward(after_s)
        plan = self.collector.round()
        self.courier.run()
        return plan

    def told(self):
        return {key: job["state"].removeprefix("JOB_STATE_") for key, job in self.cloudvision.jobs.items()}


@pytest.fixture
def cloudvision():
    with StandIn() as ours:
        yield ours
        assert ours.violations == []


@pytest.fixture
def make(cloudvision):
    made = []

    def make(portal, **options):
        made.append(Rounds(cloudvision, portal, **options))
        return made[-1]

    yield make
    for rounds in made:
        rounds.courier.sink.close()
        rounds.outbox.close()


def test_what_ended_while_the_agent_was_away_is_told(make):
    portal = Portal(FIRST)
    make(portal).round()
    portal.listed.clear()
    portal.kept[FIRST.uuid] = replace(FIRST, state=ResourceState.TERMINATED)
    another = make(portal)
    another.round()
    assert another.told() == {FIRST.uuid: "COMPLETED"}
    make(portal).round()
    assert portal.sought == [FIRST.uuid]


def test_what_the_portal_forgot_while_the_agent_was_away_is_told_after_some_rounds(make):
    make(Portal(FIRST)).round()
    another = make(Portal())
    for state in ("RUNNING", "RUNNING", "COMPLETED"):
        another.round()
        assert another.told() == {FIRST.uuid: state}


@pytest.mark.parametrize("lost", [True, False])
def test_who_comes_back_gets_another_key_however_long_ago_the_end_was(make, lost):
    portal = Portal(FIRST)
    rounds = make(portal)
    rounds.round()
    portal.listed[0] = replace(FIRST, state=ResourceState.TERMINATING)
    rounds.round()
    portal.listed.clear()
    rounds.round()
    rounds = make(portal) if lost else rounds
    for _ in range(3):
        rounds.round(after_s=3600)
    portal.listed.append(FIRST)
    for _ in range(2):
        rounds.round(after_s=3600)
    assert rounds.told() == {FIRST.uuid: "COMPLETED", f"{FIRST.uuid}.1": "RUNNING"}
    again = make(portal)
    again.round(after_s=90_000)
    assert again.told() == rounds.told()


@pytest.mark.parametrize("state", [ResourceState.OK, None])
def test_an_empty_list_ends_no_tenant_that_the_portal_still_has(make, state):
    portal = Portal(*(a_resource(number, backend_metadata=CLAIM) for number in range(1, 6)))
    portal.listed = [
        replace(one, backend_id=ACCOUNT, backend_metadata={"cloudvision": {"nodes": f"n{number}"}})
        for number, one in enumerate(portal.listed)
    ]
    rounds = make(portal)
    rounds.round()
    assert len(rounds.told()) == 5
    portal.kept = {uuid: replace(one, state=state) for uuid, one in portal.kept.items()}
    portal.listed.clear()
    for _ in range(4):
        plan = rounds.round()
    assert set(rounds.told().values()) == {"RUNNING"}
    assert len(plan.problems) == 5
    assert len(portal.sought) == 4 * 5


def test_what_cannot_be_shown_is_not_gone(make):
    portal = Portal(FIRST)
    rounds = make(portal)
    rounds.round()
    portal.listed.clear()
    portal.kept[FIRST.uuid] = Unreadable("resource: its owner is odd")
    for _ in range(4):
        rounds.round()
    assert rounds.told() == {FIRST.uuid: "RUNNING"}


@pytest.mark.parametrize("fault", ["503*1", "hang*1", "reset*1", "garbage*1", "401*1", "429*1"])
def test_no_answer_at_the_start_is_no_new_beginning(make, cloudvision, fault):
    portal = Portal(FIRST)
    make(portal).round()
    began = cloudvision.jobs[FIRST.uuid]["start_time"]
    another = make(portal, timeout_s=1)
    cloudvision.faults(fault)
    assert another.round(after_s=3600) is None
    assert another.round(after_s=3600)
    assert cloudvision.jobs[FIRST.uuid]["start_time"] == began
    assert another.told() == {FIRST.uuid: "RUNNING"}


class Slow(CloudVision):
    """Shows one job, and a list that is too long to come."""

    def jobs(self, only=None):
        raise Retryable(f"no list of {only} within 10 s")


def test_a_list_that_never_comes_from_a_cloudvision_that_answers_is_done_without(make, cloudvision):
    make(Portal(FIRST)).round()
    told = ToldTenants(lambda: Slow(cloudvision.url, Token()), "lab", pause_s=0)
    for fault in ("", "", "503*1", "", ""):
        # Each time it is asked another question, which it may miss as well.
        cloudvision.faults(fault)
        with pytest.raises(SourceError, match="no list"):
            told.of([FIRST.uuid])
    assert list(told.of([FIRST.uuid])) == [FIRST.uuid]
    assert told.listed() is None


def test_a_cloudvision_that_tells_nothing():
    with StandIn(reads=False) as mute:
        rounds = Rounds(mute, Portal(FIRST))
        rounds.round()
        assert rounds.told() == {FIRST.uuid: "RUNNING"}
        rounds.courier.sink.close()
        rounds.outbox.close()


class OneByOne(CloudVision):
    """Shows one job, and no list."""

    def jobs(self, only=None):
        del only


def test_without_a_list_each_is_asked_for(cloudvision, make):
    portal = Portal(FIRST)
    rounds = make(portal)
    rounds.round()
    portal.listed[0] = replace(FIRST, state=ResourceState.TERMINATING)
    rounds.round()
    portal.listed[0] = FIRST
    rounds.round()
    told = ToldTenants(lambda: OneByOne(cloudvision.url, Token()), "lab")
    found = told.of([FIRST.uuid, "f" * 32])
    assert list(found) == [FIRST.uuid, f"{FIRST.uuid}.1"]
    assert list(told.ended()) == [FIRST.uuid]
    cloudvision.faults("503")
    with pytest.raises(SourceError):
        told.of([FIRST.uuid])


def test_only_tenants_of_this_cluster_count(cloudvision, make):
    body = {
        "key": {"id": "e" * 32},
        "name": ACCOUNT,
        "type": "JOB_TYPE_TENANT",
        "state": "JOB_STATE_RUNNING",
        "start_time": "2026-03-01T10:30:00Z",
        "location": "elsewhere",
        "nodes": {"values": ["n1@elsewhere"]},
    }
    others = [
        body,
        body | {"key": {"id": "4711@lab"}, "location": "lab"},
        {name: value for name, value in body.items() if name != "type"} | {"key": {"id": "d" * 32}, "location": "lab"},
        body | {"key": {"id": "c" * 32}, "location": "lab", "name": "by somebody else"},
    ]
    client = CloudVision(cloudvision.url, Token())
    for other in others:
        client.set_job(other)
    client.set_job(body | {"key": {"id": "b" * 32}, "location": "lab", "nodes": {"values": ["n1@lab"]}})
    client.close()
    portal = Portal()
    rounds = make(portal)
    for _ in range(3):
        rounds.round()
    assert {key for key, state in rounds.told().items() if state == "COMPLETED"} == {"b" * 32}
    assert set(portal.sought) == {"b" * 32}


def test_a_flow_that_asks_meanwhile_does_not_wait_again():
    made = []

    def connect():
        made.append(CloudVision("http://127.0.0.1:9", Token()))
        return made[-1]

    told = ToldTenants(connect, "lab")
    for _ in range(3):
        with pytest.raises(SourceError, match="no answer"):
            told.listed()
    assert len(made) == 1


def line(**macs):
    ports = [{"name": name, "mac": mac} for name, mac in macs.items()]
    return json.dumps({"schema": 1, "hostname": "n1", "collected_at": 7, "interfaces": ports}).encode()


def test_interfaces_by_metadata_alone(make, cloudvision):
    facts = Facts(n1=line(eth0="0c:00:00:00:00:01", eth1="0c:00:00:00:00:02"), n2=b"garbage")
    portal = Portal(FIRST)
    rounds = make(portal, facts=facts)
    rounds.round()
    assert facts.asked == 0
    wanted = {"v": 1, "mode": "interface", "nodes": "n1", "nics_per_node": ["eth1"]}
    portal.listed = [a_resource(2, backend_id=ACCOUNT, backend_metadata={"cloudvision": wanted})]
    rounds.round()
    assert cloudvision.jobs[portal.listed[0].uuid]["interfaces"]["values"] == ["0c:00:00:00:00:02"]
