"""examples/docker-compose, as it comes up: jobs to CloudVision, orders to accounts, usage to the portal."""

import pytest
from waiting import wait_until


def account_of(example, name):
    """Users and limits of an account, as sacctmgr shows them."""
    fields = "format=user,grptresmins"
    rows = example.slurm("sacctmgr", "-nP", "show", "assoc", f"account={name}", fields).splitlines()
    return sorted(row.partition("|")[0] for row in rows), [row.partition("|")[2] for row in rows if row[0] == "|"]


def test_a_job_reaches_cloudvision_from_its_start_to_its_end(example):
    job = example.submit("-N2", script="sleep 5")
    assert example.wait_until_running(job)["nodes"] == {"values": ["node1", "node2"]}
    assert example.told(job) == ["COMPLETED"]


def test_the_nodes_tell_their_interfaces_through_docker_exec(example):
    wait_until(lambda: example.nodes().keys() == {"node1", "node2"}, 60, "two nodes")
    addresses = example.engine.docker("exec", "cvagent-example-node1-1", "cat", "/sys/class/net/eth0/address")
    (interface,) = example.nodes()["node1"]["data_interfaces"]["values"]
    assert interface["mac_address"] == addresses.strip()


def billed_as_used(example, name, account):
    """Waits until the portal has of each user, and in total, what sacct says; the total in sold units."""
    used = example.used(account)
    wanted = (pytest.approx(sum(used.values()), abs=0.01), pytest.approx(used, abs=0.01))
    wait_until(lambda: example.billed(name) == wanted, 60, f"{used}")
    return sum(used.values())


def test_an_order_becomes_an_account_and_its_usage_comes_back(example):
    order = example.order("training", cpu=10)
    account = example.resource("training")["backend_id"]
    wait_until(lambda: {"alice", "bob"} <= set(account_of(example, account)[0]), 120, "the members")
    hers = wait_until(lambda: example.submit("-A", account, "-n2", script="sleep 4"), 30, "a job in the account")
    his = example.submit("-A", account, "-n1", script="sleep 3", user="bob")
    assert example.told(hers, his) == ["COMPLETED", "COMPLETED"]
    wait_until(lambda: example.order_state(order) == "done", 30, "the order done")
    example.compose("restart", "-t", "10", "cvagent-push")  # its first round tells the usage at once
    before = billed_as_used(example, "training", account)
    assert example.used(account).keys() == {"alice", "bob"}
    example.compose("stop", "-t", "10", "cvagent-push", "cvagent-pull")
    unseen = example.submit("-A", account, "-n2", script="sleep 2")
    wait_until(lambda: example.truth(unseen), 60, "a job that nobody saw")
    example.compose("start", "cvagent-push", "cvagent-pull")
    assert billed_as_used(example, "training", account) > before > 0


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_agents_that_restart_lose_nothing_and_double_nothing(example, end):
    jobs = [example.submit("-N1", script="sleep 10; exit 3"), example.submit("-N2", script="sleep 12")]
    example.wait_until_running(jobs[0])
    order = example.order(f"again-{end}", cpu=5)
    example.compose(end, "cvagent-push", "cvagent-pull")
    jobs.append(example.submit("-N1", script="true"))
    wait_until(lambda: example.truth(jobs[-1]), 60, "a job that nobody saw")
    example.compose("start", "cvagent-push", "cvagent-pull")
    assert example.told(*jobs) == ["FAILED", "COMPLETED", "COMPLETED"]
    wait_until(lambda: example.order_state(order) == "done", 60, "the order done")
    accounts = example.slurm("sacctmgr", "-nP", "show", "account", "format=account").split()
    assert sum(f"again-{end}" in name for name in accounts) == 1
    submitted = set(example.slurm("sacct", "-nXP", "-a", "-S", "now-1hour", "-o", "JobIDRaw").split())
    jobs_told = {key.partition("@")[0] for key in example.cloudvision() if "@" in key}  # tenants have none
    assert jobs_told <= submitted


def test_the_agents_say_that_they_are_well(example):
    example.healthy("cvagent-push", "cvagent-pull")
    for agent in ("cvagent-push", "cvagent-pull"):
        said = example.compose("exec", "-T", agent, "python3", "-m", "cvagent", "check")
        assert "FAIL" not in said, said
