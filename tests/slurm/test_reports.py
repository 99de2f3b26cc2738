"""Nodes that tell of themselves by ssh or by HTTP: as they must where all nodes are busy."""

import os
import shutil
import subprocess

import pytest
import requests
from machines import dress, truth
from slurm_lab import ROOT, Lab, folder_of_ours
from waiting import wait_until

NAMES = ("node1", "node2")
TOKEN = "nodes-own"


@pytest.fixture(scope="module")
def busy(_slurm):
    """Two nodes, each with a job that has it to itself: no step could run there."""
    lab = Lab(folder_of_ours(41), nodes=len(NAMES), accounting=0, message_timeout=5)
    try:
        lab.start()
        for name in NAMES:
            dress(lab, name)
            lab.wait_for(lab.submit("--exclusive", "-w", name), "RUNNING")
        yield lab
    finally:
        lab.stop()


@pytest.fixture
def ssh_config(busy, tmp_path):
    """ssh to a node leads to a real sshd in that node's namespaces."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if not sshd:
        pytest.skip("no sshd: lab/packages ssh")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key], check=True)
    (tmp_path / "sshd_config").write_text(
        f"HostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin prohibit-password\nPidFile none\n"
    )
    for name in NAMES:
        busy.run("mkdir", "-p", "/run/sshd", node=name)
    config = tmp_path / "ssh_config"
    config.write_text(
        f"Host *\n ProxyCommand {busy.folder}/enter -n %h {sshd} -i -f {tmp_path}/sshd_config\n"
        f" IdentityFile {tmp_path}/user\n User root\n UserKnownHostsFile {tmp_path}/known\n"
        " StrictHostKeyChecking accept-new\n LogLevel ERROR\n"
    )
    return config


def test_busy_nodes_are_read_by_ssh(busy, stand_in, make_agent, ssh_config):
    agent = make_agent(busy, stand_in, node_facts="ssh", node_interval_s=1, ssh_args=f"-F {ssh_config}").start()
    wait_until(lambda: len(stand_in.nodes) == len(NAMES), 30, "both nodes in CloudVision")
    assert stand_in.nodes == {f"node{number}": truth(number) for number in (1, 2)}
    shown = agent.command("inventory", "--dry-run")
    assert shown.stdout == "would be asked by ssh: node[1-2]\n"


def test_a_node_that_refuses_costs_the_other_nothing(busy, stand_in, make_agent, ssh_config):
    config = ssh_config.with_name("refusing")
    config.write_text(f"Host node1\n ProxyCommand /bin/false\n{ssh_config.read_text()}")
    agent = make_agent(busy, stand_in, node_facts="ssh", ssh_args=f"-F {config}")
    told = agent.command("inventory")
    assert told.returncode == 1
    assert "node1: ssh: exit code 255: " in told.stderr
    assert list(stand_in.nodes) == ["node2"]


def test_a_busy_node_reports_at_once(busy, stand_in, make_agent, tmp_path):
    token = tmp_path / "report_token"
    token.write_text(f"{TOKEN}\n")
    agent = make_agent(busy, stand_in, node_facts="srun", node_interval_s=3600, node_report_token_file=token).start()
    wait_until(
        lambda: agent.metric("cvagent_rounds_total", flow="nodes", result="done") >= 1, 30, "a look at the nodes"
    )
    assert stand_in.nodes == {}
    for name in NAMES:
        line = busy.run(
            *("env", f"SLURMD_NODENAME={name}", "python3", str(ROOT / "cvagent/node/inventory.py")), node=name
        )
        sent = requests.post(
            f"{agent.url}/nodes/report", data=line, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5
        )
        assert (sent.status_code, sent.text) == (202, "taken\n")
    wait_until(lambda: len(stand_in.nodes) == len(NAMES), 15, "both nodes in CloudVision")
    assert stand_in.nodes == {f"node{number}": truth(number) for number in (1, 2)}
    assert TOKEN not in agent.log()
