"""Every way in which a job can go, in a real Slurm, and what CloudVision holds of it in the end."""

import pytest
from agent import Agent, documents, told_of, utc, writes
from waiting import wait_until

from cvagent.standin import StandIn

PREEMPTION = "PreemptType=preempt/partition_prio\nPreemptMode=REQUEUE\n"


@pytest.fixture(scope="module")
def cloud():
    with StandIn() as stand_in:
        yield stand_in
        assert stand_in.violations == []


@pytest.fixture(scope="module")
def agent(lab, cloud, tmp_path_factory):
    with Agent(tmp_path_factory.mktemp("agent"), lab, cloud) as ours:
        yield ours


@pytest.fixture(scope="module", autouse=True)
def late_job(lab, agent):
    """A job beyond its time limit, submitted first: Slurm's shortest limit is a minute."""
    assert agent.rounds() >= 0
    job = lab.submit("--time=1", script="sleep 600", user="carol")
    yield job
    lab.cancel(job)


def running(cloud, job, key="{}@lab"):
    """Waits until CloudVision shows it as running."""
    name = key.format(job)
    assert cloud.wait_for(lambda: cloud.jobs.get(name, {}).get("state") == "JOB_STATE_RUNNING", 30), cloud.jobs


def start(lab, cloud, *options, script="sleep 300"):
    job = lab.submit(*options, script=script)
    running(cloud, job)
    return job


@pytest.mark.parametrize(
    ("script", "state"),
    [
        pytest.param("true", "COMPLETED", id="success"),
        pytest.param("sleep 3", "COMPLETED", id="seen running"),
        pytest.param("exit 3", "FAILED", id="exit 3"),
        pytest.param("kill -9 $$", "FAILED", id="kill -9"),
    ],
)
def test_a_job_that_ends_by_itself(lab, agent, script, state):
    job = lab.submit("-N2", "--job-name=wing flow", script=script)
    assert agent.told(job) == [state]


def test_a_running_job_is_told_with_its_nodes(lab, agent, cloud):
    job = start(lab, cloud, "-N4")
    agent.settle()
    assert told_of(cloud, job) == documents(lab, job)
    lab.cancel(job)
    assert agent.told(job) == ["CANCELLED"]


def test_scancel_while_pending_is_never_told(lab, agent, cloud):
    job = lab.submit("--begin=now+1hour")
    agent.settle()
    lab.cancel(job)
    agent.settle()
    assert told_of(cloud, job) == {}
    assert writes(cloud, f"{job}@lab") == []


def test_a_node_dies(lab, agent, cloud):
    lost = start(lab, cloud, "--no-requeue", "-w", "node4")
    again = start(lab, cloud, "--requeue", "-w", "node4")
    lab.node("kill", "node4")
    try:
        (run,) = lab.wait_for_end(lost)
        assert run.state == "NODE_FAIL"
        lab.node("start", "node4")
        running(cloud, again, "{}.1@lab")
        lab.cancel(again)
        assert agent.told(lost) == ["FAILED"]
        assert agent.told(again, runs=2) == ["FAILED", "CANCELLED"]
    finally:
        lab.node("start", "node4")


def test_scontrol_requeue(lab, agent, cloud):
    job = start(lab, cloud, "--requeue", "-N2")
    lab.slurm("scontrol", "requeue", job)
    running(cloud, job, "{}.1@lab")
    lab.slurm("scontrol", "requeue", job)
    running(cloud, job, "{}.2@lab")
    lab.cancel(job)
    assert agent.told(job, runs=3) == ["CANCELLED", "CANCELLED", "CANCELLED"]
    assert len(told_of(cloud, job)) == 3


def test_a_requeued_job_that_waits_is_told_as_ended(lab, agent, cloud):
    job = start(lab, cloud, "--requeue")
    lab.slurm("scontrol", "requeuehold", job)
    assert cloud.wait_for(lambda: cloud.jobs[f"{job}@lab"]["state"] == "JOB_STATE_CANCELLED", 20)
    lab.cancel(job)
    agent.settle()
    assert told_of(cloud, job) == documents(lab, job)


