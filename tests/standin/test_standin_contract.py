"""Each rule of the wire contract, over real HTTP."""

import pytest
from standin_client import API, ended, interface, job, node

MAC = "0c:42:a1:00:00:01"

GOOD_JOBS = {
    "running": job(),
    "ended": ended(),
    "failed": ended(state="JOB_STATE_FAILED"),
    "cancelled": ended(state="JOB_STATE_CANCELLED"),
    "ended as it began": ended(end_time="2026-03-01T10:30:00Z"),
    "ended as it began, with a fraction": ended(end_time="2026-03-01T10:30:00.0Z"),
    "fractions": ended(start_time="2026-03-01T10:30:00.1Z", end_time="2026-03-01T10:30:00.123456789Z"),
    "interface mode": job(nodes=None, interfaces={"values": [MAC]}),
    "tenant": job(type="JOB_TYPE_TENANT"),
    "hostile name": job(name='<script>alert("\u202e")</script>@\x00\ud800'),
}

BAD_JOBS = {
    "no object": (["a"], "JobConfig: must be a JSON object"),
    "unknown field": (job(user="eve"), "JobConfig.user: unknown field"),
    "camelCase field": (job(startTime="2026-03-01T10:30:00Z"), "JobConfig.startTime: unknown field"),
    "unknown field in key": (job(key={"id": "1@lab", "x": 1}), "JobConfig.key.x: unknown field"),
    "unknown field in nodes": (job(nodes={"values": ["a"], "x": 1}), "JobConfig.nodes.x: unknown field"),
    "no key": (job(key=None), "JobConfig.key: is missing"),
    "key without id": (job(key={}), "JobConfig.key.id: is missing"),
    "empty id": (job(key={"id": ""}), "JobConfig.key.id: must be a non-empty string"),
    "id is a number": (job(key={"id": 4711}), "JobConfig.key.id: must be a non-empty string"),
    "key is a text": (job(key="4711@lab"), "JobConfig.key: must be a JSON object"),
    "no name": (job(name=None), "JobConfig.name: is missing"),
    "empty name": (job(name=""), "JobConfig.name: must be a non-empty string"),
    "no location": (job(location=None), "JobConfig.location: is missing"),
    "empty location": (job(location=""), "JobConfig.location: must be a non-empty string"),
    "no state": (job(state=None), "JobConfig.state: is missing"),
    "short state": (job(state="RUNNING"), "JobConfig.state: must be JOB_STATE_RUNNING or"),
    "pending": (job(state="JOB_STATE_PENDING"), "JobConfig.state: must be"),
    "no start": (job(start_time=None), "JobConfig.start_time: is missing"),
    "offset": (job(start_time="2026-03-01T10:30:00+00:00"), "JobConfig.start_time: must be an RFC 3339 time in UTC"),
    "no zone": (job(start_time="2026-03-01T10:30:00"), "JobConfig.start_time: must be"),
    "epoch seconds": (job(start_time=1772361000), "JobConfig.start_time: must be"),
    "no such day": (job(start_time="2026-02-30T10:30:00Z"), "JobConfig.start_time: must be"),
    "blank for T": (job(start_time="2026-03-01 10:30:00Z"), "JobConfig.start_time: must be"),
    "type is empty": (job(type=""), "JobConfig.type: must be JOB_TYPE_TENANT"),
    "other type": (job(type="JOB_TYPE_SLURM"), "JobConfig.type: must be JOB_TYPE_TENANT"),
    "nowhere": (job(nodes=None), "JobConfig: exactly one of nodes and interfaces"),
    "both places": (job(interfaces={"values": [MAC]}), "JobConfig: exactly one of nodes and interfaces"),
    "no values": (job(nodes={}), "JobConfig.nodes.values: is missing"),
    "empty nodes": (job(nodes={"values": []}), "JobConfig.nodes.values: must not be empty"),
    "nodes is a list": (job(nodes=["node1"]), "JobConfig.nodes: must be a JSON object"),
    "nodes is a text": (job(nodes={"values": "node1"}), "JobConfig.nodes.values: must be a list"),
    "nameless node": (job(nodes={"values": ["a", ""]}), "JobConfig.nodes.values[1]: must be a non-empty string"),
    "no interfaces": (job(nodes=None, interfaces={"values": []}), "JobConfig.interfaces.values: must not be empty"),
    "upper case": (
        job(nodes=None, interfaces={"values": [MAC.upper()]}),
        "JobConfig.interfaces.values[0]: must be a MAC",
    ),
    "dashes": (job(nodes=None, interfaces={"values": [MAC.replace(":", "-")]}), "values[0]: must be a MAC"),
    "long MAC": (job(nodes=None, interfaces={"values": [MAC + ":00"]}), "values[0]: must be a MAC"),
    "end while running": (job(end_time="2026-03-01T11:30:00Z"), "JobConfig.end_time: is forbidden while the state is"),
    "ended without end": (ended(end_time=None), "JobConfig.end_time: is missing"),
    "failed without end": (job(state="JOB_STATE_FAILED"), "JobConfig.end_time: is missing"),
    "cancelled without end": (job(state="JOB_STATE_CANCELLED"), "JobConfig.end_time: is missing"),
    "bad end": (ended(end_time="Unknown"), "JobConfig.end_time: must be an RFC 3339 time"),
    "ended before it began": (ended(end_time="2026-03-01T10:29:59Z"), "JobConfig.end_time: is before start_time"),
    "ended a fraction before": (
        ended(start_time="2026-03-01T10:30:00.2Z", end_time="2026-03-01T10:30:00.19Z"),
        "JobConfig.end_time: is before start_time",
    ),
}


