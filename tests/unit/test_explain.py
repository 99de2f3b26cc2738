"""What `cvagent explain` says of what the store holds."""

import json

import pytest
from fakes import a_document, a_node, node_facts_of

from cvagent.cli.explain_known import mac_of
from cvagent.cli.explain_stories import as_json, job_stories, mac_story, node_story
from cvagent.cli.explain_text import job_lines, mac_lines, node_lines
from cvagent.model import NodeConfig, NodeInterface, Row, State
from cvagent.model.holdings import Holding, How, Link, Nearness, Port, Sharing
from cvagent.model.nodes import Gpu, Interface, Neighbour

FIRST, SECOND = "94:6d:ae:00:00:01", "94:6d:ae:00:00:02"
HOSTILE = "train\x1b[2J\n1@lab\u202e"
NODES = {
    "n1": Row(
        NodeConfig("n1", "n1", (NodeInterface("ens1", FIRST, ("10.0.0.1",)), NodeInterface("ens2", SECOND, ()))),
        "accepted",
        *(0, 5.0, 0.0, 6.0, None),
    )
}
GPU = Link("gpu", 0, "0000:21:00.0", Nearness.SWITCH, (Port("ens1", FIRST, None, "0000:11:00.0"),))
NIC = Link("nic", 1, None, None, (Port("ens2", SECOND, None, "0000:12:00.0"), Port("ib0", None, "00:01", None)))
BY_GPU = a_document("1@lab", nodes="n1", sharing=Sharing.INTERFACES, holdings=(Holding("n1", How.INFERRED, (GPU,)),))
BY_NIC = a_document("2@lab", nodes="n1", sharing=Sharing.INTERFACES, holdings=(Holding("n1", How.EXACT, (NIC,)),))
SHARED = a_document(
    "3@lab", nodes="n[1-2]", sharing=Sharing.SHARED, holdings=(Holding("n2", How.UNRESOLVED, (), "it holds no GPU"),)
)
OWN = a_document("4@lab", nodes="n[1-2]", sharing=Sharing.OWN)
UNASKED = a_document("5@lab", nodes="n1")


def row(document, status="accepted", **changes):
    return Row(document, status, 0, 120.0, 0.0, 130.0 if status == "accepted" else None, None)._replace(**changes)


def told(*documents, job_id=None, nodes=NODES):
    [story] = job_stories([row(one) for one in documents], nodes, job_id or documents[0].job_id)
    return list(job_lines(story))


def holders(mac, *documents, at=None):
    story = mac_story(mac, [row(one) for one in documents], NODES, at, 1000)
    return [(claim.key, claim.sure.value, claim.why) for claim in story.jobs]


def test_a_job_told_by_interfaces():
    assert told(BY_GPU, BY_NIC) == [
        "1@lab  train@batch",
        "  state        RUNNING from 1970-01-01T00:01:50Z",
        "  nodes        n1",
        "  told by      its interfaces, as it may share a node",
        "  CloudVision  accepted this at 1970-01-01T00:02:10Z",
        "  n1: inferred from the PCI tree: the nearest port of each GPU",
        "    GPU 0 at 0000:21:00.0 -> ens1  94:6d:ae:00:00:01  at 0000:11:00.0 (same switch)",
    ]
    assert told(BY_NIC)[-3:] == [
        "  n1: exact",
        "    NIC 1 -> ens2  94:6d:ae:00:00:02  at 0000:12:00.0",
        "    NIC 1 -> ib0  InfiniBand 00:01, which is no MAC",
    ]


def test_a_job_that_shares_its_nodes():
    assert told(SHARED)[3:] == [
        "  told by      its nodes, though it may share them: which interfaces are its own is not known",
        "  CloudVision  accepted this at 1970-01-01T00:02:10Z",
        "  n2: not known: it holds no GPU",
        "  n1: CloudVision was told 2 interfaces of it",
        "    ens1  94:6d:ae:00:00:01  10.0.0.1",
        "    ens2  94:6d:ae:00:00:02",
        "  n2: CloudVision was told 0 interfaces of it",
    ]


def test_an_end_by_inference_is_called_so():
    lost = a_document(nodes="n1", state=State.FAILED, ended_at=200, inferred=True)
    assert "(the end is inferred: Slurm no longer knows it)" in told(lost)[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"status": "pending", "attempts": 1, "error": "503: busy"},
            "has not accepted this yet: it is so since 1970-01-01T00:02:00Z, 1 try in vain: 503: busy",
        ),
        (
            {"status": "set_aside", "attempts": 2, "error": HOSTILE},
            "refused this, set aside after 2 tries in vain: train",
        ),
    ],
)
def test_how_the_delivery_stands(changes, said):
    [story] = job_stories([row(OWN, **({"accepted_at": None} | changes))], NODES, 4)
    assert said in list(job_lines(story))[4]


def test_every_run_is_told_the_oldest_first():
    runs = [row(a_document(f"1{nth}@lab", job_id=1, submitted_at=at)) for nth, at in ((".1", 200), ("", 100))]
    assert [story.key for story in job_stories(runs, {}, 1)] == ["1@lab", "1.1@lab"]
    assert job_stories(runs, {}, 2) == []


def test_many_nodes_are_cut_short_for_people_alone():
    job = a_document(nodes="n[1-100]", sharing=Sharing.OWN)
    assert told(job)[-1] == "  ... and 84 nodes more (--json shows all)"
    [story] = job_stories([row(job)], {}, 1)
    assert len(as_json(story)["nodes"]) == 100


