"""Who is in an allocation's account, and what they may do there: the portal's team in a real slurmdbd."""

import pytest
from tenants import DIALECTS
from waiting import wait_until

from cvagent.clients.runner import NativeRunner
from cvagent.errors import CommandFailed
from cvagent.standin.portal.objects import Person


@pytest.fixture
def tenants(make_tenants):
    """Whoever is missing once has left, but where a test says otherwise."""
    return make_tenants(absent_rounds=1)


@pytest.fixture
def allocation(tenants):
    """An allocation of alice's and bob's."""
    order = tenants.order()
    tenants.once()
    assert members(tenants, order.resource) == ["alice", "bob"]
    return order.resource


def members(tenants, resource):
    return tenants.account(resource.backend_id)[1]


def shown(tenants, resource, field):
    said = tenants.lab.slurm(
        *("sacctmgr", "-nP", "show", "assoc", f"account={resource.backend_id}", "user=", f"format={field}")
    )
    return said.strip()


def refusals(agent):
    return [plan.refusal for plan in agent.observer.rounds if plan.refusal]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_team_comes_and_goes(make_tenants, dialect):
    tenants = make_tenants(dialect, absent_rounds=1)
    order = tenants.order()
    tenants.once()
    tenants.once()
    alice, bob, carol = tenants.people
    tenants.market.add_project(tenants.physics)
    tenants.physics.team[:] = [alice, carol]
    tenants.market.add_project(tenants.physics)
    tenants.once()
    assert members(tenants, order.resource) == ["alice", "carol"]
    if dialect != "waldur":
        assert sorted(order.resource.allocation.members) == ["alice", "carol"]
    assert bob.cluster_username == "bob"
    assert tenants.once().writes == 0


@pytest.mark.parametrize("absent_rounds", [2, 3])
def test_somebody_leaves_who_is_missing_in_so_many_readings_in_a_row(tenants, allocation, absent_rounds):
    alice, bob, carol = tenants.people
    tenants.physics.team[:] = [bob, carol]
    agent = tenants.once(rounds=absent_rounds - 1, absent_rounds=absent_rounds)
    assert members(tenants, allocation) == ["alice", "bob", "carol"]
    account = f"{allocation.backend_id}/alice"
    note = f"not in the team, and out of the account after {absent_rounds} readings: {account}"
    assert note in {plan.note for plan in agent.observer.rounds}
    # The next agent counts anew.
    tenants.once(rounds=absent_rounds - 1, absent_rounds=absent_rounds)
    assert members(tenants, allocation) == ["alice", "bob", "carol"]
    tenants.once(rounds=absent_rounds, absent_rounds=absent_rounds)
    assert members(tenants, allocation) == ["bob", "carol"]
    tenants.physics.team[:] = [alice, bob]
    tenants.once(force=True, absent_rounds=absent_rounds)
    assert members(tenants, allocation) == ["alice", "bob"]


def test_somebody_of_the_offering_who_is_in_no_team_is_in_no_account(tenants, allocation):
    assert "carol" not in members(tenants, allocation)
    tenants.lab.slurm("sacctmgr", "-i", "add", "user", "carol", f"account={allocation.backend_id}")
    tenants.once()
    assert members(tenants, allocation) == ["alice", "bob"]


def test_a_leavers_job_ends_and_another_account_becomes_the_default(tenants, allocation):
    account = allocation.backend_id
    tenants.lab.slurm("sacctmgr", "-i", "modify", "user", "where", "name=alice", "set", f"DefaultAccount={account}")
    job = wait_until(lambda: tenants.submitted(account), 20, "a job in the account")
    bobs = wait_until(lambda: tenants.submitted(account, "bob"), 20, "a job of bob's")
    tenants.lab.wait_for(job, "RUNNING")
    tenants.physics.team.remove(tenants.people[0])
    wait_until(lambda: tenants.once() and members(tenants, allocation) == ["bob"], 60, "the end of alice's membership")
    (run,) = tenants.lab.wait_for_end(job)
    assert run.state == "CANCELLED"
    assert tenants.lab.state(bobs) in {"RUNNING", "PENDING"}
    said = tenants.lab.slurm("sacctmgr", "-nP", "show", "user", "alice", "format=defaultaccount")
    assert said.strip() == "proj-a"


def test_nobody_comes_in_before_the_cluster_knows_them(tenants, allocation):
    tenants.physics.team.append(Person("dora", "Dora", "dora"))
    tenants.market.add_project(tenants.physics)
    agent = tenants.once()
    assert members(tenants, allocation) == ["alice", "bob"]
    assert any("id -u): dora" in (plan.note or "") for plan in agent.observer.rounds)

    class Knowing(NativeRunner):
        def run(self, command, *, timeout_s, env=None):
            if "getent" in command:
                return b"dora:x:20009:20009::/home/dora:/bin/sh\n"
            return super().run(command, timeout_s=timeout_s, env=env)

    tenants.once(runner=Knowing(tenants.lab.bin_dir))
    assert members(tenants, allocation) == ["alice", "bob", "dora"]


