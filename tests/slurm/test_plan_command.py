"""What a person asks on the command line, beside a real cluster and an agent."""

import datetime as dt
import json

import pytest
from agent import documents, told_of
from waiting import wait_until

STORES = ("memory", "file")


@pytest.fixture
def slow_agent(make_agent, lab, stand_in):
    """Starts an agent that has done one round, and does not do another."""

    def start(store):
        agent = make_agent(lab, stand_in, store=store, job_interval_s=3600).start()
        wait_until(lambda: agent.rounds() == 1 and agent.pending() == 0, 20, "one round")
        return agent

    return start


def said(agent, *arguments):
    done = agent.command(*arguments)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.mark.parametrize("store", STORES)
def test_a_plan_beside_the_agent(lab, slow_agent, stand_in, store):
    job = lab.submit("-N2")
    lab.wait_for(job, "RUNNING")
    agent = slow_agent(store)
    requests = stand_in.requests_total
    assert "jobs: nothing to do" in said(agent, "plan")
    lab.cancel(job)
    lab.wait_for_end(job)
    (change,) = json.loads(said(agent, "plan", "--json"))["jobs"]["changes"]
    wanted = documents(lab, job)[f"{job}@lab"]
    assert (change["key"], change["why"]) == (f"{job}@lab", "ended")
    assert (change["before"]["state"], change["after"]["state"]) == ("RUNNING", "CANCELLED")
    assert change["after"]["ended_at"] == wanted["end_time"]
    shown = said(agent, "plan", "jobs")
    assert "jobs: 1 change;" in shown
    assert "RUNNING -> CANCELLED" in shown
    # It showed, and sent nothing.
    assert stand_in.requests_total == requests
    assert stand_in.jobs[f"{job}@lab"]["state"] == "JOB_STATE_RUNNING"


def test_a_plan_over_a_file_store_needs_no_agent(lab, slow_agent, stand_in):
    job = lab.submit()
    lab.wait_for(job, "RUNNING")
    agent = slow_agent("file")
    assert agent.stop() == 0
    assert "jobs: nothing to do" in said(agent, "plan")
    lab.cancel(job)
    lab.wait_for_end(job)
    assert "jobs: 1 change;" in said(agent, "plan")
    agent.start()
    wait_until(lambda: agent.rounds() == 1 and agent.pending() == 0, 20)
    assert told_of(stand_in, job) == documents(lab, job)
    assert "jobs: nothing to do" in said(agent, "plan")


def test_a_plan_without_an_agent_and_with_its_store_in_memory(lab, make_agent, stand_in):
    job = lab.submit(script="true")
    lab.wait_for_end(job)
    done = make_agent(lab, stand_in, http_listen="127.0.0.1:9").command("plan", "--json")
    assert done.returncode == 0, done.stderr
    assert "everything looks new" in done.stderr
    changes = {change["key"]: change["why"] for change in json.loads(done.stdout)["jobs"]["changes"]}
    assert changes[f"{job}@lab"] == "new"
    assert stand_in.requests_total == 0


def test_resend_sends_every_run_again(lab, make_agent, stand_in):
    job = lab.submit("--requeue")
    lab.wait_for(job, "RUNNING")
    lab.slurm("scontrol", "requeue", job)
    lab.wait_for(job, "PENDING")
    lab.wait_for(job, "RUNNING")
    lab.cancel(job)
    lab.wait_for_end(job, runs=2)
    agent = make_agent(lab, stand_in)
    assert "2 of 2 documents sent" in said(agent, "resend", job)
    assert stand_in.jobs == documents(lab, job)
    assert "2 of 2 documents sent" in said(agent, "resend", job)
    assert stand_in.jobs == documents(lab, job)
    unknown = agent.command("resend", "987654")
    assert unknown.returncode == 1
    assert "987654: Slurm does not know it" in unknown.stderr


def test_resend_of_a_running_job(lab, make_agent, stand_in):
    job = lab.submit("-N2")
    lab.wait_for(job, "RUNNING")
    wait_until(lambda: documents(lab, job), 20, "a job that slurmdbd has heard of")
    said(make_agent(lab, stand_in), "resend", job)
    assert stand_in.jobs[f"{job}@lab"]["state"] == "JOB_STATE_RUNNING"
    assert stand_in.jobs == documents(lab, job)
    lab.cancel(job)


def test_backfill_sends_what_ended_in_a_span(lab, make_agent, stand_in):
    agent = make_agent(lab, stand_in)
    early = lab.submit(script="exit 3")
    (run,) = lab.wait_for_end(early)
    late = lab.submit("-N2", script="sleep 3")
    lab.wait_for_end(late)
    running = lab.submit()
    lab.wait_for(running, "RUNNING")
    wait_until(lambda: f"{running}@lab" in documents(lab, running), 20)
    span = ["--since", "2h", "--until", _utc(run.ended_at)]
    said(agent, "backfill", *span)
    assert told_of(stand_in, early) == documents(lab, early)
    assert told_of(stand_in, late, running) == {}
    said(agent, "backfill", "--since", "2h")
    assert told_of(stand_in, early, late, running) == documents(lab, early, late, running)
    lab.cancel(running)


def _utc(epoch):
    return dt.datetime.fromtimestamp(epoch, dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
