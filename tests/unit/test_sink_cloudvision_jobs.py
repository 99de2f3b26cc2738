import logging
import threading
import time

import pytest
from ClusterShell.NodeSet import NodeSetException

from cvagent.clients.cloudvision import CloudVision
from cvagent.clients.hostlist import unfold, unfold_at_most
from cvagent.errors import Permanent
from cvagent.model import Accepted, Deferred, Entry, JobConfig, Refused, State
from cvagent.model.holdings import Holding, How, Link, Port, Sharing
from cvagent.sinks.cloudvision_jobs import CloudVisionJobs, document
from cvagent.standin import TOKEN, StandIn

BATCH = "/api/resources/computejob/v1/JobConfig/some"


class Token:
    def __init__(self, value=TOKEN):
        self.text = value

    def value(self):
        return self.text

    def reread(self):
        pass


def config(number=1, **changes):
    fields = {
        "key": f"{number}@lab",
        "job_id": number,
        "submitted_at": 1772360000,
        "state": State.RUNNING,
        "started_at": 1772361000,
        "ended_at": None,
        "name": "train",
        "partition": "batch",
        "nodes": "node[1-2]",
    }
    return JobConfig(**(fields | changes))


def entries(*numbers, **changes):
    return [Entry(f"{number}@lab", 1, config(number, **changes)) for number in numbers]


@pytest.fixture
def server():
    with StandIn() as server:
        yield server
        assert server.violations == []


@pytest.fixture
def connect():
    sinks = []

    def connect(server, *, timeout_s=10.0, **options):
        sinks.append(CloudVisionJobs(CloudVision(server.url, Token(), timeout_s=timeout_s), "lab", **options))
        return sinks[-1]

    yield connect
    for sink in sinks:
        sink.close()


def deliver(sink, given):
    """Outcomes by key; each entry has exactly one."""
    told = list(sink.deliver(given))
    assert sorted(entry.key for entry, _ in told) == sorted(entry.key for entry in given)
    return {entry.key: outcome for entry, outcome in told}


def paths(server):
    return [asked.path for asked in server.requests]


def test_wire_form_while_it_runs():
    assert document(config(4711), "lab") == {
        "key": {"id": "4711@lab"},
        "name": "train@batch",
        "state": "JOB_STATE_RUNNING",
        "start_time": "2026-03-01T10:30:00Z",
        "location": "lab",
        "nodes": {"values": ["node1", "node2"]},
    }


@pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED, State.CANCELLED])
def test_wire_form_when_it_ended(state):
    told = document(config(state=state, ended_at=1772361060), "lab")
    assert told["state"] == f"JOB_STATE_{state.value}"
    assert told["end_time"] == "2026-03-01T10:31:00Z"


def test_what_slurm_calls_the_end_of_a_running_job_is_left_out():
    assert "end_time" not in document(config(ended_at=1772361060), "lab")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a\x00b\x1bc\x7fd\x85e", "a\ufffdb\ufffdc\ufffdd\ufffde"),
        ("\udcff\ud800", "\ufffd\ufffd"),
        ("ünï 🚀 'x' \"y\" \\ </script> \u2028", "ünï 🚀 'x' \"y\" \\ </script> \u2028"),
        ("", ""),
    ],
)
def test_names_become_valid_text_and_nothing_else_changes(name, told):
    assert document(config(name=name), "lab")["name"] == f"{told}@batch"


@pytest.mark.parametrize(
    ("hostlist", "nodes"),
    [
        ("node1", "node1"),
        ("node[001-003]", "node001 node002 node003"),
        ("gpu[3,1],cpu1", "gpu3 gpu1 cpu1"),
        ("n[9-11,1]", "n9 n10 n11 n1"),
        ("n[1,001]", "n1 n001"),
        ("r[1-2]n[01-02]", "r1n01 r1n02 r2n01 r2n02"),
        ("a1,a1,a[1-2]", "a1 a2"),
        ("a-b.c.d,x_1", "a-b.c.d x_1"),
        ("x@y", "x@y"),
        ("rack1[9-11],rack2[01,3]", "rack19 rack110 rack111 rack201 rack23"),
        ("n[098-101]", "n098 n099 n100 n101"),
    ],
)
def test_hostlists_keep_slurms_order(hostlist, nodes):
    assert unfold(hostlist) == tuple(nodes.split())


@pytest.mark.parametrize(
    "hostlist", ["node[1-", "node[2-1]", "node[]", "(null)", "a!b", "a&b", "a b", "a*", "n[1]" * 9]
)
def test_no_hostlist(hostlist):
    with pytest.raises((ValueError, NodeSetException)):
        unfold(hostlist)


