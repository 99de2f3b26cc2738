"""Usage from Slurm's accounting to the portal, in each dialect: over real HTTP, with a slurmdbd of any month."""

import time
from decimal import Decimal

import pytest
from slurmdbd import Job, Slurmdbd, utc

from cvagent.app import Billing
from cvagent.clients.portal_usage import PortalUsage
from cvagent.clients.slurm_usage import SlurmUsage
from cvagent.errors import CommandFailed, Retryable, SourceError
from cvagent.model import Accepted, Ask, Deferred, Entry, Known, Refused
from cvagent.model.components import Accounting, Component
from cvagent.push.usage import UsageRules, plan_usage
from cvagent.settings import Settings
from cvagent.sinks.portal_usage import UsageReports
from cvagent.sources.slurm_usage import AllottedUsage
from cvagent.standin.portal import OFFERING

FINAL_DAYS = 7
RULES = UsageRules(
    {tres: Component(tres, tres, "h", Accounting.USAGE, None, Decimal(60)) for tres in ("cpu", "gres/gpu")}, FINAL_DAYS
)
IN_MARCH = utc("2026-03-20 12:00")
JOBS = (
    Job("hpc_a", "alice", utc("2026-02-28 23:00"), utc("2026-03-01 01:00"), "cpu=10,gres/gpu=2"),
    Job("hpc_a", "bob", utc("2026-03-02 10:00"), utc("2026-03-02 11:00"), "cpu=5"),
)


class World:
    """The flow by hand: rounds and deliveries at times of the test's choosing."""

    def __init__(self, market, portal):
        self.market = market
        self.slurm = Slurmdbd(*JOBS)
        self.source = AllottedUsage(SlurmUsage(self.slurm, 20), portal, OFFERING, FINAL_DAYS)
        self.sink = UsageReports(PortalUsage(portal), lambda: None)
        self.known = {}
        self.at(IN_MARCH)

    def at(self, now):
        """Let it be this time at both ends."""
        self.now = now
        self.market.clock = lambda: now

    def plan(self):
        seen = self.source.observe(Ask(self.now, self.now - 600, {}, cold=False))
        return plan_usage(seen, self.known, RULES)

    def tell(self):
        """A round and its delivery; the outcomes."""
        reports = [change.after for change in self.plan().changes]
        outcomes = dict(self.deliver(*reports))
        self.known |= {one.key: Known(one) for one in reports if isinstance(outcomes[one.key], Accepted)}
        return list(outcomes.values())

    def deliver(self, *reports):
        return [
            (entry.key, outcome) for entry, outcome in self.sink.deliver([Entry(one.key, 1, one) for one in reports])
        ]

    def kept(self, resource, month="2026-03"):
        """What the portal keeps of a month: total and shares by component."""
        return {
            usage.type: (usage.amount, usage.users)
            for usage in self.market.usages.values()
            if (usage.resource, usage.month) == (resource, month)
        }


@pytest.fixture
def world(market, portal):
    made = World(market, portal)
    yield made
    made.sink.close()


@pytest.fixture
def resource(allocate):
    return allocate(backend_id="HPC_A")


def test_a_month_up_to_now(world, resource):
    assert world.tell() == [Accepted()]
    assert world.kept(resource) == {"cpu": (15, {"alice": 10, "bob": 5}), "gres/gpu": (2, {"alice": 2, "bob": 0})}


def test_amounts_are_as_fine_as_the_dialect_takes(world, resource, dialect):
    world.slurm.jobs.append(Job("hpc_a", "bob", utc("2026-03-03 10:00"), utc("2026-03-03 10:20"), "cpu=1"))
    world.tell()
    fine = (Decimal("15.33"), {"alice": 10, "bob": Decimal("5.33")})
    assert world.kept(resource)["cpu"] == ((15, {"alice": 10, "bob": 5}) if dialect == "order-items" else fine)


