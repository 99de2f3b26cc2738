"""Slurm or CloudVision is away for a while: nothing is made up meanwhile, and all is right soon after."""

import contextlib
import time
from contextlib import ExitStack

import pytest
from agent import SINK, documents, repeated, settle, told_of, writes
from waiting import wait_until

from cvagent.standin import StandIn

pytestmark = pytest.mark.timeout(240)

OUTAGE_S = 60
FAULTS = ("503", "429", "reset", "hang", "redirect", "404")


def start(lab, stand_in, *options, **more):
    job = lab.submit(*options, **more)
    assert stand_in.wait_for(lambda: f"{job}@lab" in stand_in.jobs, 30)
    return job


@contextlib.contextmanager
def broken(lab, away, back, daemons):
    """They are away inside."""
    try:
        for name in daemons:
            lab.daemon(away, name)
        yield
    finally:
        for name in reversed(daemons):
            lab.daemon(back, name)


@pytest.mark.parametrize(
    "outage",
    [
        pytest.param(("stop", "start", ("slurmctld",)), id="slurmctld stopped"),
        pytest.param(("freeze", "thaw", ("slurmctld",)), id="slurmctld frozen"),
        pytest.param(("stop", "start", ("slurmdbd",)), id="slurmdbd stopped"),
        pytest.param(("freeze", "thaw", ("slurmdbd",)), id="slurmdbd frozen"),
        pytest.param(("stop", "start", ("slurmctld", "slurmdbd")), id="both stopped"),
    ],
)
def test_slurm_does_not_answer(lab, make_agent, stand_in, tmp_path, outage):
    """One agent was there before; another begins meanwhile, with nothing to go by."""
    agent = make_agent(lab, stand_in, slurm_timeout_s=2).start()
    lasting = start(lab, stand_in, "-N2")
    goes, gone = tmp_path / "goes", tmp_path / "gone"
    script = f"until [ -e {goes} ]; do sleep 0.1; done; touch {gone}; exit 3"
    ending = start(lab, stand_in, "-w", "node3", script=script, user="root")
    skipped = agent.rounds("skipped")
    with StandIn() as empty:
        later = make_agent(lab, empty, slurm_timeout_s=2, cluster="lab")
        with broken(lab, *outage):
            later.begin()
            wait_until(lambda: agent.rounds("skipped") > skipped, 30, "a round that is skipped")
            goes.touch()
            wait_until(gone.exists, 10)
            wait_until(lambda: agent.rounds("skipped") > skipped + 1, 30, "a round that is skipped")
            told = told_of(stand_in, lasting, ending)
            assert [document["state"] for document in told.values()] == ["JOB_STATE_RUNNING"] * 2
            later.wait_until_up()
            wait_until(lambda: later.rounds("skipped") > 0, 30, "a round that is skipped")
            status, body = later.readyz()
            assert (status, empty.jobs) == (503, {})
            assert "no round has succeeded yet" in body["reasons"][0]
        lab.wait_for_end(ending)
        settle(agent, later)
        for one in (agent, later):
            assert one.holds(lasting, ending) == ["RUNNING", "FAILED"]
            assert one.readyz()[0] == 200
        lab.cancel(lasting)
        lab.wait_for_end(lasting)
        settle(agent, later)
        for one in (agent, later):
            assert one.holds(lasting) == ["CANCELLED"]
            assert len(writes(one.stand_in, f"{lasting}@lab")) == 2
        assert empty.violations == []


def test_cloudvision_takes_nothing_for_a_while(lab, make_agent):
    """Six agents at a time, each with a trouble of its own."""
    with ExitStack() as stack:
        agents = {fault: make_agent(lab, stack.enter_context(StandIn())).begin() for fault in FAULTS}
        for agent in agents.values():
            agent.wait_until_up()
        lasting = lab.submit()
        for agent in agents.values():
            assert agent.stand_in.wait_for(lambda told=agent.stand_in: f"{lasting}@lab" in told.jobs, 30)
        settle(*agents.values())
        for fault, agent in agents.items():
            agent.stand_in.faults(fault)
        array = lab.submit("--array=1-20", script="exit $((SLURM_ARRAY_TASK_ID % 2))")
        lab.wait_for_end(array, runs=20)
        for fault, agent in agents.items():
            wait_until(lambda waiting=agent.pending: waiting() == 20, 30, f"20 documents that wait: {fault}")
            assert told_of(agent.stand_in, *documents(lab, array)) == {}
            assert agent.stand_in.requests[-1].fault in {fault, ""}
        lab.cancel(lasting)
        for agent in agents.values():
            agent.stand_in.faults("")
        lab.wait_for_end(lasting)
        settle(*agents.values())
        for fault, agent in agents.items():
            assert sorted(agent.holds(array)) == ["COMPLETED"] * 10 + ["FAILED"] * 10, fault
            assert agent.holds(lasting) == ["CANCELLED"], fault
            assert (repeated(agent.stand_in), agent.stand_in.violations) == ([], []), fault


