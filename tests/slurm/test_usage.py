"""Usage from a real Slurm to the portal, in each dialect: what sacct says in raw is what the portal is told."""

import json
from collections import Counter
from decimal import Decimal

import pytest
import requests
from waiting import wait_until

from cvagent.app import Billing, make_runner
from cvagent.clients.runner import NativeRunner
from cvagent.clients.slurm_usage import SlurmUsage
from cvagent.settings import Settings
from cvagent.standin.portal import DIALECTS, OFFERING, Customer, Person, PortalStandIn, Project

COMPONENTS = """
cpu: {measured_unit: minutes, accounting_type: usage, label: CPU}
mem: {measured_unit: MiB-minutes, accounting_type: usage}
gres/gpu: {measured_unit: minutes, accounting_type: usage}
gres/gpu:h100: {measured_unit: minutes, accounting_type: usage}
node: {measured_unit: minutes, accounting_type: usage}
"""
ACCOUNT = "proj-b"
FIELDS = "User,Start,End,Suspended,AllocTRES,State"


@pytest.fixture(scope="module")
def busy(lab_of_file):
    """A lab in which jobs of every kind have ended."""
    lab = lab_of_file
    whole = lab.submit("-A", ACCOUNT, "-N1", "-n1", "--exclusive", "--mem=512M", script="sleep 3")
    lab.wait_for_end(whole)
    suspended = lab.submit("-A", ACCOUNT, "-n1", "--mem=1536M", "--gres=gpu:2", script="sleep 4")
    lab.wait_for(suspended, "RUNNING")
    lab.slurm("scontrol", "suspend", suspended)
    lab.wait_for(suspended, "SUSPENDED")
    again = lab.submit("-A", ACCOUNT, "-n3", "--mem=1G", "--requeue", script="sleep 2", user="bob")
    lab.wait_for(again, "RUNNING")
    lab.slurm("scontrol", "requeue", again)
    lab.wait_for_end(again, runs=2)
    lab.slurm("scontrol", "resume", suspended)
    failed = lab.submit("-A", ACCOUNT, "-n2", "--gres=gpu:h100:1", script="exit 3", user="bob")
    lab.wait_for_end(suspended)
    lab.wait_for_end(failed)
    return lab


@pytest.fixture(params=DIALECTS)
def portal(request):
    with PortalStandIn(request.param) as running:
        yield running
        assert running.violations == []


@pytest.fixture
def resource(portal):
    market = portal.market
    team = [Person("alice", "Alice", "alice"), Person("bob", "Bob", "bob")]
    project = market.add_project(Project("Weather", Customer("Physics"), team))
    order = market.create(project, "training", {"cpu": 10})
    market.approve(order)
    market.done(order)
    order.resource.backend_id = ACCOUNT
    return order.resource


@pytest.fixture
def agent(busy, portal, stand_in, make_agent, tmp_path):
    (tmp_path / "components.yaml").write_text(COMPONENTS)
    settings = {
        "portal_url": portal.url,
        "portal_token": portal.token,
        "portal_offering": OFFERING,
        "components_file": tmp_path / "components.yaml",
    }
    return make_agent(busy, stand_in, **settings)


def rows(lab, fields):
    return lab.slurm(
        "sacct", "-n", "-X", "-D", "-a", "-P", "--noconvert", "-A", ACCOUNT, "-S", "uts1000000", "-o", fields
    ).splitlines()


def raw_minutes(lab, tres, memory_unit="M"):
    """TRES-minutes by user from sacct's own rows, uncut: exact."""
    found = {}
    for user, start, end, suspended, allocated, _ in (line.split("|") for line in rows(lab, FIELDS)):
        counts = dict(pair.split("=") for pair in allocated.split(","))
        held = int(end) - int(start)
        hours, minutes, seconds = map(int, suspended.split(":"))
        if tres == "cpu":
            held -= (hours * 60 + minutes) * 60 + seconds
        found[user] = found.get(user, 0) + int(counts.get(tres, "0").rstrip(memory_unit)) * held
    return {user: Decimal(amount) / 60 for user, amount in found.items()}


