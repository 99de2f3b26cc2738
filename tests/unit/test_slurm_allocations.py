"""When Slurm is asked what runs hold, and what is made of the answer."""

import pytest
from fakes import FakeSlurm, Record, a_document, known_of, node_facts_of
from msgspec import json

from cvagent.clients.slurm import Slurm
from cvagent.errors import CommandFailed, Unreadable
from cvagent.model import Ask, Change, Identity, Plan
from cvagent.model.holdings import Allocation, Grant, Sharing
from cvagent.sources.slurm_allocations import Allocations
from cvagent.sources.slurm_jobs import SlurmJobs
from cvagent.store.outbox import SqlOutbox

NOW = 10_000
SHARED = Record(1, "RUNNING", 9_000, 9_010, nodes="node1")
ALONE = Record(2, "RUNNING", 9_000, 9_010, nodes="node2", sharing="NO")
TWO_GPUS = "Nodes=node1 CPU_IDs=0-1 Mem=1 GRES=gpu:h100:2(IDX:0-1)"
FACTS = {name: json.encode(node_facts_of(name)) for name in ("node1", "node2")}


@pytest.fixture
def store():
    outbox = SqlOutbox("sqlite://", "lab")
    outbox.facts().keep(FACTS, 100)
    yield outbox
    outbox.close()


@pytest.fixture
def make(store):
    def made(*live, everything=False):
        fake = FakeSlurm(live)
        fake.parts = {1: TWO_GPUS}
        fake.sizes = {"node1": (8, "gpu:h100:8(S:0-1)"), "node2": (2, "(null)")}
        slurm = Slurm(fake, timeout_s=10)
        return SlurmJobs(slurm, Allocations(slurm, store.facts(), everything=everything)), fake

    return made


def ask(*documents, now=NOW):
    return Ask(now=now, since=now - 600, known=known_of(*documents), cold=False)


def told(job, **changes):
    return a_document(
        f"{job.job_id}@lab", **({"submitted_at": 9_000, "started_at": 9_010, "nodes": job.nodes} | changes)
    )


def questions(fake):
    return [command[-1] for command in fake.asked("scontrol") if command[-1] != "config"]


def test_a_new_run_on_a_shared_node_is_asked_about(make):
    source, fake = make(SHARED)
    seen = source.observe(ask())
    assert seen.allocations == {
        Identity(1, 9_000): Allocation(NOW, {"node1": Grant({"gpu": (0, 1)}, False, {"gpu": 8})})
    }
    assert seen.facts.keys() == {"node1"}
    assert questions(fake) == ["job", "node"]


def test_runs_alone_on_their_nodes_cost_no_question(make):
    source, fake = make(ALONE)
    seen = source.observe(ask())
    assert (seen.allocations, seen.facts, questions(fake)) == ({}, {}, [])


def test_by_setting_their_interfaces_are_looked_up_without_a_question(make):
    source, fake = make(ALONE, everything=True)
    seen = source.observe(ask())
    assert seen.allocations == {Identity(2, 9_000): Allocation(NOW, {"node2": Grant({}, whole=True)})}
    assert (list(seen.facts), questions(fake)) == (["node2"], [])


def test_one_question_for_many_and_none_for_what_is_known(make):
    many = [SHARED._replace(job_id=job_id) for job_id in range(1, 100)]
    source, fake = make(*many)
    fake.parts = dict.fromkeys(range(1, 100), TWO_GPUS)
    assert len(source.observe(ask()).allocations) == 99
    assert questions(fake) == ["job", "node"]
    source.observe(ask(*map(told, many), now=NOW + 30))
    assert questions(fake) == ["job", "node"]
    fake.live.append(SHARED._replace(job_id=100))
    fake.parts[100] = TWO_GPUS
    source.observe(ask(*map(told, many), now=NOW + 60))
    assert questions(fake) == ["job", "node", "job"]


def test_a_run_that_is_never_told_is_asked_about_once(make):
    source, fake = make(SHARED)
    for later in range(0, 3600, 30):
        source.observe(ask(now=NOW + later))
    assert questions(fake).count("job") == 1


