"""Nodes in a real Slurm of 32, each with the sysfs of a GPU server of its own: what CloudVision is told about them."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from machines import dress, truth
from slurm_lab import Lab, folder_of_ours
from waiting import wait_until

NODES = 32
NAMES = [f"node{number}" for number in range(1, NODES + 1)]
# A round every second, and the interfaces that a GPU server has.
EAGER = {"node_facts": "srun", "node_interval_s": 1}


@pytest.fixture(scope="module")
def big(_slurm):
    """32 nodes, each with a tree whose MACs are its own."""
    lab = Lab(folder_of_ours(32), nodes=NODES, slurmd_timeout=10, message_timeout=5)
    try:
        lab.start()
        for name in NAMES:
            dress(lab, name)
        yield lab
    finally:
        lab.stop()


def inventories(lab):
    """The inventory jobs that slurmctld still shows: each with id, state and number of nodes."""
    said = lab.slurm("squeue", "-h", "-a", "-t", "all", "-n", "cv-inventory", "-o", "%A %T %D")
    return [line.split() for line in said.splitlines()]


def unfinished(lab):
    return [job for job in inventories(lab) if job[1] in {"PENDING", "RUNNING", "CONFIGURING"}]


def node_writes(stand_in):
    return [write for write in stand_in.history if write.kind == "NodeConfig"]


def rounds(agent, result="done"):
    return agent.metric("cvagent_rounds_total", flow="nodes", result=result)


def wait_for_rounds(agent, number, result="done"):
    enough = rounds(agent, result) + number
    wait_until(lambda: rounds(agent, result) >= enough, 60, f"{number} rounds of nodes that are {result}")


def test_all_nodes_are_right_from_one_step(big, stand_in, make_agent):
    before = {job[0] for job in inventories(big)}
    agent = make_agent(big, stand_in, **EAGER).start()
    wait_until(lambda: len(stand_in.nodes) == NODES, 30, "all nodes in CloudVision")
    assert stand_in.nodes == {f"node{number}": truth(number) for number in range(1, NODES + 1)}
    wait_for_rounds(agent, 2)
    assert [int(size) for job, _, size in inventories(big) if job not in before] == [NODES]
    assert stand_in.jobs == {}
    assert len(node_writes(stand_in)) == NODES


def test_what_is_busy_drained_or_down_costs_the_others_nothing(big, stand_in, make_agent):
    busy, drained, down = NAMES[:8], NAMES[8:10], NAMES[10]
    jobs = [big.submit("--exclusive", "-w", name) for name in busy]
    for job in jobs:
        big.wait_for(job, "RUNNING")
    big.slurm("scontrol", "update", f"nodename={','.join(drained)}", "state=drain", "reason=test")
    big.node("kill", down)
    big.slurm("scontrol", "update", f"nodename={down}", "state=down", "reason=test")
    try:
        agent = make_agent(big, stand_in, **EAGER).start()
        wait_until(lambda: rounds(agent) >= 1, 30)
        wait_until(lambda: len(stand_in.nodes) >= 21, 5, "the nodes that can take it")
        assert set(stand_in.nodes) == set(NAMES[11:])
        detail = agent.readyz()[1]["flows"]["nodes"]["detail"]
        assert "busy (since" in detail
        assert f"{', '.join(drained)}: drain (since" in detail
        for job in jobs:
            big.cancel(job)
        wait_until(lambda: set(stand_in.nodes) >= set(busy), 60, "the busy ones once they are free")
        assert agent.metric("cvagent_rounds_total", flow="nodes", result="skipped") == 0
    finally:
        big.slurm("scontrol", "update", f"nodename={','.join(drained)}", "state=resume")
        big.node("start", down)
        big.slurm("scontrol", "update", f"nodename={down}", "state=resume", check=False)
    wait_until(lambda: len(stand_in.nodes) >= NODES - 1, 30, "the drained ones too")


SINFO = {
    "fails": "exit 1",
    "is empty": "exit 0",
    "is half": '"$REAL" "$@" | head -n 5 | head -c -2',
    "hangs": "exec sleep 60",
}


@pytest.mark.parametrize("wrong", SINFO)
def test_an_unreadable_sinfo_deletes_nothing(big, stand_in, make_agent, tmp_path, wrong):
    commands = tmp_path / "bin"
    shutil.copytree(big.bin_dir, commands, symlinks=True)
    agent = make_agent(
        big, stand_in, slurm_bin_dir=commands, slurm_timeout_s=2, absent_rounds=1, removal_share=1, **EAGER
    ).start()
    wait_until(lambda: len(stand_in.nodes) == NODES, 30)
    replaced = commands / "sinfo.new"
    replaced.write_text(f"#!/bin/sh\nREAL={big.bin_dir}/sinfo\n{SINFO[wrong]}\n")
    replaced.chmod(0o755)
    replaced.rename(commands / "sinfo")
    wait_for_rounds(agent, 3, "skipped")
    assert len(stand_in.nodes) == NODES
    assert len(node_writes(stand_in)) == NODES


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_inventory_that_is_killed_leaves_no_job(big, stand_in, make_agent, number):
    agent = make_agent(big, stand_in, node_facts="srun")
    before = len(inventories(big))
    big.hook("prolog", "#!/bin/sh\nsleep 2\n")
    try:
        command = subprocess.Popen(
            [sys.executable, "-m", "cvagent", "inventory"],
            env=agent._environment(),
            cwd=agent.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: len(inventories(big)) > before and unfinished(big), 20, "the inventory's job")
            os.kill(command.pid, number)
            command.wait(15)
        finally:
            command.kill()
            command.wait()
        wait_until(lambda: not unfinished(big), 60, "no inventory job that is left")
    finally:
        big.hook("prolog", "#!/bin/sh\nexit 0\n")


def test_the_command_asks_some_nodes_and_names_those_that_failed(big, stand_in, make_agent):
    agent = make_agent(big, stand_in, store="file", node_facts="srun")
    big.slurm("scontrol", "update", "nodename=node3", "state=drain", "reason=test")
    try:
        shown = agent.command("inventory", "--dry-run", "node[1-4]")
        assert (shown.returncode, shown.stdout.splitlines()) == (
            0,
            [
                "would be asked in one step in partition batch: node[1-2,4]",
                "cannot be asked now: node3: drain",
            ],
        )
        assert stand_in.nodes == {}
        done = agent.command("inventory", "node[1-4]")
    finally:
        big.slurm("scontrol", "update", "nodename=node3", "state=resume")
    assert done.returncode == 1
    assert "node3: drain" in done.stderr
    assert stand_in.nodes == {f"node{number}": truth(number) for number in (1, 2, 4)}
    assert "nothing to send" in agent.command("inventory", "node4").stdout


def test_a_restart_with_a_file_store_asks_no_node_again(big, stand_in, make_agent):
    agent = make_agent(big, stand_in, store="file", **EAGER).start()
    wait_until(lambda: len(stand_in.nodes) == NODES, 30)
    asked = len(inventories(big))
    agent.stop()
    agent.start()
    wait_for_rounds(agent, 2)
    assert len(inventories(big)) == asked
    assert len(node_writes(stand_in)) == NODES


def test_nodes_that_left_slurm_are_deleted_by_the_rules(big, stand_in, make_agent):
    agent = make_agent(big, stand_in, store="file", absent_rounds=2, **EAGER).start()
    wait_until(lambda: len(stand_in.nodes) == NODES, 30)
    written = (big.folder / "etc/slurm.conf").read_text()
    try:
        without(big, written, "node32")
        wait_until(lambda: set(stand_in.nodes) == set(NAMES[:-1]), 60, "one node less")
        without(big, written, *NAMES[-21:])
        wait_until(lambda: agent.metric("cvagent_refused_changes", flow="nodes") == 20, 60, "a refusal")
        assert set(stand_in.nodes) == set(NAMES[:-1])
        why = "20 of 31 nodes are no longer in Slurm, more than the share of 30%"
        assert why in agent.readyz()[1]["flows"]["nodes"]["detail"]
        shown = agent.command("plan", "nodes").stdout
        assert f"withheld: {why}" in shown
        assert len(re.findall("! +~ node", shown)) == 20
        assert agent.command("run", "--once", "--force").returncode == 0
        wait_until(lambda: set(stand_in.nodes) == set(NAMES[:11]), 60, "what was forced")
    finally:
        without(big, written)


def without(lab, written, *names):
    """Takes nodes out of slurm.conf, and starts slurmctld anew, as it must be."""
    kept = [line for line in written.splitlines() if not line.startswith(tuple(f"NodeName={name} " for name in names))]
    (lab.folder / "etc/slurm.conf").write_text("\n".join([*kept, ""]))
    lab.daemon("restart", "slurmctld")
