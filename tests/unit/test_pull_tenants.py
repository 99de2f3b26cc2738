"""Which nodes a tenant has, and what CloudVision is to be told of it."""

import functools
import re

import pytest
from msgspec.structs import replace
from tenancy import ACCOUNT, a_resource, a_tenancy, a_tree, provided

from cvagent.model import Absence, Known, State
from cvagent.model.accounts import Account
from cvagent.model.orders import ResourceState
from cvagent.model.tenants import Places, TenantConfig, TenantsSeen
from cvagent.pull.places import Place, PlaceRules, place_of
from cvagent.pull.tenants import TenantRules, plan_tenants

ALL = ("reservation", "partition", "metadata", "map", "request", "jobs")
RULES = TenantRules(PlaceRules(sources=ALL, allowed=frozenset({"n1", "n2"}), accounts={ACCOUNT: "map[1-2]"}))
FIRST = a_resource(backend_id=ACCOUNT)
SECOND_ACCOUNT = "hpc_a0001_bert"
SECOND = a_resource(2)
TREE = a_tree(*provided(), Account(SECOND_ACCOUNT, "root"))
PORTS = {"n1": {"eth0": "0c:00:00:00:00:01", "eth1": "0c:00:00:00:00:02"}, "n2": {"eth1": "0c:00:00:00:00:03"}}


def seen(*resources, at=100, places=None, ports=None, told=(), sought=None, **fields):
    tenancy = a_tenancy(tree=TREE, resources=resources, at=at, **fields)
    given = places or Places(reservations={ACCOUNT: ["n[1-2]"]})
    return TenantsSeen(tenancy, given, ports or {}, {config.key: config for config in told}, sought or {})


def known_of(*configs):
    return {config.key: Known(config) for config in configs}


def told(observed, known=None, rules=RULES):
    return [change.after for change in plan_tenants(observed, known or {}, rules).changes]


def a_tenant(**fields):
    given = {
        "key": FIRST.uuid,
        "resource": FIRST.uuid,
        "name": ACCOUNT,
        "state": State.RUNNING,
        "started_at": 100,
        "nodes": ("n1", "n2"),
    } | fields
    return TenantConfig(**given)


def claim(**fields):
    return {"cloudvision": {"v": 1, **fields}}


def place(resource=FIRST, rules=RULES.places, places=None, ports=None):
    return place_of(resource, ACCOUNT, seen(resource, places=places or Places(), ports=ports), rules)


@pytest.mark.parametrize("first", range(6))
def test_the_first_source_that_names_nodes_counts(first):
    resource = a_resource(backend_metadata=claim(nodes="meta[1-2]"), attributes=claim(nodes="n[1-2]"))
    places = Places(
        reservations={ACCOUNT: ["resv[1-2]"]}, partitions={ACCOUNT: ["part1", "part2"]}, jobs={ACCOUNT: ["job[1-2]"]}
    )
    rules = replace(RULES.places, sources=ALL[first:])
    word = ("resv", "part", "meta", "map", "n", "job")[first]
    assert place(resource, rules, places).nodes == (f"{word}1", f"{word}2")


def test_a_source_that_names_none_leaves_it_to_the_next():
    assert place(places=Places(jobs={ACCOUNT: ["x1"]}), rules=PlaceRules(sources=("reservation", "jobs"))).nodes == (
        "x1",
    )
    assert place(rules=PlaceRules(sources=("reservation", "jobs"))) == Place()


@pytest.mark.parametrize(
    "written",
    [
        {"attributes": claim(nodes="n[1-3]")},
        {"options": claim(nodes="n3")},
        {"attributes": claim(interfaces=["0c:00:00:00:00:09"], mode="interface")},
        {"attributes": claim(nodes="n1,n3")},
    ],
)
def test_a_tenant_who_claims_foreign_nodes_gets_none_and_a_warning_is_shown(written):
    resource = a_resource(backend_id=ACCOUNT, **written)
    rules = TenantRules(replace(RULES.places, sources=("request",)))
    plan = plan_tenants(seen(resource, places=Places()), {}, rules)
    assert plan.changes == []
    (problem,) = plan.problems
    assert "which CVAGENT_TENANT_ALLOW does not allow" in problem


def test_what_a_tenant_claims_is_counted_before_it_is_unfolded():
    greedy = a_resource(attributes=claim(nodes="n[1-60000]"))
    with pytest.raises(ValueError, match="more than 66 nodes"):
        place(greedy, replace(RULES.places, sources=("request",)))