@pytest.mark.parametrize("dialect", ["order-items", "orders"], indirect=True)
def test_a_month_with_two_plans_counts_once(world, resource, dialect):
    world.tell()
    world.market.change_plan(resource)
    world.at(IN_MARCH + 3600)
    world.slurm.jobs.append(Job("hpc_a", "bob", IN_MARCH, IN_MARCH + 3600, "cpu=7"))
    assert world.tell() == [Accepted()]
    told = {usage.period: usage.amount for usage in world.market.usages.values() if usage.type == "cpu"}
    assert told == {resource.past[0].uuid: 15, resource.period: 7}
    users = [usage.users for usage in world.market.usages.values() if usage.period == resource.period]
    assert users[0] == ({"alice": 10, "bob": 12} if dialect == "order-items" else {})
    world.at(utc("2026-04-02 12:00"))
    world.slurm.jobs.append(Job("hpc_a", "bob", utc("2026-04-01 00:00"), utc("2026-04-01 01:00"), "cpu=3"))
    assert world.tell() == [Accepted()]
    assert world.kept(resource, "2026-04")["cpu"][0] == 3


def test_nothing_new_is_not_told_again(world, resource, stand_in):
    world.tell()
    asked = stand_in.requests_total
    assert world.tell() == []
    assert stand_in.requests_total - asked == 1
    assert resource.state == "OK"


def test_a_total_that_fell_is_told(world, resource):
    world.tell()
    world.slurm.jobs.pop()
    world.tell()
    assert world.kept(resource)["cpu"] == (10, {"alice": 10, "bob": 0})


def test_the_month_before_is_told_again_for_some_days(world, resource, dialect):
    world.at(utc("2026-02-28 23:30"))
    world.tell()
    world.at(utc("2026-03-01 00:10"))
    world.tell()
    world.slurm.jobs.append(Job("hpc_a", "bob", utc("2026-02-20 10:00"), utc("2026-02-20 11:00"), "cpu=3"))
    world.at(utc("2026-03-07 23:50"))
    world.tell()
    assert world.kept(resource, "2026-02")["cpu"][0] == (13 if dialect == "waldur" else 5)
    assert world.kept(resource)["cpu"][0] == 15


def test_after_some_days_it_is_told_no_more(world, resource):
    world.at(utc("2026-03-08 00:10"))
    assert [change.after.month for change in world.plan().changes] == ["2026-03"]
    assert resource.state == "OK"


@pytest.mark.parametrize("portals", ["2026-02-28 23:59", "2026-04-01 00:01"])
def test_nothing_is_told_while_it_is_another_month_at_the_portal(world, resource, portals):
    world.now = IN_MARCH
    world.market.clock = lambda: utc(portals)
    plan = world.plan()
    assert not plan.changes
    assert plan.note == f"held: it is {portals[:7]} at the portal and 2026-03 here"
    assert world.kept(resource) == {}


def test_a_report_that_is_late_never_lands_in_another_month(world, resource, dialect):
    [change] = world.plan().changes
    world.at(utc("2026-04-01 00:01"))
    [(_, outcome)] = world.deliver(change.after)
    assert world.kept(resource, "2026-04") == {}
    if dialect == "waldur":
        assert (outcome, world.kept(resource)["cpu"][0]) == (Accepted(), 15)
    else:
        assert isinstance(outcome, Refused)
        assert outcome.reason.startswith("2026-03 is over at the portal")


def test_a_report_waits_for_its_month(world, portal, resource):
    [change] = world.plan().changes
    world.at(utc("2026-02-28 23:59"))
    portal.get_all("marketplace-component-usages/")
    [(_, outcome)] = world.deliver(change.after)
    assert outcome == Deferred("it is still 2026-02 at the portal")
    assert world.market.usages == {}
    assert resource.state == "OK"


class Dateless:
    """A portal that sends no Date."""

    date = None

    def __init__(self, portal):
        self._portal = portal

    def __getattr__(self, name):
        return getattr(self._portal, name)


def test_a_portal_that_tells_no_date_is_told_none_in_the_future(world, portal, resource):
    [change] = world.plan().changes
    world.sink = UsageReports(PortalUsage(Dateless(portal), clock=lambda: IN_MARCH), lambda: None)
    assert world.deliver(change.after) == [(change.after.key, Accepted())]
    assert world.kept(resource)["cpu"][0] == 15


