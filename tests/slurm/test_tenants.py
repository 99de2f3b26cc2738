"""Tenants in CloudVision: what a real Slurm reserves for an allocation's account, and what the portal says."""

import datetime as dt
import time

import pytest
from fixtures.sysfs import rail_mac
from machines import dress, of_node
from tenants import Tenants
from waiting import wait_until

from cvagent.standin.portal import PortalStandIn

NODES = ("reservation", "partition", "metadata", "map", "request", "jobs")


@pytest.fixture
def reserve(lab):
    """Reserves nodes for an account; nothing of it stays."""

    def change(*words):
        lab.slurm("scontrol", *words, "reservation=t_tenant")

    yield change
    lab.slurm("scontrol", "delete", "reservation=t_tenant", check=False)


@pytest.fixture
def shown(make_tenants, stand_in):
    """A tenants' portal in front of the lab and of a CloudVision, with an allocation that stands; its store lasts."""
    tenants = make_tenants(cloudvision_url=stand_in.url, cloudvision_token=stand_in.token, tenant_nodes=" ".join(NODES))
    order = tenants.order()
    tenants.once()
    return tenants, order.resource


def parsed(text):
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def nodes(stand_in, resource):
    return stand_in.jobs[resource.uuid]["nodes"]["values"]


def test_a_reservation_grows_and_shrinks_and_the_order_ends_after_the_tenant(shown, stand_in, reserve):
    tenants, resource = shown
    assert stand_in.jobs == {}
    reserve("create", f"accounts={resource.backend_id}", "starttime=now", "duration=60", "nodes=node1")
    tenants.once()
    begun = dict(stand_in.jobs[resource.uuid])
    assert begun["name"] == resource.backend_id
    assert (begun["type"], begun["state"], begun["location"]) == ("JOB_TYPE_TENANT", "JOB_STATE_RUNNING", "lab")
    assert nodes(stand_in, resource) == ["node1"]
    assert "end_time" not in begun
    for hostlist, names in (("node[1-3]", ["node1", "node2", "node3"]), ("node2", ["node2"])):
        reserve("update", f"nodes={hostlist}")
        tenants.once()
        assert nodes(stand_in, resource) == names
        # Each round was another agent's, and the beginning is still the first one's.
        assert stand_in.jobs[resource.uuid]["start_time"] == begun["start_time"]
    end = tenants.terminate(resource)
    asked = []
    done = tenants.market.done

    def watched(order):
        asked.append(stand_in.jobs[resource.uuid]["state"])
        done(order)

    tenants.market.done = watched
    tenants.once()
    assert end.state == "done"
    assert asked == ["JOB_STATE_COMPLETED"]
    assert stand_in.jobs[resource.uuid]["end_time"] >= begun["start_time"]


def test_an_order_ends_though_cloudvision_is_down(shown, stand_in, reserve):
    tenants, resource = shown
    reserve("create", f"accounts={resource.backend_id}", "starttime=now", "duration=60", "nodes=node1")
    tenants.once()
    stand_in.down()
    end = tenants.terminate(resource)
    coming = tenants.order("coming")
    tenants.once()
    assert (end.state, coming.state) == ("done", "done")
    stand_in.up()
    began = stand_in.jobs[resource.uuid]["start_time"]
    assert stand_in.jobs[resource.uuid]["state"] == "JOB_STATE_RUNNING"
    # Nobody remembers it, but for CloudVision; and the portal says what became of it.
    tenants.once()
    ended = stand_in.jobs[resource.uuid]
    assert (ended["state"], ended["start_time"]) == ("JOB_STATE_COMPLETED", began)