def test_cloudvision_takes_it_and_its_answer_is_lost(lab, make_agent):
    with ExitStack() as stack:
        # Without batches each fault names the one job that it struck.
        stand_ins = {fault: stack.enter_context(StandIn(batch=False)) for fault in ("lost", "garbage")}
        agents = [make_agent(lab, stand_in).start() for stand_in in stand_ins.values()]
        settle(*agents)
        for fault, agent in zip(stand_ins, agents, strict=True):
            agent.stand_in.faults(f"{fault}*10")
        array = lab.submit("--array=1-20", script="sleep 2")
        lab.wait_for_end(array, runs=20)
        settle(*agents)
        for agent in agents:
            assert agent.holds(array) == ["COMPLETED"] * 20
        for fault, stand_in in stand_ins.items():
            struck = {asked.key for asked in stand_in.requests if asked.fault}
            assert struck
            assert set(repeated(stand_in)) <= struck, fault
            assert stand_in.violations == []


def test_cloudvision_is_away_for_a_minute_while_200_jobs_come_and_go(lab, make_agent, stand_in):
    agent = make_agent(lab, stand_in, job_interval_s=2).start()
    agent.settle()
    before = start(lab, stand_in, script="sleep 10")
    stand_in.down()
    back_at = time.monotonic() + OUTAGE_S
    script = "sleep $((SLURM_ARRAY_TASK_ID % 4)); exit $((SLURM_ARRAY_TASK_ID % 2))"
    array = lab.submit("--array=1-200", script=script)
    lab.wait_for_end(array, runs=200, limit_s=120)
    wait_until(lambda: time.monotonic() >= back_at, OUTAGE_S)
    wait_until(lambda: agent.pending() == 201, 20, "201 documents that wait")
    assert told_of(stand_in, *documents(lab, array)) == {}
    stand_in.up()
    assert sorted(agent.told(array, runs=200)) == ["COMPLETED"] * 100 + ["FAILED"] * 100
    assert agent.holds(before) == ["COMPLETED"]
    # The newest document took the place of those before it.
    assert {len(writes(stand_in, key)) for key in documents(lab, array)} == {1}
    assert repeated(stand_in) == []


def test_tokens_that_are_not_right(lab, make_agent):
    with ExitStack() as stack:
        agents = {word: make_agent(lab, stack.enter_context(StandIn())).begin() for word in ("wrong", "none", "empty")}
        for agent in agents.values():
            agent.wait_until_up()
        settle(*agents.values())
        for agent in agents.values():
            agent.stand_in.token = "its-successor"
        agents["none"].token_file.unlink()
        agents["empty"].write_token("")
        job = lab.submit("-N2", script="exit 3")
        lab.wait_for_end(job)
        for word, agent in agents.items():
            wait_until(lambda ready=agent.readyz: ready()[0] == 503, 20, f"an agent that is not ready: {word}")
            (reason,) = agent.readyz()[1]["reasons"]
            assert SINK in reason
            assert "CVAGENT_CLOUDVISION_TOKEN_FILE" in reason
            assert told_of(agent.stand_in, job) == {}
            agent.write_token(agent.stand_in.token)
        settle(*agents.values())
        for word, agent in agents.items():
            assert agent.holds(job) == ["FAILED"], word
            wait_until(lambda ready=agent.readyz: ready()[0] == 200, 20, f"an agent that is ready: {word}")
            assert "its-successor" not in agent.log()
            assert agent.stand_in.violations == []
