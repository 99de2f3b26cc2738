"""`cvagent drift`: what somebody changed by hand is told, and what it says mends it."""

import json
import os
import shlex
import subprocess
import sys

import pytest
from slurm_lab import ROOT


@pytest.fixture
def drift(make_tenants, stand_in):
    """A portal in front of the lab and a CloudVision; `drift()` is what the command says, and its exit code."""
    tenants = make_tenants(cloudvision_url=stand_in.url, cloudvision_token=stand_in.token, tenant_nodes="metadata")

    def run(*arguments):
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("CVAGENT_", "SLURM"))}
        done = subprocess.run(
            [sys.executable, "-m", "cvagent", "drift", *arguments],
            env=environ | {"PYTHONPATH": str(ROOT)} | tenants.settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return tenants, run


def test_what_was_changed_by_hand_is_told_and_mended(drift, lab, stand_in):
    tenants, run = drift
    orders = [tenants.order(name) for name in ("one", "two", "three", "four")]
    one, two, three, four = (order.resource for order in orders)
    tenants.once()
    names = [resource.backend_id for resource in (one, two, three, four)]
    one.backend_metadata = {"cloudvision": {"v": 1, "nodes": "node1"}}
    tenants.once()
    assert run() == (0, "portal, Slurm and CloudVision agree\n")
    assert run("--json") == (0, "[]\n")

    sacctmgr = ("sacctmgr", "-i")
    lab.slurm(*sacctmgr, "modify", "account", "where", f"name={names[0]}", "set", "GrpTRESMins=cpu=1")
    lab.slurm(*sacctmgr, "delete", "user", "where", "name=alice,bob", f"account={names[1]}")
    lab.slurm(*sacctmgr, "delete", "account", "where", f"name={names[1]}")
    lab.slurm(*sacctmgr, "add", "user", "carol", f"account={names[2]}")
    lab.slurm(*sacctmgr, "delete", "user", "where", "name=alice", f"account={names[2]}")
    lab.slurm(*sacctmgr, "add", "account", "hpc_0abcd_stray", "parent=root")
    one.backend_metadata = {"cloudvision": {"v": 1, "nodes": "node2"}}
    four.backend_metadata = {"cloudvision": {"v": 1, "nodes": "node3"}}

    code, said = run("--json")
    assert code == 1
    found = json.loads(said)
    told = {(one["what"], one["how"]) for one in found}
    assert told == {
        (names[0], "its place or its limits differ"),
        (names[1], "Slurm has no such account"),
        (names[2], f"members and use of {names[2]}"),
        (names[2], "carol is not in the team"),
        ("hpc_0abcd_stray", "the portal has no such allocation"),
        (one.uuid, "its nodes or interfaces differ"),
        (four.uuid, "CloudVision does not know it"),
    }
    assert "its place or its limits differ" in run()[1]
    # Asking changed nothing.
    assert stand_in.jobs[one.uuid]["nodes"]["values"] == ["node1"]
    assert run("--json") == (code, said)

    for line in (line for one in found for line in one["mend"]):
        program, *arguments = shlex.split(line)
        if program != "env":
            lab.slurm(program, *arguments)
    tenants.once()
    assert run() == (0, "portal, Slurm and CloudVision agree\n")


def test_what_is_under_way_is_no_drift(drift):
    tenants, run = drift
    order = tenants.order()
    assert run() == (0, "portal, Slurm and CloudVision agree\n")
    tenants.once()
    tenants.change(order.resource, cpu=5)
    assert run()[0] == 0


def test_without_an_answer_there_is_no_agreement(drift):
    tenants, run = drift
    tenants.portal.down()
    code, said = run()
    assert code == 1
    assert "agree" not in said
    tenants.portal.up()