def test_what_a_tenant_writes_counts_for_nothing_unless_it_is_asked_for():
    resource = a_resource(backend_id=ACCOUNT, attributes=claim(nodes="n1"), options=claim(nodes="n1"))
    assert place(resource, PlaceRules()) == Place()


@pytest.mark.parametrize(
    "object_",
    [
        {"v": 2},
        "n1",
        [],
        {"nodes": "n[1-"},
        {"nodes": "n*"},
        {"nodes": 7},
        {"nodes": "@group"},
        {"nodes": "n1", "mode": "both"},
        {"interfaces": ["not a mac"]},
        {"interfaces": "0c:00:00:00:00:01"},
        {"interfaces": [["0c:00:00:00:00:01"]]},
        {"nodes": "n1", "mode": []},
        {"nodes": "n1", "mode": {}},
        {"nodes": "n1", "nics_per_node": [{"eth1": 1}]},
        {"nodes": "n1", "v": []},
        {"nodes": "n" + "[1]" * 1200},
        {"nodes": "n[1-3000000]"},
        {"nodes": "," * 100_000},
        functools.reduce(lambda inner, _: [inner], range(5000), "deep"),
    ],
)
def test_an_object_that_cannot_be_read_is_a_problem_and_spoils_no_other(object_):
    odd = a_resource(backend_id=ACCOUNT, backend_metadata={"cloudvision": object_})
    plan = plan_tenants(
        seen(odd, SECOND, places=Places(jobs={SECOND_ACCOUNT: ["x1"]})),
        {},
        TenantRules(PlaceRules(("metadata", "jobs"))),
    )
    assert [change.after.name for change in plan.changes] == [SECOND_ACCOUNT]
    assert len(plan.problems) == 1


def test_interfaces_come_from_the_inventory():
    rules = replace(RULES.places, interfaces=True, nics=re.compile("eth"))
    places = Places(reservations={ACCOUNT: ["n[1-2]"]})
    assert place(rules=rules, places=places, ports=PORTS).interfaces == (
        "0c:00:00:00:00:01",
        "0c:00:00:00:00:02",
        "0c:00:00:00:00:03",
    )
    named = a_resource(backend_metadata=claim(nodes="n[1-2]", mode="interface", nics_per_node=["eth1"]))
    found = place(named, replace(rules, sources=("metadata",)), ports=PORTS)
    assert found == Place(interfaces=("0c:00:00:00:00:02", "0c:00:00:00:00:03"))
    macs = a_resource(backend_metadata=claim(interfaces=["0C:00:00:00:00:09"]))
    assert place(macs, replace(rules, sources=("metadata",))).interfaces == ("0c:00:00:00:00:09",)
    with pytest.raises(ValueError, match="no interface of n1 is known"):
        place(rules=rules, places=places)


def test_a_tenant_begins_changes_and_ends():
    (begun,) = told(seen(FIRST))
    assert begun == a_tenant()
    assert told(seen(FIRST, at=200), known_of(begun)) == []
    fewer = Places(reservations={ACCOUNT: ["n1"]})
    assert told(seen(FIRST, at=200, places=fewer), known_of(begun)) == [a_tenant(nodes=("n1",))]
    leaving = replace(FIRST, state=ResourceState.TERMINATING)
    ended = a_tenant(state=State.COMPLETED, ended_at=300)
    assert told(seen(leaving, at=300), known_of(begun)) == [ended]
    assert told(seen(leaving, at=400), known_of(ended)) == []


def test_an_agent_that_lost_its_store_goes_on_from_what_cloudvision_says():
    assert told(seen(FIRST, at=500, told=[a_tenant()])) == [a_tenant()]
    assert told(seen(FIRST, at=500, told=[a_tenant(nodes=("n1",))])) == [a_tenant()]
    leaving = replace(FIRST, state=ResourceState.TERMINATING)
    assert told(seen(leaving, at=500, told=[a_tenant()])) == [a_tenant(state=State.COMPLETED, ended_at=500)]
    # What it says of what is known already is older.
    assert told(seen(FIRST, at=500, told=[a_tenant(started_at=1)]), known_of(a_tenant())) == []


def test_what_cloudvision_says_that_runs_is_remembered_though_nothing_is_decided():
    nowhere = seen(FIRST, at=500, told=[a_tenant()], places=Places())
    assert told(nowhere, rules=TenantRules()) == [a_tenant()]
    plan = plan_tenants(seen(at=500, told=[a_tenant()]), {}, RULES)
    assert [change.after for change in plan.changes] == [a_tenant()]
    assert plan.absences[FIRST.uuid].rounds == 1