def test_an_agent_that_knows_nothing_tells_the_end_before_the_order_is_done(shown, stand_in):
    tenants, resource = shown
    resource.backend_metadata = {"cloudvision": {"v": 1, "nodes": "node1"}}
    tenants.once()
    end = tenants.terminate(resource)
    tenants.market.approve(end)
    asked, done = [], tenants.market.done

    def watched(order):
        asked.append(stand_in.jobs[resource.uuid]["state"])
        done(order)

    tenants.market.done = watched
    tenants.once()
    assert (end.state, asked) == ("done", ["JOB_STATE_COMPLETED"])
    # It comes back, and another agent that knows nothing leaves its first end alone.
    tenants.market.restore(resource)
    for _ in range(2):
        tenants.once()
    states = {key: job["state"] for key, job in stand_in.jobs.items()}
    assert states == {resource.uuid: "JOB_STATE_COMPLETED", f"{resource.uuid}.1": "JOB_STATE_RUNNING"}


def test_a_beginning_stays_though_cloudvision_missed_a_question(shown, stand_in):
    tenants, resource = shown
    resource.backend_metadata = {"cloudvision": {"v": 1, "nodes": "node1"}}
    tenants.once()
    began = stand_in.jobs[resource.uuid]["start_time"]
    wait_until(lambda: time.time() > parsed(began) + 1, 5, "another second")
    stand_in.faults("503*1")
    assert tenants.once().observer.skipped
    tenants.once()
    assert stand_in.jobs[resource.uuid]["start_time"] == began


def test_five_tenants_outlast_a_list_that_leaves_them_out(shown, stand_in):
    tenants, first = shown
    resources = [first, *(tenants.order(name).resource for name in ("b", "c", "d", "e"))]
    tenants.once()
    for number, resource in enumerate(resources):
        resource.backend_metadata = {"cloudvision": {"v": 1, "nodes": f"n{number}"}}
    tenants.once()
    for resource in resources:
        resource.state = "Resting"
    tenants.once(absent_rounds=1)
    assert {job["state"] for job in stand_in.jobs.values()} == {"JOB_STATE_RUNNING"}
    for resource in resources:
        resource.state = "OK"
    tenants.once(absent_rounds=1)
    assert len(stand_in.jobs) == len(resources)


def test_the_nodes_of_running_jobs(shown, stand_in, lab):
    tenants, resource = shown
    job = wait_until(lambda: tenants.submitted(resource.backend_id), 20, "a job in the account")
    lab.wait_for(job, "RUNNING")
    tenants.once()
    assert nodes(stand_in, resource) == lab.slurm("squeue", "-h", "-j", job, "-o", "%N").split()


def test_a_partition_for_one_account_alone(shown, stand_in, lab):
    tenants, resource = shown
    lab.slurm("scontrol", "update", "partitionname=debug", f"AllowAccounts={resource.backend_id}")
    try:
        tenants.once()
    finally:
        lab.slurm("scontrol", "update", "partitionname=debug", "AllowAccounts=ALL")
    assert nodes(stand_in, resource) == ["node1"]


def test_foreign_nodes_are_not_had_by_claiming_them(shown, stand_in):
    tenants, resource = shown
    resource.attributes["cloudvision"] = {"v": 1, "nodes": "node[1-4]"}
    agent = tenants.once(tenant_allow="node[1-2]")
    assert stand_in.jobs == {}
    assert any("CVAGENT_TENANT_ALLOW" in problem for plan in agent.observer.rounds for problem in plan.problems)
    resource.attributes["cloudvision"] = {"v": 1, "nodes": "node[1-2]"}
    tenants.once(tenant_allow="node[1-2]")
    assert nodes(stand_in, resource) == ["node1", "node2"]
    # What the provider wrote counts before, and needs nobody's leave.
    resource.backend_metadata = {"cloudvision": {"v": 1, "nodes": "node4"}}
    tenants.once(tenant_allow="node[1-2]")
    assert nodes(stand_in, resource) == ["node4"]


def test_a_map_of_the_operators(shown, stand_in, tmp_path):
    tenants, resource = shown
    (tmp_path / "map").write_text(f"# account nodes\n{resource.backend_id} node[3-4]\n")
    tenants.once(tenant_map_file=tmp_path / "map")
    assert nodes(stand_in, resource) == ["node3", "node4"]