def test_an_array(lab, agent):
    array = lab.submit("--array=1-3", script="exit $((SLURM_ARRAY_TASK_ID - 1))")
    lab.wait_for_end(array, runs=3)
    assert sorted(agent.told(array, runs=3)) == ["COMPLETED", "FAILED", "FAILED"]


def test_a_heterogeneous_job(lab, agent, cloud):
    job = lab.submit("-N2", ":", "-N1", script="sleep 2")
    assert agent.told(job, runs=2) == ["COMPLETED", "COMPLETED"]
    sizes = [len(document["nodes"]["values"]) for document in told_of(cloud, *documents(lab, job)).values()]
    assert sorted(sizes) == [1, 2]


def test_a_job_that_gives_up_a_node(lab, agent, cloud):
    job = start(lab, cloud, "-N2", "--exclusive")
    agent.settle()  # slurmdbd cannot tell a resize from a submit in the same second
    before = cloud.jobs[f"{job}@lab"]
    lab.slurm("scontrol", "update", f"JobId={job}", "NumNodes=1")
    assert cloud.wait_for(lambda: len(cloud.jobs[f"{job}@lab"]["nodes"]["values"]) == 1, 20)
    lab.cancel(job)
    whole, rest = lab.wait_for_end(job, runs=2)
    agent.settle()
    assert (whole.state, rest.state) == ("RESIZING", "CANCELLED")
    kept = lab.slurm("scontrol", "show", "hostnames", ",".join(rest.nodes)).split()
    assert told_of(cloud, job) == {
        f"{job}@lab": before
        | {"state": "JOB_STATE_CANCELLED", "end_time": utc(str(rest.ended_at)), "nodes": {"values": kept}}
    }
    assert before["start_time"] == utc(str(whole.started_at))


def test_a_suspended_job_goes_on(lab, agent, cloud):
    job = start(lab, cloud, "-N2")
    lab.slurm("scontrol", "suspend", job)
    agent.settle()
    # slurmdbd may hear of the job later than the agent.
    assert told_of(cloud, job) == wait_until(lambda: documents(lab, job), 30)
    lab.slurm("scontrol", "resume", job)
    agent.settle()
    lab.cancel(job)
    assert agent.told(job) == ["CANCELLED"]
    assert [document["state"] for document in writes(cloud, f"{job}@lab")] == [
        "JOB_STATE_RUNNING",
        "JOB_STATE_CANCELLED",
    ]


def test_a_job_that_is_cleaned_up_for_long(lab, agent, cloud):
    lab.hook("epilog", "#!/bin/sh\nsleep 10\n")
    try:
        job = start(lab, cloud, "-N2", script="sleep 2")
        lab.wait_for(job, "COMPLETING")
        assert agent.told(job) == ["COMPLETED"]
        assert lab.state(job) == "COMPLETING"
    finally:
        lab.hook("epilog", "#!/bin/sh\nexit 0\n")


@pytest.mark.timeout(180)
def test_a_job_beyond_its_time_limit(lab, agent, late_job):
    lab.wait_for_end(late_job, limit_s=150)
    assert agent.told(late_job) == ["FAILED"]


def test_a_preempted_job(make_lab, make_agent, stand_in, tmp_path):
    extra = tmp_path / "preemption.conf"
    extra.write_text(PREEMPTION)
    lab = make_lab(nodes=1, extra=extra)
    agent = make_agent(lab, stand_in).start()
    ended = start(lab, stand_in, "--no-requeue", "--exclusive")
    lab.submit("-p", "debug", "--exclusive", script="sleep 3")
    lab.wait_for_end(ended)
    again = start(lab, stand_in, "--requeue", "--exclusive")
    lab.submit("-p", "debug", "--exclusive", script="sleep 3")
    running(stand_in, again, "{}.1@lab")
    lab.cancel(again)
    assert agent.told(ended) == ["FAILED"]
    assert agent.told(again, runs=2)[1] == "CANCELLED"


