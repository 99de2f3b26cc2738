"""What commands say about the tenant portal, beside a recorded cluster."""

import json
from contextlib import closing

import pytest

from cvagent.model import Change, Plan
from cvagent.model.errands import Commands
from cvagent.standin.portal import OFFERING, Component, Customer, PortalStandIn, Project
from cvagent.store.outbox import SqlOutbox

COMPONENTS = "cpu: {measured_unit: k-Hours, accounting_type: usage}\n"


@pytest.fixture
def portal():
    with PortalStandIn() as running:
        yield running


@pytest.fixture
def settings(settings, portal, tmp_path):
    (tmp_path / "config-components.yaml").write_text(COMPONENTS)
    return settings | {
        "CVAGENT_PORTAL_URL": portal.url,
        "CVAGENT_PORTAL_TOKEN": portal.token,
        "CVAGENT_PORTAL_OFFERING": OFFERING,
    }


def lines(told, what):
    return [line for line in told.stdout.splitlines() if line[6:].startswith(what)]


def test_check_when_all_is_well(cvagent, portal):
    portal.market.components["cpu"] = Component("cpu")
    told = cvagent("check")
    assert told.exit_code == 0, told.stdout
    assert "flows: jobs, usage" in told.stdout
    assert "answers in the dialect waldur, no TLS, loopback" in lines(told, "portal")[0]
    assert lines(told, "offering")[0].endswith("Slurm, token taken; sells cpu")
    assert "here and at the portal" in lines(told, "billing")[0]


def test_check_doubts_hours_that_count_as_minutes(cvagent):
    assert "note" in (line := lines(cvagent("check"), "components")[1])
    assert line.endswith(
        "cpu: the unit is k-Hours and unit_factor 1, which is TRES-minutes: 60 for hours, 60000 for k-hours"
    )


def test_check_says_what_is_not_sold_yet(cvagent):
    assert lines(cvagent("check"), "offering")[1].endswith("does not sell cpu yet: the agent's start adds that")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("TOKEN", "wrong", "the token is refused; CVAGENT_PORTAL_TOKEN_FILE must name a valid one"),
        ("OFFERING", "a" * 32, "has no offering " + "a" * 32),
        ("URL", "http://127.0.0.1:1", "no answer from http://127.0.0.1:1"),
        ("DIALECT", "order-items", "has no offering"),
    ],
)
def test_check_says_what_is_wrong_with_the_portal(cvagent, name, value, reason):
    told = cvagent("check", **{f"CVAGENT_PORTAL_{name}": value})
    assert told.exit_code == 1
    assert reason in (line := lines(told, "portal")[-1])
    assert line.startswith("FAIL")


def test_check_says_on_which_line_the_components_are_wrong(cvagent, tmp_path):
    (tmp_path / "config-components.yaml").write_text("cpu: {measured_unit: h}\n")
    told = cvagent("check")
    assert told.exit_code == 1
    assert lines(told, "components")[0].endswith("config-components.yaml:1: cpu: accounting_type is missing")


def test_run_stops_when_the_components_are_wrong(cvagent, tmp_path):
    (tmp_path / "config-components.yaml").unlink()
    told = cvagent("run", "--once")
    assert told.exit_code == 2
    assert "config-components.yaml: cannot be read" in told.stderr


def test_check_when_it_is_another_month_at_the_portal(cvagent, portal):
    portal.market.clock = lambda: 0
    told = cvagent("check")
    assert told.exit_code == 1
    assert "it is 1970-01 at the portal" in lines(told, "billing")[0]


def test_plan_shows_what_would_be_told(cvagent, portal):
    market = portal.market
    project = market.add_project(Project("Weather", Customer("Physics")))
    order = market.create(project, "training", {})
    market.approve(order)
    market.done(order)
    order.resource.backend_id = "hpc_nobody"
    # The recording holds no usage: no answer, and never zero.
    told = cvagent("plan", "usage", "--json")
    assert told.exit_code == 1
    assert "sacct" in told.stderr
    order.resource.backend_id = ""
    assert json.loads(cvagent("plan", "usage", "--json").stdout)["usage"]["changes"] == []
    assert market.usages == {}


def test_what_waited_since_an_earlier_run_is_not_carried_out_while_the_portal_is_down(cvagent, portal, tmp_path):
    (program := tmp_path / "bin" / "sacctmgr").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    left = Commands("hpc_a/bob", "bob is not in the team", (("sacctmgr", "-i", "delete", "user"),))
    with closing(SqlOutbox(f"sqlite:///{tmp_path}/store.db", "lab")) as outbox:
        outbox.record("members", ["slurm_members"], Plan(changes=[Change(None, left, "new")]), 1000.0, 1000)
    portal.down()
    told = cvagent("run", "--once", CVAGENT_MODE="pull", CVAGENT_CLUSTER="lab")
    assert told.exit_code == 1
    assert "hpc_a/bob" in cvagent("outbox", "list", CVAGENT_MODE="pull", CVAGENT_CLUSTER="lab").stdout
    assert not (tmp_path / "ran").exists()


def test_pull_mode_changes_no_other_cluster(cvagent):
    """sacctmgr would change any cluster of its slurmdbd, and scancel the one that it lies beside."""
    reason = "CVAGENT_CLUSTER is other and Slurm's ClusterName is lab: pull mode would change the accounts of the one"
    told = cvagent("run", "--once", CVAGENT_MODE="pull", CVAGENT_CLUSTER="other")
    assert told.exit_code == 2
    assert reason in told.stderr
    assert reason in (line := lines(cvagent("check", CVAGENT_MODE="pull", CVAGENT_CLUSTER="other"), "cluster")[0])
    assert line.startswith("FAIL")


@pytest.mark.parametrize(("mode", "cluster"), [("push", "other"), ("pull", "LAB")])
def test_another_name_in_push_mode_and_another_case_are_fine(cvagent, mode, cluster):
    assert lines(cvagent("check", CVAGENT_MODE=mode, CVAGENT_CLUSTER=cluster), "cluster")[0].startswith("note")


def test_pull_mode_starts_while_slurm_tells_no_name(cvagent, tmp_path):
    told = cvagent("run", "--once", CVAGENT_MODE="pull", CVAGENT_CLUSTER="other", CVAGENT_SLURM_BIN_DIR=str(tmp_path))
    assert told.exit_code == 1