def with_interface(**changes):
    return node(data_interfaces={"values": [interface(**changes)]})


INTERFACE = "NodeConfig.data_interfaces.values[0]"

GOOD_NODES = {
    "one interface": node(),
    "no address": with_interface(ip_addresses={"values": []}),
    "IPv6": with_interface(ip_addresses={"values": ["10.88.1.1", "fd00::1"]}),
}

BAD_NODES = {
    "unknown field": (node(nodes={"values": ["a"]}), "NodeConfig.nodes: unknown field"),
    "other hostname": (node(hostname="node1.example.org"), "NodeConfig.hostname: must equal key.id"),
    "no hostname": (node(hostname=None), "NodeConfig.hostname: is missing"),
    "no location": (node(location=None), "NodeConfig.location: is missing"),
    "no interfaces": (node(data_interfaces={"values": []}), "NodeConfig.data_interfaces.values: must not be empty"),
    "no interface field": (node(data_interfaces=None), "NodeConfig.data_interfaces: is missing"),
    "interface is a text": (node(data_interfaces={"values": ["ens1f0"]}), f"{INTERFACE}: must be a JSON object"),
    "unknown interface field": (with_interface(speed=100), f"{INTERFACE}.speed: unknown field"),
    "nameless interface": (with_interface(name=""), f"{INTERFACE}.name: must be a non-empty string"),
    "no MAC": (with_interface(mac_address=None), f"{INTERFACE}.mac_address: is missing"),
    "upper case MAC": (with_interface(mac_address=MAC.upper()), f"{INTERFACE}.mac_address: must be a MAC"),
    "no address list": (with_interface(ip_addresses=None), f"{INTERFACE}.ip_addresses: is missing"),
    "prefix length": (
        with_interface(ip_addresses={"values": ["10.88.1.1/24"]}),
        "ip_addresses.values[0]: must be an IP",
    ),
    "address is a number": (with_interface(ip_addresses={"values": [1]}), "ip_addresses.values[0]: must be an IP"),
}


@pytest.fixture(scope="module")
def client(shared_client):
    return shared_client


@pytest.mark.parametrize("document", GOOD_JOBS.values(), ids=GOOD_JOBS)
def test_a_good_job_is_stored(client, document):
    document = {**document, "key": {"id": "good@" + str(id(document))}}
    answer = client.post("JobConfig", document)
    assert answer.status_code == 200
    assert answer.json().keys() == {"value", "time"}
    assert client.stand_in.jobs[document["key"]["id"]] == document


@pytest.mark.parametrize(("document", "reason"), BAD_JOBS.values(), ids=BAD_JOBS)
def test_a_bad_job_is_refused_with_the_reason(client, document, reason):
    before = client.stand_in.history
    answer = client.post("JobConfig", document)
    assert answer.status_code == 400
    assert answer.json()["code"] == 3
    assert answer.json()["details"] == []
    assert reason in answer.json()["message"]
    assert client.stand_in.history == before


@pytest.mark.parametrize("document", GOOD_NODES.values(), ids=GOOD_NODES)
def test_a_good_node_is_stored(client, document):
    assert client.post("NodeConfig", document).status_code == 200
    assert client.stand_in.nodes["node1"] == document


@pytest.mark.parametrize(("document", "reason"), BAD_NODES.values(), ids=BAD_NODES)
def test_a_bad_node_is_refused_with_the_reason(client, document, reason):
    answer = client.post("NodeConfig", document)
    assert answer.status_code == 400
    assert reason in answer.json()["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"null", b"NaN"])
def test_a_body_that_is_no_json_object_is_refused(client, body):
    url = client.stand_in.url + API + "JobConfig"
    headers = {"authorization": f"Bearer {client.token}"}
    answer = client.session.post(url, data=body, headers=headers, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", "stand-in-token", "Basic stand-in-token"]
)
def test_without_the_token_nothing_is_done(client, authorization):
    before = client.stand_in.history
    headers = {"authorization": authorization} if authorization is not None else {}
    url = client.stand_in.url + API + "JobConfig"
    answer = client.session.post(url, json=job(), headers=headers, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (401, 16)
    assert client.stand_in.history == before


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "Nothing", 404, 5),
        ("GET", "JobConfig/", 404, 5),
        ("POST", "JobConfig/deletesome", 404, 5),
        ("PUT", "JobConfig", 405, 12),
        ("DELETE", "JobConfig?key.id=1@lab", 405, 12),
        ("GET", "JobConfig/some", 405, 12),
        ("GET", "JobConfig", 400, 3),
        ("DELETE", "NodeConfig", 400, 3),
    ],
)
def test_what_is_not_in_the_contract_is_an_error(client, method, path, status, code):
    answer = client.ask(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