@pytest.fixture
def beside(make_agent, stand_in):
    """Makes an agent of its own process beside the portal of tenants, its store in memory."""

    def make(tenants, **settings):
        given = {name.removeprefix("CVAGENT_").lower(): value for name, value in tenants.settings.items()}
        kept = {name: value for name, value in given.items() if name.startswith(("portal", "account", "components"))}
        pace = {"portal_interval_s": 5, "tenant_nodes": "metadata"}
        return make_agent(tenants.lab, stand_in, **kept, **pace, **settings)

    return make


def provided(tenants, *names):
    orders = [tenants.order(name) for name in names]
    wait_until(lambda: {order.state for order in orders} == {"done"}, 60, "orders done")
    return [order.resource for order in orders]


def test_interfaces_by_metadata_where_others_are_told_by_nodes(lab_of_file, beside, stand_in, tmp_path):
    for name in ("node1", "node2"):
        dress(lab_of_file, name)
    with PortalStandIn("waldur") as portal:
        tenants = Tenants(lab_of_file, portal, tmp_path)
        agent = beside(tenants, mode="both", node_facts="srun", node_interval_s=1).start()
        wait_until(lambda: len(stand_in.nodes) == 2, 60, "the nodes in CloudVision")
        one, two = provided(tenants, "one", "two")
        wanted = {"v": 1, "mode": "interface", "nodes": "node[1-2]", "nics_per_node": ["ens1f0np0"]}
        one.backend_metadata = {"cloudvision": wanted}
        two.backend_metadata = {"cloudvision": {"v": 1, "nodes": "node3"}}
        wait_until(lambda: {one.uuid, two.uuid} <= stand_in.jobs.keys(), 60, "both tenants")
        assert stand_in.jobs[one.uuid]["interfaces"]["values"] == [of_node(rail_mac(1), node) for node in (1, 2)]
        assert "nodes" not in stand_in.jobs[one.uuid]
        assert nodes(stand_in, two) == ["node3"]
        assert "tenants: nothing to do; 2 documents as they should be" in planned(agent)


def test_a_plan_of_tenants(shown, beside, stand_in):
    tenants, one = shown
    two, three = (tenants.order(name).resource for name in ("two", "three"))
    tenants.once()
    for resource in (one, two, three):
        resource.backend_metadata = {"cloudvision": {"v": 1, "nodes": f"node-{resource.name}"}}
    agent = beside(tenants, mode="pull").start()
    wait_until(lambda: len(stand_in.jobs) == 3, 60, "the tenants")
    wait_until(lambda: agent.metric("cvagent_outbox_pending", sink="cloudvision_tenants") == 0, 30)
    assert "tenants: nothing to do; 3 documents as they should be" in planned(agent)
    agent.kill()
    two.backend_metadata = {"cloudvision": {"v": 1, "nodes": "node4"}}
    three.state = "Terminated"
    said = planned(agent)
    assert "tenants: 3 changes; 0 as they should be" in said
    for resource, state, node in ((one, "RUNNING", "node-bert"), (two, "RUNNING", "node4")):
        assert f"+ {resource.uuid} {state:<10} {resource.backend_id}  {node}  from " in said
    assert f"+ {three.uuid} COMPLETED  {three.backend_id}  node-three  from " in said
    # It only showed.
    assert {job["state"] for job in stand_in.jobs.values()} == {"JOB_STATE_RUNNING"}


def planned(agent):
    done = agent.command("plan", "tenants")
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_an_agent_that_begins_anew_ends_the_tenant_whose_order_executes(shown, beside, stand_in):
    tenants, resource = shown
    resource.backend_metadata = {"cloudvision": {"v": 1, "nodes": "node1"}}
    agent = beside(tenants, mode="pull").start()
    wait_until(lambda: resource.uuid in stand_in.jobs, 60, "the tenant")
    agent.kill()
    end = tenants.terminate(resource)
    tenants.market.approve(end)
    agent.start()
    wait_until(lambda: end.state == "done", 60, "the order's end")
    wait_until(lambda: stand_in.jobs[resource.uuid]["state"] == "JOB_STATE_COMPLETED", 30, "the tenant's end")
    assert agent.stop() == 0
