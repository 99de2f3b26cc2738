"""`cvagent drift`: what somebody changed by hand is told, and what it says mends it."""

import json
import os
import shlex
import subprocess
import sys

import pytest
import requests
from slurm_lab import ROOT


@pytest.fixture
def drift(make_tenants, stand_in):
    """A portal in front of the lab and a CloudVision; `drift()` is what the command says, and its exit code."""
    tenants = make_tenants(cloudvision_url=stand_in.url, cloudvision_token=stand_in.token, tenant_nodes="metadata")
    return tenants, lambda *arguments: said(tenants, sys.executable, "-m", "cvagent", "drift", *arguments)


def said(tenants, *command):
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("CVAGENT_", "SLURM"))}
    done = subprocess.run(
        command,
        env=environ | {"PYTHONPATH": str(ROOT)} | tenants.settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def mended(tenants, line):
    """Does what a line of a mend says."""
    program, *arguments = shlex.split(line)
    if program == "env":
        place = arguments.index("cvagent")
        arguments[place : place + 1] = [sys.executable, "-m", "cvagent"]
        code, words = said(tenants, program, *arguments)
        assert code == 0, words
    else:
        tenants.lab.slurm(program, *arguments)


def elsewhere(stand_in):
    """Another cluster has a tenant, too."""
    document = {
        "key": {"id": "f" * 32},
        "name": "hpc_0ffff_other",
        "type": "JOB_TYPE_TENANT",
        "state": "JOB_STATE_RUNNING",
        "start_time": "2026-03-01T10:30:00Z",
        "location": "elsewhere",
        "nodes": {"values": ["node1"]},
    }
    headers = {"Authorization": f"Bearer {stand_in.token}"}
    url = f"{stand_in.url}/api/resources/computejob/v1/JobConfig"
    requests.post(url, json=document, headers=headers, timeout=5).raise_for_status()


def test_what_was_changed_by_hand_is_told_and_mended(drift, lab, stand_in):
    tenants, run = drift
    orders = [tenants.order(name) for name in ("one", "two", "three", "four")]
    one, two, three, four = (order.resource for order in orders)
    tenants.once()
    names = [resource.backend_id for resource in (one, two, three, four)]
    one.backend_metadata = {"cloudvision": {"v": 1, "nodes": "node1"}}
    tenants.once()
    elsewhere(stand_in)
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

    for line in dict.fromkeys(line for one in found for line in one["mend"]):
        mended(tenants, line)
    assert run() == (0, "portal, Slurm and CloudVision agree\n")


def test_a_tenant_that_is_over_and_runs_in_cloudvision_is_told_and_mended(drift, stand_in):
    tenants, run = drift
    given_back, forgotten, stays = (tenants.order(name).resource for name in ("one", "two", "three"))
    tenants.once()
    for resource in (given_back, forgotten, stays):
        resource.backend_metadata = {"cloudvision": {"v": 1, "nodes": f"node-{resource.name}"}}
    tenants.once()
    # Somebody ends one, and another vanishes, while no agent looks.
    given_back.state = "Terminated"
    del tenants.market.resources[forgotten.uuid]
    code, words = run("--json")
    found = json.loads(words)
    told = {(one["what"], one["how"]) for one in found}
    assert code == 1
    assert told == {(one.backend_id, "the portal has no such allocation") for one in (given_back, forgotten)} | {
        (one.uuid, "it is over, and CloudVision says that it runs") for one in (given_back, forgotten)
    }
    for line in dict.fromkeys(line for one in found for line in one["mend"]):
        mended(tenants, line)
    states = {key: job["state"] for key, job in stand_in.jobs.items()}
    assert states == {
        given_back.uuid: "JOB_STATE_COMPLETED",
        forgotten.uuid: "JOB_STATE_COMPLETED",
        stays.uuid: "JOB_STATE_RUNNING",
    }
    assert run() == (0, "portal, Slurm and CloudVision agree\n")


def test_what_is_under_way_is_no_drift(drift):
    tenants, run = drift
    order = tenants.order()
    assert run() == (0, "portal, Slurm and CloudVision agree\n")
    tenants.once()
    order.resource.backend_metadata = {"cloudvision": {"v": 1, "nodes": "node1"}}
    tenants.once()
    tenants.market.approve(tenants.change(order.resource, cpu=5))
    assert run()[0] == 0
    tenants.once()
    tenants.market.approve(tenants.terminate(order.resource))
    assert run()[0] == 0


def test_without_an_answer_there_is_no_agreement(drift):
    tenants, run = drift
    tenants.portal.down()
    code, said = run()
    assert code == 1
    assert "agree" not in said
    tenants.portal.up()
