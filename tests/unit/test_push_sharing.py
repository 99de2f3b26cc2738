"""Nodes or interfaces: the ladder, and what becomes of a run that was told."""

import re

import pytest
from fakes import a_document, an_observation, node_facts_of
from msgspec.structs import replace

from cvagent.model import Identity, Known, Run, State
from cvagent.model.holdings import Allocation, Grant, Holding, How, Sharing
from cvagent.model.nodes import Gpu, Interface
from cvagent.push.jobs import JobRules, plan_jobs
from cvagent.push.sharing import SharingRules

ANY = re.compile("")
NOW = 1000
RULES = JobRules("lab", name_filter=ANY, partition_filter=ANY)
FIRST, LAST = Identity(1, 100), 8
TOLD = a_document("1@lab", nodes="node1", sharing=Sharing.INTERFACES)


def run_on(nodes="node1", word="RUNNING", ended_at=None, *, exclusive=False):
    return Run(FIRST, word, 110, ended_at, "batch", nodes, "train", 0, exclusive=exclusive)


def accounted(ended_at=200, nodes="node1"):
    return Run(FIRST, "COMPLETED", 110, ended_at, "batch", nodes, "train")


def facts_of(node, number=1):
    """A node with a GPU and a NIC on each of eight switches."""
    switches = [("pci0000:00", f"0000:0{i}:01.0", f"0000:0{i}:02.0") for i in range(LAST)]
    ports = (
        Interface(f"ens{i}", mac(i, number), pci=f"0000:1{i}:00.0", pci_path=(*switch, f"0000:1{i}:00.0"), rdma=f"m{i}")
        for i, switch in enumerate(switches)
    )
    gpus = tuple(Gpu(i, f"0000:2{i}:00.0", (*switch, f"0000:2{i}:00.0")) for i, switch in enumerate(switches))
    return node_facts_of(node, *ports, Interface("eno1", mac(9, number), pci="0000:90:00.0"), gpus=gpus)


def mac(port, node=1):
    return f"94:6d:ae:00:{node:02x}:{port:02x}"


def macs(*ports, node=1):
    return tuple(mac(port, node) for port in ports)


FACTS = {"node1": facts_of("node1"), "node2": facts_of("node2", 2)}
FOUR = Grant({"gpu": (0, 1, 2, 3)}, counted={"gpu": 8, "nic": 8})
WHOLE = Grant({"gpu": tuple(range(8))}, whole=True)


def seen(grants=None, *, run=None, facts=FACTS, doubt="", at=NOW, asked_at=NOW, ended=()):
    run = run or run_on(",".join(grants or {"node1": FOUR}))
    granted = Allocation(asked_at, {} if doubt else grants or {"node1": FOUR}, doubt)
    return an_observation(at, [run], ended, allocations={FIRST: granted}, facts=facts)


def told(observed, *documents, **rules):
    """The one document that is to be written; None when there is none."""
    sharing = SharingRules(**rules)
    made = plan_jobs(observed, {one.identity: Known(one) for one in documents}, replace(RULES, sharing=sharing))
    return next(iter([change.after for change in made.changes]), None)


def test_gpus_on_a_shared_node_lead_to_interfaces():
    document = told(seen())
    assert (document.sharing, document.macs) == (Sharing.INTERFACES, macs(0, 1, 2, 3))
    assert [link.index for link in document.holdings[0].links] == [0, 1, 2, 3]
    assert document.holdings[0].how is How.INFERRED


def test_nics_on_a_shared_node_are_exact():
    document = told(seen({"node1": Grant({"nic": (7,)}, counted={"nic": 8})}))
    assert (document.macs, document.holdings[0].how) == (macs(7), How.EXACT)


@pytest.mark.parametrize("resources", ["auto", "node"])
def test_a_run_that_asked_for_its_nodes_alone_is_told_by_them(resources):
    document = told(an_observation(NOW, [run_on(exclusive=True)]), resources=resources)
    assert (document.sharing, document.macs, document.nodes) == (Sharing.OWN, (), "node1")


def test_a_run_with_all_cpus_of_its_nodes_has_them_to_itself():
    document = told(seen({"node1": WHOLE, "node2": WHOLE}))
    assert (document.sharing, document.macs, document.holdings) == (Sharing.OWN, (), ())


def test_an_exclusive_and_a_shared_node_are_united():
    document = told(seen({"node1": WHOLE, "node2": FOUR}))
    assert document.macs == (*macs(*range(8), 9), *macs(0, 1, 2, 3, node=2))
    assert [holding.how for holding in document.holdings] == [How.EXACT, How.INFERRED]


