"""Jobs on shared nodes of a real Slurm, down to the MAC: two GPU servers of eight GPUs and eight NICs each."""

import re

import pytest
from agent import documents, utc
from fixtures.sysfs import rail_mac
from machines import RAILS, dress, of_node, ports_of, truth
from slurm_lab import Lab, folder_of_ours
from test_questions import questions
from waiting import wait_until

NAMES = ("node1", "node2")
EAGER = {"node_facts": "srun", "node_interval_s": 1}
OWN_PARTITION = "PartitionName=own Nodes=ALL OverSubscribe=EXCLUSIVE MaxTime=INFINITE State=UP\n"


@pytest.fixture(scope="module")
def machines(_slurm, tmp_path_factory):
    extra = tmp_path_factory.mktemp("lab") / "extra.conf"
    extra.write_text(OWN_PARTITION)
    lab = Lab(folder_of_ours(40), nodes=2, gpus=RAILS, nics=RAILS, message_timeout=5, extra=extra)
    try:
        lab.start()
        for name in NAMES:
            dress(lab, name)
        yield lab
    finally:
        lab.stop()


@pytest.fixture(autouse=True)
def _leave_no_job(request):
    yield
    if "machines" in request.fixturenames:
        lab = request.getfixturevalue("machines")
        lab.slurm("scancel", "-u", "alice")
        wait_until(lambda: not lab.slurm("squeue", "-h", "-u", "alice"), 20, "no job of alice")


@pytest.fixture
def agent(machines, stand_in, make_agent):
    """An agent that has heard of both nodes."""
    return started(make_agent(machines, stand_in, store="file", **EAGER), stand_in)


def started(agent, stand_in):
    agent.start()
    wait_until(lambda: len(stand_in.nodes) == len(NAMES), 30, "both nodes in CloudVision")
    return agent


def submitted(lab, *options):
    job = lab.submit(*options)
    lab.wait_for(job, "RUNNING")
    return job


def told(stand_in, job):
    """What CloudVision holds of a job, once it does."""
    return wait_until(lambda: stand_in.jobs.get(f"{job}@lab"), 20, f"job {job} in CloudVision")


def macs(document):
    """The MACs of a job that is told by them alone."""
    assert "nodes" not in document
    assert len(set(document["interfaces"]["values"])) == len(document["interfaces"]["values"])
    return set(document["interfaces"]["values"])


def nodes(document):
    assert "interfaces" not in document
    return document["nodes"]["values"]


def indices(lab, job, gres="gpu"):
    """What Slurm says that a job holds, by node number."""
    said = lab.slurm("scontrol", "-d", "-o", "show", "job", job)
    found = re.findall(rf"Nodes=node(\d+) \S+ \S+ GRES=\S*{gres}\S*?\(IDX:([0-9,-]+)\)", said)
    return {int(node): [index for part in listed.split(",") for index in _span(part)] for node, listed in found}


def _span(part):
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)


def expected(lab, job, gres="gpu"):
    held = indices(lab, job, gres).items()
    return set().union(*(ports_of(*numbers, node=node) for node, numbers in held))


def test_two_jobs_with_four_gpus_each_on_one_node(machines, stand_in, agent):
    jobs = [submitted(machines, "-w", "node1", "-n1", "--gres=gpu:4") for _ in range(2)]
    first, second = (macs(told(stand_in, job)) for job in jobs)
    assert (first, second) == tuple(expected(machines, job) for job in jobs)
    assert not first & second
    assert first | second == ports_of(*range(RAILS), node=1)
    agent.settle()
    assert stand_in.jobs.keys() == {f"{job}@lab" for job in jobs}


def test_explain_tells_the_way_there_and_back(machines, stand_in, make_agent):
    """By the pages of an agent with its store in memory."""
    agent = started(make_agent(machines, stand_in, **EAGER), stand_in)
    job = submitted(machines, "-w", "node2", "-n1", "--gres=gpu:1")
    [mac] = macs(told(stand_in, job)) - ports_of(0, node=2) or {of_node(rail_mac(0), 2)}
    agent.settle()
    [index] = indices(machines, job)[2]
    there = agent.command("explain", "job", job).stdout
    assert re.search(rf"GPU {index} at 0000:\w\w:00.0 -> ens{index}f0np0  {mac}  at \S+ \(same switch\)", there)
    assert re.search(r"CloudVision  accepted this at \d{4}-", there)
    back = agent.command("explain", "mac", mac.upper()).stdout
    assert f"port         ens{index}f0np0 of node2" in back
    assert f"{job}@lab  sbatch@batch  RUNNING" in back
    node = agent.command("explain", "node", "node2").stdout
    assert re.search(rf"ens{index}f0np0  {mac}  at \S+  NUMA node \d", node)
    assert f"{job}@lab" in node
    machines.cancel(job)
    machines.wait_for_end(job)
    agent.settle()
    assert "no job" in agent.command("explain", "mac", mac).stdout
    [run] = machines.truth(job)
    assert f"{job}@lab" in agent.command("explain", "mac", mac, "--at", utc(run.started_at)).stdout


def test_nics_are_exact(machines, stand_in, agent):
    job = submitted(machines, "-w", "node2", "-n1", "--gres=nic:2")
    assert macs(told(stand_in, job)) == expected(machines, job, "nic")
    assert len(indices(machines, job, "nic")[2]) == 2
    assert agent.rounds("skipped") == 0