def test_a_job_out_of_memory(make_lab, make_agent, stand_in):
    try:
        lab = make_lab(nodes=1, cgroup=1)
    except AssertionError as refused:
        if "cgroup v1" not in str(refused):
            raise
        pytest.skip(str(refused))
    agent = make_agent(lab, stand_in).start()
    job = lab.submit("--mem=50", script="head -c 300M /dev/zero | tail")
    assert agent.told(job) == ["FAILED"]


def test_ends_where_the_cluster_keeps_no_accounting(make_lab, make_agent, stand_in):
    lab = make_lab(nodes=2, accounting=0)
    agent = make_agent(lab, stand_in).start()
    scripts = {"true": "COMPLETED", "exit 3": "FAILED", "kill -9 $$": "FAILED", "sleep 300": "CANCELLED"}
    jobs = {lab.submit("-N2", script=script): state for script, state in scripts.items()}
    *_, cancelled = jobs
    requeued = start(lab, stand_in, "--requeue")
    lab.slurm("scontrol", "requeue", requeued)
    running(stand_in, cancelled)
    lab.cancel(cancelled)
    running(stand_in, requeued, "{}.1@lab")
    agent.settle()
    wanted = {}
    for job, state in jobs.items():
        fields = "StartTime:|,EndTime:|,NodeList:|"
        started, ended, nodes, _ = lab.slurm("squeue", "-h", "-t", "all", "-j", job, "-O", fields).split("|")
        wanted[f"{job}@lab"] = {
            "key": {"id": f"{job}@lab"},
            "name": "sbatch@batch",
            "state": f"JOB_STATE_{state}",
            "start_time": utc(started),
            "end_time": utc(ended),
            "location": "lab",
            "nodes": {"values": lab.slurm("scontrol", "show", "hostnames", nodes).split()},
        }
    assert told_of(stand_in, *jobs) == wanted
    # Nobody tells how the first run of a requeued job ended; that it did is concluded.
    first, second = told_of(stand_in, requeued).values()
    assert first["state"] != "JOB_STATE_RUNNING"
    assert second["state"] == "JOB_STATE_RUNNING"


def test_a_job_id_that_comes_back_after_a_crash(make_lab, make_agent, stand_in):
    lab = make_lab(nodes=2)
    agent = make_agent(lab, stand_in).start()
    lost, again = crash_until_an_id_comes_back(lab, stand_in)
    assert lost == again
    running(stand_in, again, "{}.1@lab")
    lab.cancel(again)
    wait_until(lambda: lab.truth(again)[-1].state == "CANCELLED", 30, f"an end, not {lab.truth(again)}")
    agent.settle(rounds=5)
    wanted = list(documents(lab, again).values())[-1]
    told = told_of(stand_in, again)
    assert told[f"{again}.1@lab"] == wanted | {"key": {"id": f"{again}.1@lab"}}
    # Slurm never tells how the first run ended; before the second began it was over.
    first = told[f"{again}@lab"]
    assert first["state"] == "JOB_STATE_FAILED"
    assert first["start_time"] <= first["end_time"] <= wanted["start_time"]


def crash_until_an_id_comes_back(lab, stand_in):
    """slurmctld writes its jobs down every 5 s at most: right after that, a new job has time to run and be lost."""
    state = lab.folder / "state" / "slurmctld" / "job_state"
    for _ in range(5):
        written = state.stat().st_mtime_ns if state.exists() else 0
        lab.submit(script="true")
        wait_until(lambda before=written: state.exists() and state.stat().st_mtime_ns != before, 15)
        lost = start(lab, stand_in, "-w", "node1")
        lab.daemon("kill", "slurmctld")
        lab.daemon("start", "slurmctld")
        # On node1 slurmd still has the first one's processes, and might end the second with them.
        again = lab.submit("-w", "node2")
        if again == lost:
            return lost, again
        lab.cancel(again)
    return lost, again