def test_what_cloudvision_says_that_ended_stays_ended():
    ended = [a_tenant(state=State.COMPLETED, ended_at=300)]
    (again,) = told(seen(FIRST, at=400, told=ended))
    assert (again.key, again.started_at) == (f"{FIRST.uuid}.1", 400)
    ended.append(replace(ended[0], key=f"{FIRST.uuid}.3"))
    assert told(seen(FIRST, at=400, told=ended))[0].key == f"{FIRST.uuid}.4"
    assert told(seen(at=400, told=ended)) == []


def test_who_comes_back_gets_another_key():
    ended = a_tenant(state=State.COMPLETED, ended_at=300)
    (again,) = told(seen(FIRST, at=400), known_of(ended))
    assert (again.key, again.started_at, again.ended_at) == (f"{FIRST.uuid}.1", 400, None)
    assert told(seen(FIRST, at=500), known_of(ended, again)) == []


@pytest.mark.parametrize("state", [ResourceState.CREATING, ResourceState.ERRED, None])
def test_what_is_no_tenant_yet_is_not_told(state):
    assert told(seen(replace(FIRST, state=state))) == []


def test_a_create_that_failed_after_a_report_is_failed():
    bare = TenantsSeen(a_tenancy(resources=(replace(FIRST, state=ResourceState.ERRED),), at=300), Places())
    assert told(bare, known_of(a_tenant())) == [a_tenant(state=State.FAILED, ended_at=300)]
    # An update that failed leaves the account and its nodes.
    assert told(seen(replace(FIRST, state=ResourceState.ERRED)), known_of(a_tenant())) == []


def test_what_the_portal_does_not_know_any_more_ends_after_some_rounds_and_never_much_at_once():
    before, left = known_of(a_tenant()), seen(at=300, sought={FIRST.uuid: None})
    for _ in range(2):
        plan = plan_tenants(left, before, RULES)
        assert plan.changes == []
        before = {key: Known(item.document, plan.absences[key]) for key, item in before.items()}
    assert [config.state for config in told(left, before)] == [State.COMPLETED]
    assert told(replace(left, tenancy=replace(left.tenancy, problems=("one cannot be read",))), before) == []
    (item,) = before.values()
    names = [f"k{number}" for number in range(11)]
    many = {name: replace(item, document=replace(item.document, key=name, resource=name)) for name in names}
    # It was asked for some of them only, and yet all of them are what is too much.
    plan = plan_tenants(seen(at=300, sought=dict.fromkeys(names[:2])), many, RULES)
    assert plan.changes == []
    assert len(plan.refused) == 2
    assert plan.refusal.startswith("11 of 11 tenants")


@pytest.mark.parametrize("state", [ResourceState.OK, ResourceState.UPDATING, ResourceState.CREATING, None])
def test_what_a_list_leaves_out_and_the_portal_still_has_does_not_end(state):
    overdue = {FIRST.uuid: Known(a_tenant(), Absence(5, 100))}
    plan = plan_tenants(seen(at=300, sought={FIRST.uuid: replace(FIRST, state=state)}), overdue, RULES)
    assert plan.changes == []
    assert "the portal still has it" in plan.problems[0]
    assert told(seen(at=300), overdue) == []


def test_what_the_portal_says_to_be_terminated_ends_at_once():
    over = seen(at=300, sought={FIRST.uuid: replace(FIRST, state=ResourceState.TERMINATED)})
    ended = [a_tenant(state=State.COMPLETED, ended_at=300)]
    assert told(over, known_of(a_tenant())) == ended
    assert told(replace(over, told={FIRST.uuid: a_tenant()})) == ended


def test_a_tenant_without_nodes_keeps_what_was_told():
    plan = plan_tenants(seen(FIRST, at=300, places=Places()), known_of(a_tenant()), TenantRules())
    assert plan.changes == []
    assert "nothing names its nodes any more" in plan.problems[0]


def test_on_one_node_the_older_tenant_stays():
    places = Places(jobs={ACCOUNT: ["n[1-2]"], SECOND_ACCOUNT: ["n[2-3]"]})
    rules = TenantRules(PlaceRules(("jobs",)))
    plan = plan_tenants(seen(SECOND, FIRST, at=300, places=places), known_of(a_tenant()), rules)
    (change,) = plan.changes
    assert (change.after.name, change.after.nodes) == (SECOND_ACCOUNT, ("n3",))
    assert f"n2: {ACCOUNT}" in plan.problems[0]