def test_the_portal_is_told_what_sacct_says(busy, agent, portal, resource):
    assert sorted(rows(busy, "State")) == ["COMPLETED", "COMPLETED", "COMPLETED", "FAILED", "REQUEUED"]
    agent.start()
    market = portal.market
    kinds = {"cpu", "mem", "gres/gpu", "gres/gpu:h100", "node"}
    three = kinds if market.dialect != "order-items" else {"cpu", "mem", "gres/gpu"}
    told = {}

    def all_told():
        told.update({usage.type: usage for usage in market.usages.values()})
        return told.keys() == kinds and all(told[kind].users.keys() == {"alice", "bob"} for kind in three)

    assert portal.wait_for(all_told, 30), (told, agent.log())
    step = Decimal(1) if market.dialect == "order-items" else Decimal("0.01")
    for tres, usage in told.items():
        raw = raw_minutes(busy, tres)
        assert (usage.resource, sum(raw.values()) > 0) == (resource, True)
        assert abs(usage.amount - sum(raw.values())) <= step / 2, tres
        if tres in three:
            assert sum(usage.users.values()) == usage.amount, tres
            assert all(abs(usage.users[user] - raw[user]) < step for user in raw), tres
    # An exclusive node is a whole node, and what was suspended kept its GPUs.
    assert raw_minutes(busy, "cpu")["alice"] * 60 >= 3 * 8
    assert raw_minutes(busy, "gres/gpu")["alice"] > 2 * raw_minutes(busy, "cpu")["alice"] - 3 * 8
    assert sorted(market.components) == sorted(kinds)

    status, ready = agent.readyz()
    assert (status, ready["flows"]["usage"]["ready"], ready["sinks"]["portal_usage"]["ready"]) == (200, True, True)
    assert f"{resource.uuid}/" in requests.get(agent.url, timeout=5).text
    planned = agent.command("plan", "usage", "--json")
    assert json.loads(planned.stdout)["usage"]["changes"] == [], planned.stderr
    checked = agent.command("check")
    assert checked.returncode == 0, checked.stdout
    assert f"answers in the dialect {market.dialect}, no TLS, loopback" in checked.stdout


def used(lab, start, end):
    """By user and TRES, the TRES-seconds of the account in a window."""
    found = SlurmUsage(NativeRunner(lab.bin_dir), 30).used([ACCOUNT], start, end).get(ACCOUNT, {})
    return Counter({(user, tres): amount for user, counts in found.items() for tres, amount in counts.items()})


def test_a_window_cuts_runs_and_suspensions_and_its_parts_are_the_whole(busy):
    spans = [tuple(map(int, row.split("|"))) for row in rows(busy, "Start,End")]
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    whole = used(busy, first, last)
    assert whole["alice", "gres/gpu"] > 0
    assert sum(amount for (_, tres), amount in whole.items() if tres == "cpu") == sum(
        int(minutes * 60) for minutes in raw_minutes(busy, "cpu").values()
    )
    parts = {mid: (used(busy, first, mid), used(busy, mid, last)) for mid in range(first + 1, last)}
    assert {mid: before + after for mid, (before, after) in parts.items() if before + after != whole} == {}
    # Some of these lie within the suspension: a second before and after, GPUs were held and CPUs were not.
    seconds = {mid: before - parts[mid - 1][0] for mid, (before, _) in parts.items() if mid - 1 in parts}
    idle = {mid for mid, held in seconds.items() if held["alice", "gres/gpu"] and not held["alice", "cpu"]}
    assert any(mid + 1 in idle for mid in idle)


@pytest.mark.parametrize("portal", ["waldur"], indirect=True)
def test_when_slurmdbd_is_away_nothing_is_told(busy, agent, portal, resource):
    busy.daemon("stop", "slurmdbd")
    try:
        agent.start()
        wait_until(lambda: agent.metric("cvagent_rounds_total", flow="usage", result="skipped") >= 1, 30)
        assert portal.market.usages == {}
        assert resource.state == "OK"
    finally:
        busy.daemon("start", "slurmdbd")


def test_the_usage_of_an_account_that_was_deleted_is_told_before_its_resource_ends(busy, portal, resource, tmp_path):
    (tmp_path / "components.yaml").write_text(COMPONENTS)
    account = f"leaving-{portal.market.dialect}"
    busy.slurm("sacctmgr", "-i", "add", "account", account)
    busy.slurm("sacctmgr", "-i", "add", "user", "bob", f"Account={account}")
    job = busy.submit("-A", account, "-n2", script="sleep 2", user="bob")
    busy.wait_for_end(job)
    busy.slurm("sacctmgr", "-i", "delete", "account", "where", f"name={account}")
    settings = Settings(
        portal_url=portal.url,
        portal_token=portal.token,
        portal_offering=OFFERING,
        components_file=tmp_path / "components.yaml",
        slurm_bin_dir=busy.bin_dir,
    )
    resource.backend_id = account
    billing = Billing(settings)
    try:
        billing.tell_last(make_runner(settings), resource.uuid)
    finally:
        billing.portal.close()
    [cpu] = [usage for usage in portal.market.usages.values() if usage.type == "cpu"]
    (run,) = busy.truth(job)
    exact = Decimal(2 * (run.ended_at - run.started_at)) / 60
    assert abs(cpu.amount - exact) <= (1 if portal.market.dialect == "order-items" else Decimal("0.01")) / 2
    assert set(cpu.users) <= {"bob"}