def test_large_hostlist():
    assert len(unfold("node[00001-20000]")) == 20_000


@pytest.mark.parametrize(
    ("hostlist", "why"),
    [
        ("n[1-3000000]", "more than 4 nodes"),
        ("n[0-9][0-9]", "more than 4 nodes"),
        ("n[1-9999999999999999999999]", "more than 4 nodes"),
        ("n1,n2,n3,n4,n5", "more than 4 nodes"),
        ("n" + "[1]" * 1200, "more than 8 brackets"),
        ("n" + "a1" * 300, "too long for a name"),
        ("," * 70_000, "more than 65536 letters"),
        ("n[1-", "missing bracket"),
        ("n[" + "9" * 5000 + "]", "digits"),
    ],
)
def test_a_strangers_hostlist_is_counted_before_it_is_unfolded(hostlist, why):
    with pytest.raises((ValueError, NodeSetException), match=why):
        unfold_at_most(hostlist, 4)


def test_a_strangers_hostlist_takes_no_time():
    began = time.process_time()
    assert unfold_at_most("a," * 32_000, 65_536) == ("a",)
    assert unfold_at_most("n[" + "1," * 32_000 + "1]", 65_536) == ("n1",)
    assert time.process_time() - began < 3


def test_one_is_written_singly(server, connect):
    assert deliver(connect(server), entries(1)) == {"1@lab": Accepted()}
    assert server.jobs["1@lab"] == document(config(1), "lab")
    assert server.requests[0].path.endswith("/JobConfig")


def test_nothing_to_write(server, connect):
    assert deliver(connect(server), []) == {}
    assert server.requests_total == 0


def test_many_are_written_in_batches(server, connect):
    assert set(deliver(connect(server, batch_size=40), entries(*range(100))).values()) == {Accepted()}
    assert paths(server) == [BATCH] * 3
    assert len(server.jobs) == 100
    assert server.connections == 1


def test_without_batches_singly_for_good(connect):
    with StandIn(batch=False) as server:
        sink = connect(server)
        for numbers in (range(50), range(50, 100)):
            assert set(deliver(sink, entries(*numbers)).values()) == {Accepted()}
        assert paths(server).count(BATCH) == 1
        assert server.requests_total == 101
        assert server.connections <= 8
        assert len(server.jobs) == 100


def test_the_same_again(server, connect):
    sink = connect(server)
    for _ in range(2):
        assert set(deliver(sink, entries(1, 2)).values()) == {Accepted()}
    assert len(server.jobs) == 2


@pytest.mark.parametrize("batch", [True, False])
def test_refused_ones_do_not_stop_others(connect, batch):
    with StandIn(batch=batch, faults="400@^[37]@") as server:
        told = deliver(connect(server), entries(*range(10)))
        refused = {key for key, outcome in told.items() if isinstance(outcome, Refused)}
        assert refused == {"3@lab", "7@lab"}
        assert told["3@lab"].reason.startswith("CloudVision answered 400: ")
        assert len(server.jobs) == 8


@pytest.mark.parametrize("fault", ["400", "500", "garbage"])
def test_batch_refused_as_a_whole_is_written_singly(server, connect, fault):
    server.faults(f"{fault}*1")
    assert set(deliver(connect(server), entries(*range(5))).values()) == {Accepted()}
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("fault", "text"), [("503", "CloudVision answered 503"), ("reset", "no answer"), ("401", "token")]
)
def test_server_in_trouble_defers_all_and_is_spared(server, connect, fault, text):
    sink = connect(server, batch_size=4)
    server.faults(fault)
    told = deliver(sink, entries(*range(10)))
    assert all(isinstance(outcome, Deferred) and outcome.everything for outcome in told.values())
    assert text in told["0@lab"].reason
    assert told["9@lab"].reason == f"not tried: {told['0@lab'].reason}"
    assert server.requests_total <= 1
    server.faults("")
    assert set(deliver(sink, entries(*range(10))).values()) == {Accepted()}


def test_server_in_trouble_with_single_writes(connect):
    with StandIn(batch=False, faults="404*1,429") as server:
        told = deliver(connect(server, parallel=2), entries(*range(50)))
        tried = [outcome for outcome in told.values() if not outcome.reason.startswith("not tried: ")]
        assert 1 <= len(tried) <= 2
        assert {outcome.after_s for outcome in told.values()} == {1.0}
        assert server.requests_total == 1 + len(tried)