def test_what_was_said_stays_until_it_is_told_and_for_a_while_after_the_run_is_gone(make):
    source, fake = make(SHARED)
    first = source.observe(ask()).allocations
    fake.live.clear()
    assert source.observe(ask(now=NOW + 30)).allocations == first
    assert source.observe(ask(told(SHARED), now=NOW + 60)).allocations == {}


@pytest.mark.parametrize("word", ["COMPLETING", "COMPLETED", "FAILED", "CONFIGURING"])
def test_a_run_that_holds_nothing_any_more_or_yet_is_not_asked_about(make, word):
    source, fake = make(SHARED._replace(state=word))
    assert source.observe(ask()).allocations == {}
    assert questions(fake) == []


def test_all_cpus_that_jobs_can_have_are_the_whole_node(make):
    source, fake = make(SHARED)
    fake.parts[1] = "Nodes=node1 CPU_IDs=0-7 Mem=1 GRES="
    [granted] = source.observe(ask()).allocations.values()
    assert granted.grants["node1"].whole


def test_a_run_told_by_interfaces_is_asked_about_again_on_other_nodes(make):
    moved = SHARED._replace(nodes="node[1-2]")
    source, fake = make(moved)
    fake.parts[1] = f"{TWO_GPUS} Nodes=node2 CPU_IDs=0 Mem=1 GRES="
    known = told(SHARED, sharing=Sharing.INTERFACES)
    [granted] = source.observe(ask(known)).allocations.values()
    assert granted.grants.keys() == {"node1", "node2"}
    assert source.observe(ask(told(moved, sharing=Sharing.INTERFACES))).allocations == {}
    assert source.observe(ask(told(SHARED, sharing=Sharing.SHARED))).allocations == {}


@pytest.mark.parametrize(
    ("parts", "doubt"),
    [
        ({}, "Slurm did not tell what it holds"),
        ({1: "Nodes=node2 CPU_IDs=0 Mem=1 GRES="}, "Slurm did not tell what it holds"),
        ({1: f"{TWO_GPUS} Nodes=node2 CPU_IDs=0 Mem=1 GRES="}, "Slurm did not tell what it holds"),
        ({1: f"{TWO_GPUS} MinCPUsNode=1 JOB_GRES=gpu:8 {TWO_GPUS}"}, "a name or comment looks like Slurm's own word"),
    ],
)
def test_what_is_not_believed(make, parts, doubt):
    source, fake = make(SHARED)
    fake.parts = parts
    [granted] = source.observe(ask()).allocations.values()
    assert granted.grants == {}
    assert granted.doubt.startswith(doubt)


def test_a_node_of_unknown_size_is_looked_up_once(make):
    source, fake = make(SHARED)
    del fake.sizes["node1"]
    [granted] = source.observe(ask()).allocations.values()
    assert granted.doubt == "Slurm did not tell the size of node1"
    assert questions(fake) == ["job", "node"]


def test_a_node_that_told_nothing_readable_has_no_facts(make, store):
    store.facts().keep({"node1": b"[]"}, 200)
    source, _ = make(SHARED)
    assert source.observe(ask()).facts == {}


@pytest.mark.parametrize("broken", ["no answer", b"garbage"])
def test_no_answer_is_no_observation(make, broken):
    source, fake = make(SHARED)
    source.observe(ask(told(SHARED)))
    fake.broken["scontrol"] = broken
    with pytest.raises((CommandFailed, Unreadable)):
        source.observe(ask())
    fake.broken.clear()
    assert source.observe(ask()).allocations


def test_what_was_told_survives_in_the_store(make, store):
    source, _ = make(SHARED)
    source.observe(ask())
    known = told(SHARED, sharing=Sharing.INTERFACES)
    store.record("jobs", ["cloudvision_jobs"], Plan([Change(None, known, "new")]), 1.0, 1)
    again = store.known("cloudvision_jobs", 0)
    assert [item.document for item in again.values()] == [known]