def test_when_slurm_does_not_answer_nothing_is_told(world, resource):
    world.slurm.failure = lambda _: CommandFailed("sacct", "Connection refused", 1)
    with pytest.raises(SourceError):
        world.plan()
    assert resource.state == "OK"


def test_when_the_portal_does_not_answer_nothing_is_told(world, resource, stand_in):
    stand_in.faults("500")
    with pytest.raises(SourceError):
        world.plan()
    assert world.slurm.asked == []
    assert resource.state == "OK"


@pytest.mark.parametrize("fault", ["500", "503", "reset", "garbage"])
def test_half_a_report_is_told_again_in_whole(world, resource, stand_in, fault):
    [change] = world.plan().changes
    for answered in range(4):
        stand_in.faults(f"ok*{answered},{fault}*1" if answered else f"{fault}*1")
        [(_, outcome)] = world.deliver(change.after)
        assert isinstance(outcome, Deferred), answered
    assert world.deliver(change.after) == [(change.after.key, Accepted())]
    assert world.kept(resource)["cpu"] == (15, {"alice": 10, "bob": 5})


def test_only_resources_that_take_usage_are_asked_about(world, allocate):
    for state in ("Creating", "Erred", "Terminated"):
        allocate(state, backend_id=f"hpc_{state}").state = state
    allocate("bare", backend_id="")
    ending = allocate("ending", backend_id="hpc_ending")
    ending.state = "Terminating"
    assert world.tell() == [Accepted()]
    assert [part for part in world.slurm.asked[0] if part.startswith("--accounts")] == ["--accounts=hpc_ending"]


def test_one_account_is_billed_once(world, allocate):
    allocate("one", backend_id="hpc_a")
    allocate("two", backend_id="HPC_A")
    good = allocate("three", backend_id="hpc_c")
    plan = world.plan()
    assert [change.after.resource for change in plan.changes] == [good.uuid]
    assert len(plan.problems) == 2
    assert "its account hpc_a is another's too" in plan.problems[0]


@pytest.mark.parametrize("hostile", ["hpc_a,hpc_b", "--user=root", "a b", "x\ny", "é", "a'b"])
def test_a_backend_id_that_is_no_account_reaches_no_command(world, allocate, hostile):
    allocate("one", backend_id=hostile)
    good = allocate("two", backend_id="hpc_a")
    plan = world.plan()
    assert [change.after.resource for change in plan.changes] == [good.uuid]
    assert "is no account's name" in plan.problems[0]
    assert all(f"--accounts={hostile}" not in part for command in world.slurm.asked for part in command)


def test_an_unknown_component_sets_the_report_aside(world, market, resource):
    del market.components["gres/gpu"]
    [outcome] = world.tell()
    assert isinstance(outcome, Refused)
    assert "gres/gpu" in outcome.reason
    assert world.kept(resource) == {}


def test_after_close_all_is_deferred(world, resource):
    [change] = world.plan().changes
    world.sink.close()
    [(_, outcome)] = world.deliver(change.after)
    assert (outcome.everything, world.kept(resource)) == (True, {})


@pytest.fixture
def billing(stand_in, tmp_path):
    (tmp_path / "components.yaml").write_text("cpu: {measured_unit: minutes, accounting_type: usage}")
    made = Billing(
        Settings(
            cloudvision_url="https://cvp.example.org",
            cloudvision_token="token",
            portal_url=stand_in.url,
            portal_token=stand_in.token,
            portal_offering=OFFERING,
            components_file=tmp_path / "components.yaml",
        )
    )
    yield made
    made.portal.close()


def test_the_last_usage_of_a_resource_that_ends(billing, market, resource):
    now = int(time.time())
    resource.state = "Terminating"
    billing.tell_last(Slurmdbd(Job("hpc_a", "alice", now - 60, now, "cpu=7")), resource.uuid)
    told = [usage.amount for usage in market.usages.values() if usage.amount]
    assert sum(told) == 7


def test_the_last_usage_waits_while_it_is_another_month_at_the_portal(billing, market, resource):
    market.clock = lambda: IN_MARCH
    with pytest.raises(Retryable, match="held: it is 2026-03 at the portal"):
        billing.tell_last(Slurmdbd(), resource.uuid)
    assert market.usages == {}
