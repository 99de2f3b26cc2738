"""What plan_nodes decides: a table of nodes as they are seen and known."""

import re

import pytest
from fakes import a_node, node_facts_of, nodes_known, nodes_seen
from msgspec.structs import replace

from cvagent.model import SEEN, Absence, Delay, Known, NodeInterface
from cvagent.model.nodes import Interface
from cvagent.push.nodes import NodeRules, plan_nodes

RULES = NodeRules("lab")
MAC = "0c:42:a1:00:00:01"
PORT = Interface("ens1f0", MAC, ipv4=("10.0.0.2", "10.0.0.1"), ipv6=("2001:db8::1",))


def facts(*ports, **fields):
    return node_facts_of("n1", *ports, **fields)


def told(plan):
    return {change.after.key: change.after for change in plan.changes}


def test_a_new_node():
    plan = plan_nodes(nodes_seen(n1=facts(PORT)), {}, RULES)
    assert [(change.why, change.after.key, change.after.hostname) for change in plan.changes] == [("new", "n1", "n1")]
    assert plan.changes[0].after.interfaces == (NodeInterface("ens1f0", MAC, ("10.0.0.1", "10.0.0.2", "2001:db8::1")),)


def test_a_node_as_it_should_be():
    plan = plan_nodes(nodes_seen(n1=facts(PORT)), nodes_known(*told(plan_of(PORT)).values()), RULES)
    assert (list(plan.changes), plan.unchanged) == ([], 1)


def plan_of(*ports, rules=RULES):
    return plan_nodes(nodes_seen(n1=facts(*ports)), {}, rules)


def test_the_order_of_interfaces_and_addresses_is_no_change():
    other = replace(PORT, name="ens1f1", mac="0c:42:a1:00:00:02")
    turned = replace(PORT, ipv4=tuple(reversed(PORT.ipv4)))
    assert told(plan_of(PORT, other)) == told(plan_of(other, turned))


def test_a_changed_node_is_written_again():
    known = nodes_known(*told(plan_of(PORT)).values())
    plan = plan_nodes(nodes_seen(n1=facts(replace(PORT, mac="0c:42:a1:00:00:99"))), known, RULES)
    assert [change.why for change in plan.changes] == ["changed"]


def test_key_with_cluster():
    plan = plan_of(PORT, rules=NodeRules("lab", with_cluster=True))
    assert [(node.key, node.hostname) for node in told(plan).values()] == [("n1@lab", "n1@lab")]
    known = nodes_known(*told(plan).values())
    again = plan_nodes(nodes_seen(n1=None), known, NodeRules("lab", with_cluster=True))
    assert (list(again.changes), dict(again.absences), again.unchanged) == ([], {}, 1)


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        ({}, ["ens1f0", "hsn0", "vf0"]),
        ({"interface_kind": "pf"}, ["ens1f0"]),
        ({"interface_kind": "vf"}, ["vf0"]),
        ({"interface_kind": "regular"}, ["hsn0"]),
        ({"interface_filter": re.compile("^hsn")}, ["hsn0"]),
    ],
)
def test_filters(rules, names):
    ports = [
        Interface("ens1f0", MAC, kind="pf"),
        Interface("vf0", "0c:42:a1:00:00:02", kind="vf"),
        Interface("hsn0", "0c:42:a1:00:00:03"),
        Interface("ib0", None, guid="00:00:10:87:fe:80:00:00:00:00:00:00:94:6d:ae:03:00:aa:00:01"),
        Interface(None, None, kind="vf", state="elsewhere", pci="0000:18:00.2"),
    ]
    plan = plan_of(*ports, rules=NodeRules("lab", **rules))
    assert [port.name for port in told(plan)["n1"].interfaces] == names


def test_a_node_without_a_single_port_to_tell_is_a_problem_and_keeps_what_it_had():
    known = nodes_known(a_node("n1"))
    plan = plan_nodes(nodes_seen(n1=facts(Interface("ib0", None))), known, RULES)
    assert (list(plan.changes), dict(plan.absences)) == ([], {})
    assert "n1: no interface" in plan.problems[0]


def test_a_node_without_facts_keeps_what_it_had():
    plan = plan_nodes(nodes_seen(n1=None, n2=None), nodes_known(a_node("n1")), RULES)
    assert (list(plan.changes), dict(plan.absences), plan.unchanged) == ([], {}, 1)


def test_a_missing_node_is_deleted_after_enough_rounds_and_not_before():
    known = nodes_known(a_node("n1"), a_node("n2"))
    for rounds in (1, 2):
        plan = plan_nodes(nodes_seen(100 + rounds, n2=None), known, RULES)
        assert list(plan.changes) == []
        assert plan.absences == {"n1": Absence(rounds, 101)}
        known["n1"] = Known(a_node("n1"), plan.absences["n1"])
    plan = plan_nodes(nodes_seen(103, n2=None), known, RULES)
    assert [(change.why, change.after) for change in plan.changes] == [("ended", a_node("n1", ended_at=101))]


def test_a_node_that_is_seen_again_is_missed_no_more():
    known = {"n1": Known(a_node("n1"), Absence(2, 90))}
    assert plan_nodes(nodes_seen(n1=None), known, RULES).absences == {"n1": SEEN}


def test_a_deleted_node_that_comes_back_is_written_again():
    plan = plan_nodes(nodes_seen(n1=facts(PORT)), nodes_known(a_node("n1", ended_at=50)), RULES)
    assert told(plan)["n1"].ended_at is None


def test_a_deleted_node_is_not_deleted_again():
    plan = plan_nodes(nodes_seen(n2=None), nodes_known(a_node("n1", ended_at=50)), RULES)
    assert (list(plan.changes), dict(plan.absences)) == ([], {})


@pytest.mark.parametrize(("gone", "of", "refuses"), [(20, 32, True), (9, 32, False), (10, 32, True), (10, 10, False)])
def test_share_guard(gone, of, refuses):
    known = {f"n{number}": Known(a_node(f"n{number}"), Absence(2, 90)) for number in range(of)}
    seen = nodes_seen(**{f"n{number}": None for number in range(gone, of)})
    plan = plan_nodes(seen, known, RULES)
    assert (len(plan.refused), len(plan.changes)) == ((gone, 0) if refuses else (0, gone))
    assert (plan.refusal is not None) == refuses
    forced = plan_nodes(seen, known, replace(RULES, force=True))
    assert (len(forced.changes), forced.refusal) == (gone, None)


def test_the_refusal_says_what_and_why():
    known = {f"n{number}": Known(a_node(f"n{number}"), Absence(2, 90)) for number in range(32)}
    plan = plan_nodes(nodes_seen(**{f"n{number}": None for number in range(12)}), known, RULES)
    assert plan.refusal == (
        "20 of 32 nodes are no longer in Slurm, more than the share of 30% (CVAGENT_REMOVAL_SHARE): "
        "their deletion is withheld until 'cvagent run --once --force'"
    )


def test_delays_are_told_by_their_reason():
    seen = replace(nodes_seen(n1=None, n2=None, n3=None), delays={"n1": Delay("busy", 60), "n2": Delay("busy", 0)})
    assert plan_nodes(seen, {}, RULES).note == "no new inventory of n1, n2: busy (since 1970-01-01T00:00:00Z)"