def test_somebody_without_a_name_for_the_offering_is_not_in_the_account(tenants, allocation):
    tenants.people[0].cluster_username = ""
    tenants.once()
    assert members(tenants, allocation) == ["bob"]


def test_a_team_that_came_out_empty_removes_nobody(tenants, allocation):
    other = tenants.order("esm", tenants.biology)
    tenants.once()
    tenants.physics.team.clear()
    tenants.biology.team.append(tenants.people[2])
    agent = tenants.once()
    assert members(tenants, allocation) == ["alice", "bob"]
    assert members(tenants, other.resource) == ["bob", "carol"]
    assert any("no member is left of" in refusal for refusal in refusals(agent))
    tenants.once(force=True)
    assert members(tenants, allocation) == []


def test_no_names_at_all_remove_nobody(tenants, allocation):
    for person in tenants.people:
        person.cluster_username = ""
    tenants.once()
    assert members(tenants, allocation) == ["alice", "bob"]


def test_nobody_may_use_an_allocation_that_is_closed_to_its_members(tenants, allocation):
    allocation.restrict_member_access = True
    agent = tenants.once()
    assert members(tenants, allocation) == []
    assert refusals(agent) == []
    assert tenants.once().writes == 0
    allocation.restrict_member_access = False
    tenants.once()
    assert members(tenants, allocation) == ["alice", "bob"]


def test_a_team_that_cannot_be_read_removes_nobody(tenants, allocation):
    tenants.physics.team.pop()
    tenants.portal.faults("ok*2,500")
    agent = tenants.once()
    tenants.portal.faults("")
    assert agent.observer.skipped
    assert members(tenants, allocation) == ["alice", "bob"]
    tenants.once()
    assert members(tenants, allocation) == ["alice"]


def test_more_than_a_share_of_all_members_leaves_only_when_told_to(tenants, allocation):
    account = allocation.backend_id
    many = [f"user{number}" for number in range(12)]
    tenants.lab.slurm("sacctmgr", "-i", "add", "user", f"name={','.join(many)}", f"account={account}")
    agent = tenants.once()
    assert len(members(tenants, allocation)) == 14
    assert any("12 of 14 members" in refusal for refusal in refusals(agent))
    tenants.once(force=True)
    assert members(tenants, allocation) == ["alice", "bob"]


def test_a_paused_allocation_takes_no_jobs(tenants, allocation):
    allocation.paused = True
    tenants.once()
    assert shown(tenants, allocation, "GrpSubmitJobs") == "0"
    with pytest.raises(AssertionError, match="Job violates accounting/QOS policy"):
        wait_until(lambda: tenants.lab.submit("-A", allocation.backend_id), 1)
    assert tenants.once().writes == 0
    allocation.paused = False
    tenants.once()
    assert shown(tenants, allocation, "GrpSubmitJobs") == ""


def test_a_qos_for_paused_and_downscaled_leaves_the_others(tenants, allocation):
    for qos in ("t_paused", "t_slow", "t_own"):
        tenants.lab.slurm("sacctmgr", "-i", "add", "qos", qos, check=False)
    where = ("where", f"name={allocation.backend_id}")
    tenants.lab.slurm("sacctmgr", "-i", "modify", "account", *where, "set", "qos=normal,t_own")
    names = {"account_paused_qos": "t_paused", "account_downscaled_qos": "t_slow"}
    for downscaled, paused, qos in (
        (True, False, "normal,t_own,t_slow|t_slow"),
        (True, True, "normal,t_own,t_paused,t_slow|t_paused"),
        (False, False, "normal,t_own,t_slow|"),
    ):
        allocation.downscaled, allocation.paused = downscaled, paused
        tenants.once(**names)
        assert shown(tenants, allocation, "QOS,DefaultQOS") == qos
        assert tenants.once(**names).writes == 0


def test_an_unreadable_answer_of_slurm_changes_nothing(tenants, allocation):
    class Half(NativeRunner):
        def run(self, command, *, timeout_s, env=None):
            said = super().run(command, timeout_s=timeout_s, env=env)
            return said[: len(said) // 2] if "assoc" in command else said

    class Silent(NativeRunner):
        def run(self, command, *, timeout_s, env=None):
            if "getent" in command:
                raise CommandFailed("env", "no answer", 1)
            return super().run(command, timeout_s=timeout_s, env=env)

    tenants.physics.team.append(tenants.people[2])
    for runner in (Half, Silent):
        agent = tenants.once(runner=runner(tenants.lab.bin_dir))
        assert agent.observer.skipped
        assert agent.writes == 0
    assert members(tenants, allocation) == ["alice", "bob"]
