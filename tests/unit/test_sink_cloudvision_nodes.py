"""Nodes on the wire, and what each answer of a real HTTP server means for their delivery."""

import pytest
from fakes import a_document, a_node

from cvagent.clients.cloudvision import CloudVision
from cvagent.errors import Permanent
from cvagent.model import Accepted, Deferred, Entry, NodeConfig, Refused
from cvagent.sinks.cloudvision_nodes import CloudVisionNodes, document
from cvagent.standin import TOKEN, StandIn

PLAIN = "/api/resources/computejob/v1/NodeConfig"


class Token:
    def value(self):
        return TOKEN

    def reread(self):
        pass


@pytest.fixture(params=[True, False], ids=["batches", "single writes"])
def server(request):
    with StandIn(batch=request.param) as server:
        yield server
        assert server.violations == []


@pytest.fixture
def sink(server):
    sink = CloudVisionNodes(CloudVision(server.url, Token(), timeout_s=10), "lab")
    yield sink
    sink.close()


def deliver(sink, *nodes):
    return {entry.key: outcome for entry, outcome in sink.deliver([Entry(node.key, 1, node) for node in nodes])}


def test_wire_form():
    assert document(a_node("n1"), "lab") == {
        "key": {"id": "n1"},
        "location": "lab",
        "hostname": "n1",
        "data_interfaces": {
            "values": [
                {"name": "ens1f0", "mac_address": "0c:42:a1:00:00:01", "ip_addresses": {"values": ["10.88.1.1"]}}
            ]
        },
    }


def test_accepted(server, sink):
    assert deliver(sink, a_node("n1"), a_node("n2")) == {"n1": Accepted(), "n2": Accepted()}
    assert server.nodes == {"n1": document(a_node("n1"), "lab"), "n2": document(a_node("n2"), "lab")}


def test_sets_and_deletions_together(server, sink):
    deliver(sink, a_node("n1"), a_node("n2"), a_node("n3"))
    gone = [a_node("n1", ended_at=7), a_node("n2", ended_at=7)]
    assert set(deliver(sink, *gone, a_node("n4")).values()) == {Accepted()}
    assert set(server.nodes) == {"n3", "n4"}


def test_deleting_what_is_not_there_is_done(sink):
    assert deliver(sink, a_node("n 1&key.id=n2", ended_at=7)) == {"n 1&key.id=n2": Accepted()}


def test_retryable(server, sink):
    server.faults("503*9")
    for node in (a_node("n1"), a_node("n1", ended_at=7)):
        outcome = deliver(sink, node)["n1"]
        assert isinstance(outcome, Deferred)
        assert outcome.everything
    assert server.nodes == {}


def test_permanent(sink):
    outcomes = deliver(sink, NodeConfig("n1", "another", a_node("n1").interfaces), a_node("n2"))
    assert isinstance(outcomes["n1"], Refused)
    assert outcomes["n2"] == Accepted()


@pytest.mark.parametrize("wrong", [a_document(), NodeConfig("n1", "n1", ())])
def test_what_cannot_be_told(wrong):
    with pytest.raises(Permanent):
        document(wrong, "lab")
