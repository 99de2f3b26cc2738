"""Set, Get, Delete and their batches; what is remembered."""

import pytest
from standin_client import ended, interface, job, node, objects

from cvagent.standin import StandIn


def test_set_leaves_unsent_fields_and_replaces_lists(stand_in, client):
    client.post("JobConfig", job(type="JOB_TYPE_TENANT", nodes={"values": ["a", "b", "c"]}))
    client.post("JobConfig", ended(nodes={"values": ["b"]}))
    stored = stand_in.jobs["4711@lab"]
    assert stored == ended(type="JOB_TYPE_TENANT", nodes={"values": ["b"]})
    assert stand_in.violations == []


def test_a_node_replaces_its_interfaces(stand_in, client):
    client.post("NodeConfig", node(data_interfaces={"values": [interface(), interface(name="ens1f1")]}))
    client.post("NodeConfig", node())
    assert stand_in.nodes["node1"] == node()


def test_a_job_set_back_to_running_keeps_its_end_and_is_a_violation(stand_in, client):
    client.post("JobConfig", ended())
    assert client.post("JobConfig", job()).status_code == 200
    assert stand_in.jobs["4711@lab"]["end_time"] == ended()["end_time"]
    assert stand_in.violations == [
        "JobConfig 4711@lab was JOB_STATE_COMPLETED and was set back to JOB_STATE_RUNNING",
        "JobConfig 4711@lab is JOB_STATE_RUNNING and keeps the end_time of an earlier write",
    ]


def test_nodes_and_interfaces_of_two_writes_are_a_violation(stand_in, client):
    client.post("JobConfig", job())
    client.post("JobConfig", job(nodes=None, interfaces={"values": ["0c:42:a1:00:00:01"]}))
    assert stand_in.violations == ["JobConfig 4711@lab holds both nodes and interfaces"]


def test_saying_it_twice_is_no_violation(stand_in, client):
    for document in (job(), job(), ended(), ended(), ended(state="JOB_STATE_FAILED")):
        assert client.post("JobConfig", document).status_code == 200
    assert stand_in.violations == []


def test_a_read_answers_in_camel_case(client):
    written = client.post("JobConfig", ended()).json()
    read = client.get("JobConfig?key.id=4711@lab")
    assert read.json() == written
    assert read.json()["value"]["endTime"] == "2026-03-01T11:30:00Z"
    assert read.json()["time"].endswith("Z")
    client.post("NodeConfig", node())
    found = client.get("NodeConfig", params={"key.id": "node1"}).json()["value"]["dataInterfaces"]["values"]
    assert found == [{"name": "ens1f0", "macAddress": "0c:42:a1:00:00:01", "ipAddresses": {"values": ["10.88.1.1"]}}]


def test_what_is_absent_is_not_found(client):
    answer = client.get("JobConfig?key.id=1@lab")
    assert (answer.status_code, answer.json()["code"]) == (404, 5)


def test_a_node_is_deleted_and_may_be_deleted_again(stand_in, client):
    client.post("NodeConfig", node())
    for _ in range(2):
        answer = client.ask("DELETE", "NodeConfig?key.id=node1")
        assert answer.json()["key"] == {"id": "node1"}
    assert stand_in.nodes == {}
    assert [write.document for write in stand_in.history] == [node(), None, None]


def test_all_is_a_stream_of_objects(client):
    assert objects(client.get("JobConfig/all")) == []
    for key in ("1@lab", "2@lab"):
        client.post("JobConfig", job(key))
    results = [one["result"] for one in objects(client.get("JobConfig/all"))]
    assert [one["value"]["key"]["id"] for one in results] == ["1@lab", "2@lab"]
    assert {one["type"] for one in results} == {"INITIAL"}
    assert results[0]["value"]["startTime"] == "2026-03-01T10:30:00Z"


def test_a_long_stream_comes_whole(client):
    client.post("JobConfig/some", {"values": [job(f"{number}@lab") for number in range(2_000)]})
    found = objects(client.get("JobConfig/all"))
    assert [one["result"]["value"]["key"]["id"] for one in found] == [f"{number}@lab" for number in range(2_000)]


@pytest.mark.parametrize(
    ("filters", "keys"),
    [
        ([], ["1@lab", "2@lab", "3@far"]),
        ([{"location": "lab"}], ["1@lab", "2@lab"]),
        ([{"location": "lab", "state": "JOB_STATE_RUNNING"}], ["1@lab"]),
        ([{"key": {"id": "3@far"}}, {"state": "JOB_STATE_COMPLETED"}], ["2@lab", "3@far"]),
        ([{"end_time": "2026-03-01T11:30:00Z"}], ["2@lab"]),
        ([{"endTime": "2026-03-01T11:30:00Z"}], ["2@lab"]),
        ([{"nodes": {"values": ["node1"]}}], []),
        ([{"location": "nowhere"}], []),
    ],
)
def test_all_is_filtered(client, filters, keys):
    client.post("JobConfig/some", {"values": [job("1@lab"), ended("2@lab"), job("3@far", location="far")]})
    found = objects(client.post("JobConfig/all", {"partialEqFilter": filters}))
    assert [one["result"]["value"]["key"]["id"] for one in found] == keys