def test_trouble_of_one_document_defers_that_one(connect):
    with StandIn(batch=False) as server:
        sink = connect(server, parallel=1)
        deliver(sink, entries(100, 101))
        server.faults("500*1")
        told = deliver(sink, entries(1, 2, 3))
        assert [type(told[f"{number}@lab"]) for number in (1, 2, 3)] == [Deferred, Accepted, Accepted]
        assert not told["1@lab"].everything


def test_batches_shrink_while_there_is_no_answer_and_grow_again(server, connect):
    sink = connect(server, batch_size=8)
    server.faults("504*2")
    for _ in range(2):
        deliver(sink, entries(*range(8)))
    deliver(sink, entries(*range(16)))
    assert [asked.keys for asked in server.requests] == [8, 4, 2, 4, 8, 2]


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"nodes": ""}, "Slurm names no nodes"),
        ({"nodes": "node[1-"}, "NodeSetParseError: "),
        ({"nodes": "(null)"}, "ValueError: '(null)' is no hostlist"),
        ({"state": State.FAILED}, "is FAILED and has no end"),
    ],
)
def test_what_cannot_be_told_is_refused_alone(connect, batch, changes, text):
    with StandIn(batch=batch) as server:
        told = deliver(connect(server), [*entries(1, 2), *entries(3, **changes)])
        assert told["1@lab"] == told["2@lab"] == Accepted()
        assert text in told["3@lab"].reason
        assert len(server.jobs) == 2


def test_a_bug_is_logged_and_refuses_its_entry_alone(server, connect, caplog):
    broken = [Entry("3@lab", 1, None)]
    with caplog.at_level(logging.ERROR):
        told = deliver(connect(server), [*entries(1, 2), *broken])
    assert told["3@lab"].reason.startswith("AttributeError: ")
    assert told["1@lab"] == Accepted()
    assert "3@lab: could not be written" in caplog.text


def test_no_nodes_is_said_by_the_document_itself():
    with pytest.raises(Permanent, match="Slurm names no nodes"):
        document(config(nodes=""), "lab")


def test_outcomes_come_as_they_are_known(connect):
    with StandIn(batch=False, faults="404*1,ok*1,hang*1") as server:
        told = connect(server, parallel=1, timeout_s=0.5).deliver(entries(1, 2, 3))
        assert next(told)[1] == Accepted()
        assert isinstance(next(told)[1], Deferred)
        assert next(told)[1].reason.startswith("not tried: ")


def test_reader_that_goes_away_ends_the_writing(connect):
    with StandIn(batch=False) as server:
        sink = connect(server, parallel=1)
        told = sink.deliver(entries(*range(2000)))
        next(told)
        told.close()
        sink.close()
        assert server.requests_total < 1000


def test_close_defers_what_has_not_begun(connect):
    with StandIn(batch=False, faults="404*1,ok*1,hang") as server:
        sink = connect(server, parallel=1, timeout_s=0.5)
        told = sink.deliver(entries(*range(20)))
        next(told)
        closing = threading.Thread(target=sink.close)
        closing.start()
        assert {type(outcome) for _, outcome in told} == {Deferred}
        closing.join()
        assert server.requests_total <= 4


def test_after_close_all_is_deferred(server, connect):
    sink = connect(server)
    sink.close()
    told = deliver(sink, entries(1, 2))
    assert set(told.values()) == {Deferred("not tried: the agent stops", everything=True)}


def test_another_token(server, connect):
    sink = connect(server)
    server.token = "another"
    assert isinstance(deliver(sink, entries(1))["1@lab"], Deferred)
    sink.replace_token(Token("another"))
    assert deliver(sink, entries(1)) == {"1@lab": Accepted()}


def test_a_job_told_by_its_interfaces_is_told_no_nodes(server, connect):
    ports = (Port("ens1", "94:6d:ae:00:00:01", None, None), Port("ib0", None, "00:01", None))
    holding = Holding("node1", How.EXACT, (Link("nic", 0, None, None, ports),))
    shown = config(sharing=Sharing.INTERFACES, holdings=(holding,))
    assert [outcome for _, outcome in connect(server).deliver([Entry("1@lab", 1, shown)])] == [Accepted()]
    assert server.jobs["1@lab"]["interfaces"] == {"values": ["94:6d:ae:00:00:01"]}
    assert "nodes" not in server.jobs["1@lab"]


def test_what_is_known_of_interfaces_is_not_sent_while_nodes_are_told():
    holding = Holding("node1", How.EXACT, (Link("nic", 0, None, None, (Port("e", "94:6d:ae:00:00:01", None, None),)),))
    shown = document(config(sharing=Sharing.SHARED, holdings=(holding,)), "lab")
    assert shown["nodes"] == {"values": ["node1", "node2"]}
    assert "interfaces" not in shown