@pytest.mark.usefixtures("agent")
def test_an_exclusive_and_a_shared_node_are_united(machines, stand_in):
    job = submitted(machines, "-w", "node[1-2]", "-N2", "-n9", "--gres=gpu:2")
    whole, shared = _by_cpus(machines, job)
    every = {port["mac_address"] for port in truth(whole)["data_interfaces"]["values"]}
    assert macs(told(stand_in, job)) == every | ports_of(*indices(machines, job)[shared], node=shared)


def _by_cpus(lab, job):
    """The node of which it holds all eight CPUs, and the other."""
    said = lab.slurm("scontrol", "-d", "-o", "show", "job", job)
    cpus = {int(node): held for node, held in re.findall(r"Nodes=node(\d+) CPU_IDs=(\S+)", said)}
    [whole] = [node for node, held in cpus.items() if held == "0-7"]
    return whole, 3 - whole


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("options", [["--exclusive"], ["-p", "own"], ["-n8"]], ids=["asked", "partition", "all CPUs"])
def test_a_job_alone_on_its_node_is_told_by_it(machines, stand_in, options):
    job = submitted(machines, "-w", "node1", "--gres=gpu:1", *options)
    assert nodes(told(stand_in, job)) == ["node1"]


def test_a_job_without_gpus_on_a_shared_node_is_marked_shared(machines, stand_in, agent):
    job = submitted(machines, "-w", "node1", "-n1")
    assert nodes(told(stand_in, job)) == ["node1"]
    said = agent.command("explain", "job", job).stdout
    assert "it holds no GPU, and no NIC that Slurm tells of" in said


def test_devices_that_slurm_only_counts_are_marked_shared(make_lab, stand_in, make_agent):
    lab = make_lab(nodes=1, gpus=0, nics=RAILS, nic_files=0, accounting=0)
    dress(lab, "node1")
    make_agent(lab, stand_in, **EAGER).start()
    wait_until(lambda: stand_in.nodes, 30)
    job = submitted(lab, "-n1", "--gres=nic:2")
    assert "nic(CNT:2)" in lab.slurm("scontrol", "-d", "show", "job", job)
    assert nodes(told(stand_in, job)) == ["node1"]


def test_interfaces_outlast_the_job_and_the_agent(machines, stand_in, agent):
    """Neither slurmctld nor accounting knows any more what an ended job held."""
    ends = submitted(machines, "-w", "node1", "-n1", "--gres=gpu:3")
    stays = submitted(machines, "-w", "node1", "-n1", "--gres=gpu:2")
    before = {job: macs(told(stand_in, job)) for job in (ends, stays)}
    agent.stop()
    machines.cancel(ends)
    machines.wait_for_end(ends)
    assert indices(machines, ends) == {}
    agent.start()
    agent.settle()
    assert {job: macs(told(stand_in, job)) for job in before} == before
    assert told(stand_in, ends)["state"] == "JOB_STATE_CANCELLED"
    assert agent.command("resend", ends, stays).returncode == 0
    assert {job: macs(told(stand_in, job)) for job in before} == before


def test_a_fresh_agent_waits_for_the_nodes_before_it_tells_a_shared_job(machines, stand_in, make_agent):
    job = submitted(machines, "-w", "node2", "-n1", "--gres=gpu:4")
    agent = make_agent(machines, stand_in, **EAGER).start()
    assert macs(told(stand_in, job)) == expected(machines, job)
    machines.cancel(job)
    machines.wait_for_end(job)
    agent.settle()
    [document] = documents(machines, job).values()
    assert told(stand_in, job) == {name: value for name, value in document.items() if name != "nodes"} | {
        "interfaces": told(stand_in, job)["interfaces"]
    }


def test_a_forged_record_takes_a_job_its_interfaces_and_nothing_else(machines, stand_in, agent):
    lie = "JOB_GRES=gpu:8   Nodes=node1 CPU_IDs=0-7 Mem=1 GRES=gpu:h100:8(IDX:0-7) MinCPUsNode=1"
    liar = submitted(machines, "-w", "node1", "-n1", "--gres=gpu:1", f"--comment={lie}")
    honest = submitted(machines, "-w", "node1", "-n1", "--gres=gpu:1")
    assert nodes(told(stand_in, liar)) == ["node1"]
    assert macs(told(stand_in, honest)) == expected(machines, honest)
    assert "neither is believed" in agent.command("explain", "job", liar).stdout


def test_no_question_per_job_and_none_once_all_is_told(machines, stand_in, agent):
    jobs = [submitted(machines, "-w", "node1", "-n1", "--gres=gpu:1") for _ in range(4)]
    for job in jobs:
        told(stand_in, job)
    agent.settle()
    before, rounds = questions(machines), agent.rounds()
    agent.settle(rounds=5)
    after, rounds = questions(machines), agent.rounds() - rounds
    assert after["REQUEST_JOB_INFO"] - before["REQUEST_JOB_INFO"] <= rounds + 1
    assert after.get("REQUEST_JOB_INFO_SINGLE") == before.get("REQUEST_JOB_INFO_SINGLE")