def test_by_setting_a_whole_node_is_told_by_its_interfaces():
    document = told(seen({"node1": WHOLE}), resources="interface")
    assert (document.sharing, document.macs) == (Sharing.INTERFACES, macs(*range(8), 9))


def test_filters_count():
    document = told(seen({"node1": WHOLE, "node2": FOUR}), interface_filter=re.compile("^ens[01]"))
    assert document.macs == (*macs(0, 1), *macs(0, 1, node=2))


@pytest.mark.parametrize(
    ("grants", "facts", "reason"),
    [
        ({"node1": Grant({})}, FACTS, "it holds no GPU, and no NIC that Slurm tells of"),
        ({"node1": Grant({"nic": None})}, FACTS, "it holds no GPU, and no NIC that Slurm tells of"),
        ({"node1": Grant({"gpu": None})}, FACTS, "Slurm does not tell which GPUs it holds"),
        ({"node1": FOUR, "node2": Grant({})}, FACTS, "it holds no GPU, and no NIC that Slurm tells of"),
        ({"node1": Grant({"gpu": (0,)}, counted={"gpu": 56})}, FACTS, "Slurm counts 56 GPUs and the inventory 8"),
        ({"node2": WHOLE, "node1": FOUR}, {"node1": FACTS["node1"]}, "it has not told its interfaces"),
    ],
)
def test_one_node_that_cannot_be_resolved_makes_it_node_mode_marked_shared(grants, facts, reason):
    document = told(seen(grants, facts=facts, at=NOW + 180))
    assert (document.sharing, document.macs) == (Sharing.SHARED, ())
    assert reason in [holding.reason for holding in document.holdings]


def test_what_may_be_forged_is_not_believed():
    document = told(seen(doubt="forged"))
    assert (document.sharing, document.holdings) == (
        Sharing.SHARED,
        (Holding("node1", How.UNRESOLVED, (), "forged"),),
    )


def test_a_node_that_never_told_its_interfaces_is_waited_for_a_while():
    assert told(seen(facts={}, at=NOW + 179)) is None
    assert told(seen(facts={}, at=NOW + 180)).sharing is Sharing.SHARED
    assert told(seen(at=NOW + 179)).sharing is Sharing.INTERFACES


@pytest.mark.parametrize("held", [{}, {"gpu": None}])
def test_no_node_is_waited_for_that_can_tell_nothing_of_use(held):
    document = told(seen({"node1": Grant(held)}, facts={}))
    assert document.sharing is Sharing.SHARED


def test_no_run_waits_beyond_its_end():
    over = seen(facts={}, run=run_on(word="COMPLETING"), ended=[accounted()])
    document = told(over)
    assert (document.state, document.sharing) == (State.COMPLETED, Sharing.SHARED)
    assert told(seen(run=run_on(word="COMPLETING"), ended=[accounted()])).macs == macs(0, 1, 2, 3)


def test_a_run_that_nobody_saw_running_is_told_by_its_nodes():
    document = told(an_observation(NOW, accounted=[accounted()]))
    assert (document.sharing, document.holdings) == (Sharing.UNKNOWN, ())


@pytest.mark.parametrize("ended", [run_on(word="COMPLETED", ended_at=200), accounted()])
def test_interfaces_stay_when_the_run_ends(ended):
    running = told(seen())
    where = "live" if ended.restarts is not None else "accounted"
    after = told(an_observation(NOW, **{where: [ended]}), running)
    assert after == replace(running, state=State.COMPLETED, ended_at=200)


def test_an_end_by_inference_keeps_the_interfaces():
    running = told(seen())
    item = Known(running, absence=replace(Known(running).absence, rounds=2, since=900))
    [change] = plan_jobs(an_observation(NOW), {FIRST: item}, RULES).changes
    assert (change.after.macs, change.after.inferred) == (running.macs, True)


def test_a_run_told_by_its_nodes_never_changes_to_interfaces():
    by_nodes = a_document("1@lab", nodes="node1", sharing=Sharing.SHARED)
    assert told(seen(), by_nodes) is None
    after = told(seen({"node1": FOUR, "node2": FOUR}), by_nodes)
    assert (after.nodes, after.macs) == ("node1,node2", ())


def test_a_run_that_moved_is_told_by_its_new_interfaces_once_they_are_known():
    running = told(seen({"node1": FOUR, "node2": FOUR}))
    assert told(seen({"node1": FOUR}), running).macs == macs(0, 1, 2, 3)
    assert told(seen({"node1": Grant({})}), running).macs == running.macs
    assert told(seen(run=run_on("node1"), doubt="forged"), running).macs == running.macs