@pytest.mark.parametrize("body", [{"filter": []}, {"partialEqFilter": {}}, {"partialEqFilter": [{"user": "eve"}]}])
def test_a_wrong_filter_is_refused(client, body):
    assert client.post("JobConfig/all", body).status_code == 400


def test_a_batch_lists_only_what_failed(stand_in, client):
    values = [job("1@lab"), job("2@lab", user="eve"), job("3@lab"), "no object", job(key={"id": ""})]
    answer = client.post("JobConfig/some", {"values": values})
    assert answer.status_code == 200
    assert [one["result"]["key"]["id"] for one in objects(answer)] == ["2@lab", "", ""]
    assert objects(answer)[0]["result"]["error"] == "JobConfig.user: unknown field"
    assert list(stand_in.jobs) == ["1@lab", "3@lab"]


def test_a_batch_that_went_well_is_an_empty_stream(stand_in, client):
    assert client.post("NodeConfig/some", {"values": [node("a"), node("b")]}).text == ""
    assert client.post("NodeConfig/deletesome", {"keys": [{"id": "a"}]}).text == ""
    assert list(stand_in.nodes) == ["b"]


def test_a_batch_of_deletions_lists_wrong_keys(client):
    answer = client.post("NodeConfig/deletesome", {"keys": [{"id": ""}, {"id": "a", "x": 1}, {"id": "b"}]})
    assert [one["result"]["key"] for one in objects(answer)] == [{"id": ""}, {"id": "a"}]


@pytest.mark.parametrize("body", [None, [], {}, {"values": {}}, {"values": [], "more": 1}, {"keys": []}])
def test_a_body_that_is_no_batch_is_refused(client, body):
    assert client.post("JobConfig/some", body).status_code == 400


@pytest.mark.parametrize("kind", ["JobConfig", "NodeConfig"])
def test_deleting_all_is_refused_and_a_violation_even_without_a_token(stand_in, client, kind):
    client.post("JobConfig", job())
    answer = client.ask("DELETE", f"{kind}/all")
    assert (answer.status_code, answer.json()["code"]) == (403, 7)
    client.token = "wrong"
    client.ask("DELETE", f"{kind}/all")
    assert stand_in.violations == [f"DELETE /api/resources/computejob/v1/{kind}/all was sent"] * 2
    assert list(stand_in.jobs) == ["4711@lab"]


def test_batch_routes_can_be_missing(connect):
    with StandIn(batch=False) as stand_in:
        client = connect(stand_in)
        assert client.post("JobConfig/some", {"values": [job()]}).status_code == 404
        assert client.post("NodeConfig/deletesome", {"keys": [{"id": "a"}]}).status_code == 404
        assert client.post("JobConfig", job()).status_code == 200


def test_reads_can_be_missing(connect):
    with StandIn(reads=False) as stand_in:
        client = connect(stand_in)
        assert client.post("JobConfig", job()).status_code == 200
        for method, path in (
            ("GET", "JobConfig?key.id=4711@lab"),
            ("GET", "JobConfig/all"),
            ("POST", "NodeConfig/all"),
        ):
            answer = client.ask(method, path)
            assert (answer.status_code, answer.json()["code"]) == (501, 12)


def test_history_and_requests_tell_what_came(stand_in, client):
    client.post("JobConfig", job("1@lab"))
    client.post("JobConfig", job("2@lab", user="eve"))
    client.post("JobConfig/some", {"values": [job("3@lab"), job("4@lab")]})
    client.get("JobConfig/all")
    assert [(write.kind, write.key) for write in stand_in.history] == [
        ("JobConfig", "1@lab"),
        ("JobConfig", "3@lab"),
        ("JobConfig", "4@lab"),
    ]
    assert [(asked.method, asked.key, asked.keys, asked.status) for asked in stand_in.requests] == [
        ("POST", "1@lab", 1, 200),
        ("POST", "2@lab", 1, 400),
        ("POST", "", 2, 200),
        ("GET", "", 0, 200),
    ]
    assert stand_in.requests_total == 4
    assert stand_in.connections == 1


def test_the_newest_write_stands_last(stand_in, client):
    for key in ("1@lab", "2@lab", "1@lab"):
        client.post("JobConfig", job(key))
    assert list(stand_in.jobs) == ["2@lab", "1@lab"]