def test_who_holds_a_mac():
    everybody = (BY_GPU, BY_NIC, SHARED, OWN, UNASKED)
    assert holders(FIRST, *everybody) == [
        ("1@lab", "inferred", "GPU 0 at 0000:21:00.0, same switch"),
        ("3@lab", "unresolved", "it may share the node: it holds no GPU"),
        ("4@lab", "exact", "it has the node to itself"),
        ("5@lab", "unresolved", "it may share the node: nobody asked what it held"),
    ]
    assert holders(SECOND, BY_GPU, BY_NIC) == [("2@lab", "exact", "NIC 1")]


@pytest.mark.parametrize(("at", "held"), [(109, False), (110, True), (199, True), (200, False), (None, False)])
def test_who_held_a_mac_then(at, held):
    ended = a_document(nodes="n1", sharing=Sharing.OWN, state=State.COMPLETED, ended_at=200)
    assert bool(holders(FIRST, ended, at=at)) is held


def test_a_mac_in_words():
    story = mac_story(FIRST, [row(BY_GPU)], NODES, 150, 1000)
    assert list(mac_lines(story)) == [
        "94:6d:ae:00:00:01",
        "  port         ens1 of n1",
        "  1970-01-01T00:02:30Z: held by",
        "    1@lab  train@batch  RUNNING from 1970-01-01T00:01:50Z",
        "      inferred from the PCI tree: GPU 0 at 0000:21:00.0, same switch",
    ]
    assert list(mac_lines(mac_story(SECOND, [], NODES, None, 0)))[-1] == "  1970-01-01T00:00:00Z: no job"


def test_a_mac_that_no_node_has_any_more():
    assert "no node has it" in list(mac_lines(mac_story(FIRST, [row(BY_GPU)], {}, None, 0)))[1]
    assert mac_story(FIRST, [row(OWN)], {}, None, 0) is None


@pytest.mark.parametrize("text", ["94-6D-AE-00-00-01", "946d.ae00.0001", " 946dae000001 ", FIRST])
def test_macs_as_people_and_switches_write_them(text):
    assert mac_of(text) == FIRST


@pytest.mark.parametrize("text", ["", "n1", "94:6d:ae:00:00", f"{FIRST}:00", "94:6d:ae:00:00:0g"])
def test_what_is_no_mac(text):
    assert mac_of(text) is None


def test_a_node_with_all_that_it_said():
    port = Interface("ens1", FIRST, ipv4=("10.0.0.1",), state="up", speed_mbps=400_000, pci="0000:11:00.0", numa_node=0)
    gpu = Gpu(0, "0000:21:00.0", numa_node=1, minor=7, vendor="nvidia")
    cable = Neighbour("ens1", "leaf1", "Ethernet7/1")
    facts = node_facts_of("n1", port, gpus=(gpu,), lldp=(cable,), problems=("lldp: OSError",))
    story = node_story("n1", [row(BY_GPU), row(SHARED)], NODES, (facts, 300.0))
    assert list(node_lines(story)) == [
        "n1",
        "  CloudVision  accepted this at 1970-01-01T00:00:06Z",
        "  inventory    read at 1970-01-01T00:05:00Z: 1 interface, 1 GPU",
        "    ens1  94:6d:ae:00:00:01  at 0000:11:00.0  NUMA node 0  up  400000 Mb/s  10.0.0.1  to leaf1 Ethernet7/1",
        "    GPU 0 at 0000:21:00.0, NUMA node 1, /dev/nvidia7",
        "    not read: lldp: OSError",
        "  now: held by",
        "    1@lab  train@batch  RUNNING from 1970-01-01T00:01:50Z",
        "      inferred from the PCI tree: GPU 0 at 0000:21:00.0",
        "    3@lab  train@batch  RUNNING from 1970-01-01T00:01:50Z",
        "      not known: it may share the node: it holds no GPU",
    ]


def test_a_node_that_told_nothing():
    assert list(node_lines(node_story("n2", [row(OWN)], NODES, None)))[1:3] == [
        "  CloudVision  was told nothing of it",
        "  inventory    none: see CVAGENT_NODE_FACTS",
    ]
    gone = {"n3": row(a_node("n3", ended_at=5))}
    assert "it left Slurm, and is deleted" in list(node_lines(node_story("n3", [], gone, None)))[1]
    assert node_story("n9", [row(OWN)], NODES, None) is None


def test_hostile_names_do_not_reach_the_terminal():
    job = a_document(name=HOSTILE, partition=HOSTILE, nodes="n1")
    stories = job_stories([row(job)], NODES, 1)
    lines = [*job_lines(stories[0]), *node_lines(node_story("n1", [row(job)], NODES, None))]
    assert all(line.isprintable() for line in lines)
    assert "train\ufffd[2J\ufffd1@lab\ufffd" in lines[0]
    assert json.loads(json.dumps(as_json(stories)))[0]["name"] == HOSTILE


def test_json_names_every_field():
    [story] = job_stories([row(BY_GPU)], NODES, 1)
    told = json.loads(json.dumps(as_json(story)))
    assert told["holdings"] == [
        {
            "node": "n1",
            "how": "inferred",
            "links": [
                {
                    "gres": "gpu",
                    "index": 0,
                    "gpu": "0000:21:00.0",
                    "nearness": "same switch",
                    "ports": [{"name": "ens1", "mac": FIRST, "guid": None, "pci": "0000:11:00.0"}],
                }
            ],
            "reason": "",
        }
    ]
    assert told["cloudvision"]["accepted_at"] == "1970-01-01T00:02:10Z"
