"""The agent itself is killed, stopped, away or told to read its settings again."""

import random
import time

import pytest
from agent import documents, repeated, settle, told_of, writes
from waiting import wait_until

from cvagent.standin import StandIn

KILLS = 20
SEED = 2203


@pytest.fixture
def agents(make_agent, lab):
    """By store an agent that does not run yet, each with a CloudVision of its own."""
    with StandIn() as one, StandIn() as other:
        yield {"memory": make_agent(lab, one), "file": make_agent(lab, other, store="file")}
        assert (one.violations, other.violations) == ([], [])


@pytest.mark.timeout(240)
def test_killed_again_and_again_during_a_burst(lab, agents):
    choice = random.Random(SEED)
    script = "sleep $((SLURM_ARRAY_TASK_ID % 5)); exit $((SLURM_ARRAY_TASK_ID % 2))"
    bursts = [lab.submit("--array=1-80", script=script)]
    requeued = lab.submit("--requeue")
    for number in range(KILLS):
        if number == KILLS // 2:
            bursts.append(lab.submit("--array=1-80", script=script))
            lab.slurm("scontrol", "requeue", requeued)
        for agent in agents.values():
            agent.begin()
        # From before the first round to well after the first delivery.
        for agent, after_s in zip(agents.values(), sorted(choice.uniform(0.2, 3) for _ in agents), strict=True):
            killed_at = agent.began_at + after_s
            wait_until(lambda at=killed_at: time.monotonic() >= at, 5)
            agent.kill()
    for agent in agents.values():
        agent.start()
    for burst in bursts:
        lab.wait_for_end(burst, runs=80)
    lab.wait_for(requeued, "RUNNING")
    lab.cancel(requeued)
    lab.wait_for_end(requeued, runs=2)
    settle(*agents.values())
    for store, agent in agents.items():
        for burst in bursts:
            assert sorted(agent.holds(burst)) == ["COMPLETED"] * 40 + ["FAILED"] * 40, store
        assert agent.holds(requeued) == ["CANCELLED", "CANCELLED"], store


def test_jobs_that_come_and_go_while_the_agent_is_away(lab, agents):
    begun = lab.submit("-N2", script="sleep 5")
    for agent in agents.values():
        agent.start()
        assert agent.stand_in.wait_for(lambda told=agent.stand_in: f"{begun}@lab" in told.jobs, 30)
        assert agent.stop() == 0
    unseen = lab.submit("-N2", script="exit 3")
    lab.wait_for_end(unseen)
    lab.wait_for_end(begun)
    for agent in agents.values():
        agent.start()
    settle(*agents.values())
    for agent in agents.values():
        assert agent.holds(begun, unseen) == ["COMPLETED", "FAILED"]
    assert repeated(agents["file"].stand_in) == []


def test_a_job_that_comes_and_goes_between_two_rounds(lab, make_agent, stand_in):
    agent = make_agent(lab, stand_in, job_interval_s=8).start()
    rounds = agent.rounds()
    wait_until(lambda: agent.rounds() > rounds, 12)
    job = lab.submit("-N2", script="exit 3")
    lab.wait_for_end(job)
    assert agent.rounds() == rounds + 1, "the machine is too slow for this test"
    wait_until(lambda: agent.rounds() == rounds + 2 and agent.pending() == 0, 15)
    assert told_of(stand_in, job) == documents(lab, job)
    assert [document["state"] for document in writes(stand_in, f"{job}@lab")] == ["JOB_STATE_FAILED"]


def test_sigterm_while_cloudvision_hangs(lab, make_agent, stand_in):
    agent = make_agent(lab, stand_in, store="file").start()
    agent.settle()
    stand_in.faults("hang")
    array = lab.submit("--array=1-20", script="exit 3")
    lab.wait_for_end(array, runs=20)
    wait_until(lambda: agent.pending() == 20, 20)
    asked = stand_in.requests_total
    assert stand_in.wait_for(lambda: stand_in.requests_total > asked, 20)
    assert agent.stop() == 0  # which waits for 10 s
    assert told_of(stand_in, *documents(lab, array)) == {}
    kept = agent.command("outbox", "list", "--status", "pending")
    assert kept.returncode == 0, kept.stderr
    assert kept.stdout.count("FAILED") == 20
    stand_in.faults("")
    agent.start()
    assert agent.told(array, runs=20) == ["FAILED"] * 20
    assert repeated(stand_in) == []


def test_sigterm_while_slurm_hangs(lab, make_agent, stand_in):
    # Slurm's commands give up after 4 s here: only a round that began a moment ago hangs.
    agent = make_agent(lab, stand_in, slurm_timeout_s=60).start()
    agent.settle()
    lab.daemon("freeze", "slurmctld")
    try:
        skipped = agent.rounds("skipped")
        wait_until(lambda: agent.rounds("skipped") > skipped, 20)
        began = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - began < 3
    finally:
        lab.daemon("thaw", "slurmctld")


def test_sighup_takes_over_filters_and_interval_and_keeps_the_old_ones_when_they_are_wrong(lab, make_agent, stand_in):
    agent = make_agent(lab, stand_in)
    agent.env_file.write_text("CVAGENT_PARTITION_FILTER=debug\nCVAGENT_JOB_NAME_FILTER=^keep\n")
    agent.start()
    agent.settle()
    kept, left = (lab.submit("-p", "debug", f"--job-name={name}") for name in ("keep", "leave"))
    assert stand_in.wait_for(lambda: f"{kept}@lab" in stand_in.jobs, 20)
    agent.env_file.write_text("CVAGENT_PARTITION_FILTER=[\nCVAGENT_JOB_NAME_FILTER=\n")
    agent.reload()
    wait_until(lambda: "SIGHUP: the old settings stay" in agent.log(), 10)
    assert "CVAGENT_PARTITION_FILTER" in agent.log().partition("SIGHUP: the old settings stay")[2]
    agent.settle()
    assert told_of(stand_in, left) == {}
    agent.env_file.write_text("CVAGENT_PARTITION_FILTER=debug\nCVAGENT_JOB_NAME_FILTER=leave\n")
    agent.reload()
    assert stand_in.wait_for(lambda: f"{left}@lab" in stand_in.jobs, 20)
    lab.cancel(kept)
    lab.cancel(left)
    # A job that was told before is told to its end.
    assert agent.told(kept, left) == ["CANCELLED", "CANCELLED"]


def test_sighup_with_other_flows_says_that_they_take_a_restart(lab, make_agent, stand_in):
    agent = make_agent(lab, stand_in)
    del agent.settings["CVAGENT_NODE_FACTS"]
    agent.env_file.write_text("CVAGENT_NODE_FACTS=off\n")
    agent.start()
    agent.settle()
    agent.env_file.write_text("CVAGENT_NODE_FACTS=srun\n")
    agent.reload()
    wait_until(lambda: "there would be other flows (jobs, nodes): that takes a restart" in agent.log(), 10)
    assert "were read again" not in agent.log()
    agent.settle()


def test_sighup_takes_over_another_interval(lab, make_agent, stand_in):
    agent = make_agent(lab, stand_in)
    del agent.settings["CVAGENT_JOB_INTERVAL_S"]
    agent.env_file.write_text("CVAGENT_JOB_INTERVAL_S=3600\n")
    agent.start()
    wait_until(lambda: agent.rounds() == 1, 10)
    agent.env_file.write_text("CVAGENT_JOB_INTERVAL_S=1\n")
    agent.reload()
    agent.settle()
