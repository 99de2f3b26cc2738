"""The running agent in the modes pull and both, as a person starts it, and what they may ask beside it."""

import pytest
from agent import Agent
from waiting import wait_until


@pytest.fixture
def started(make_tenants, make_agent, lab, stand_in):
    """Starts an agent of a mode beside a portal; both."""

    def start(mode: str, **settings):
        tenants = make_tenants()
        given = {name.removeprefix("CVAGENT_").lower(): value for name, value in tenants.settings.items()}
        kept = {name: value for name, value in given.items() if name.startswith(("portal", "account", "components"))}
        agent = make_agent(lab, stand_in, mode=mode, portal_interval_s=5, tenant_nodes="metadata", **kept, **settings)
        return tenants, agent

    return start


def settled(order) -> bool:
    return order.state == "done"


@pytest.mark.parametrize("mode", ["pull", "both"])
def test_an_order_becomes_an_account_with_members_and_a_tenant_by_itself(started, stand_in, lab, mode, tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir()
    (note := spool / "1.prolog_slurmctld").touch()
    tenants, agent = started(mode, hook_spool=spool)
    order = tenants.order()
    agent.start()
    wait_until(lambda: settled(order), 30, "the order done")
    account = order.resource.backend_id
    wait_until(lambda: tenants.account(account)[1] == ["alice", "bob"], 30, "the members")
    order.resource.backend_metadata = {"cloudvision": {"v": 1, "nodes": "node1"}}
    wait_until(lambda: order.resource.uuid in stand_in.jobs, 30, "the tenant")
    job = lab.submit("-A", "proj-a")
    lab.wait_for(job, "RUNNING")
    if mode == "both":
        wait_until(lambda: f"{job}@lab" in stand_in.jobs, 30, "the job")
    end = tenants.terminate(order.resource)
    wait_until(lambda: settled(end), 60, "the order's end")
    assert tenants.account(account) is None
    assert stand_in.jobs[order.resource.uuid]["state"] == "JOB_STATE_COMPLETED"
    assert (f"{job}@lab" in stand_in.jobs) is (mode == "both")
    assert note.exists() is (mode == "pull")  # where nobody looks at jobs, it is another agent's
    lab.cancel(job)
    assert agent.readyz()[0] == 200
    assert agent.stop() == 0


def test_the_portal_alone(started, stand_in, lab):
    tenants, agent = started("both", cloudvision_url="", cloudvision_token_file="")
    tenants.sell("cpu: {measured_unit: thousandths of a minute, unit_factor: 0.001, accounting_type: usage}\n")
    order = tenants.order(cpu=10)
    checked = agent.command("check")
    assert checked.returncode == 0, checked.stdout
    assert "flows: usage, accounts, order_states, members" in checked.stdout
    assert "CVAGENT_CLOUDVISION_URL is not set: the portal alone is served" in checked.stdout
    assert "CloudVision " not in checked.stdout
    assert agent.command("run", "--once").returncode == 0
    assert order.state == "done"
    account = order.resource.backend_id
    job = wait_until(lambda: tenants.submitted(account), 20, "a job in the account")
    used = ("sacct", "-nXPa", f"--accounts={account}", "--format=elapsedraw")
    wait_until(lambda: int(lab.slurm(*used) or 0) > 1, 30, "two seconds in accounting")
    agent.start()
    wait_until(lambda: any(usage.amount for usage in tenants.market.usages.values()), 30, "the usage")
    lab.cancel(job)
    assert agent.command("drift").stdout == "portal and Slurm agree\n"
    assert agent.stop() == 0
    assert stand_in.history == []


def test_what_a_person_asks_beside_it(started, stand_in):
    del stand_in
    tenants, agent = started("pull")
    checked = agent.command("check")
    assert checked.returncode == 0, checked.stdout
    assert "flows: accounts, tenants, order_states, members" in checked.stdout
    assert "slurmdbd answers" in checked.stdout
    order = tenants.order()
    tenants.market.approve(order)
    shown = agent.command("plan", "accounts")
    assert shown.returncode == 0, shown.stderr
    assert f"sacctmgr -i add account name=hpc_{tenants.physics.uuid}" in shown.stdout
    assert "GrpTRESMins=cpu=600000,mem=6144000" in shown.stdout
    assert tenants.accounts() == []
    tenants.once()
    shown = agent.command("plan", "members")
    assert "nothing to do" in shown.stdout


def test_what_slurm_does_not_count_cannot_be_sold(started, stand_in):
    del stand_in
    tenants, agent = started("pull")
    tenants.sell(
        "cpu: {measured_unit: minutes, accounting_type: usage}\n"
        "gres/tape: {measured_unit: minutes, accounting_type: limit}\n"
    )
    checked = agent.command("check")
    assert checked.returncode == 1
    assert "does not count gres/tape: AccountingStorageTRES=gres/tape in slurm.conf" in checked.stdout


def test_pull_mode_says_what_it_lacks(lab, make_agent, stand_in):
    said = make_agent(lab, stand_in, mode="pull").command("check")
    assert said.returncode == 1
    assert "CVAGENT_MODE=pull needs CVAGENT_PORTAL_URL" in said.stdout


def test_slurm_refuses_and_an_operator_sees_why(started, stand_in):
    del stand_in
    tenants, agent = started("pull")
    assert isinstance(agent, Agent)
    order = tenants.order(**{"never/heard": 3})
    once = agent.command("run", "--once")
    assert order.state == "erred"
    assert "no component never/heard" in order.error_message
    assert once.returncode == 0, once.stderr
