"""Each fault, as a client meets it."""

import pytest
import requests
from standin_client import ended, job, node, objects

from cvagent.standin.faults import Faults

STATUS_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 418: 2, 500: 13, 501: 12, 503: 14, 504: 4}


@pytest.mark.parametrize("status", STATUS_CODES)
def test_a_status_answers_in_grpc_words_and_applies_nothing(stand_in, client, status):
    stand_in.faults(f"{status}*2")
    for _ in range(2):
        answer = client.post("JobConfig", job())
        assert (answer.status_code, answer.json()["code"]) == (status, STATUS_CODES[status])
        assert stand_in.jobs == {}
    assert client.post("JobConfig", job()).status_code == 200


def test_429_says_when_to_come_back(stand_in, client):
    stand_in.faults("429*1")
    answer = client.post("JobConfig", job())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


def test_without_a_count_it_lasts_until_cleared(stand_in, client):
    stand_in.faults("503")
    assert {client.post("JobConfig", job()).status_code for _ in range(5)} == {503}
    stand_in.faults("")
    assert client.post("JobConfig", job()).status_code == 200


def test_faults_come_in_order_and_one_per_request_of_any_kind(stand_in, client):
    stand_in.faults("503*1,ok*2,500*1")
    asked = [
        client.get("JobConfig/all"),
        client.post("JobConfig", job()),
        client.post("NodeConfig", node()),
        client.ask("DELETE", "NodeConfig?key.id=node1"),
        client.get("JobConfig?key.id=4711@lab"),
    ]
    assert [answer.status_code for answer in asked] == [503, 200, 200, 500, 200]
    assert [one.fault for one in stand_in.requests] == ["503", "", "", "500", ""]


def test_hang_never_answers_and_applies_nothing(stand_in, client):
    stand_in.faults("hang*1")
    with pytest.raises(requests.ReadTimeout):
        client.post("JobConfig", job(), timeout_s=0.2)
    assert stand_in.jobs == {}
    assert (stand_in.requests[0].key, stand_in.requests[0].status, stand_in.requests[0].fault) == (
        "4711@lab",
        0,
        "hang",
    )


def test_reset_cuts_the_connection_and_applies_nothing(stand_in, client):
    stand_in.faults("reset*1")
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        client.post("JobConfig", job())
    assert stand_in.jobs == {}
    assert client.post("JobConfig", job()).status_code == 200
    assert stand_in.connections == 2


def test_lost_applies_and_cuts_the_connection(stand_in, client):
    stand_in.faults("lost*1")
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        client.post("JobConfig", job())
    assert stand_in.jobs == {"4711@lab": job()}


def test_garbage_applies_and_answers_no_json(stand_in, client):
    stand_in.faults("garbage*1")
    answer = client.post("JobConfig", job())
    assert answer.status_code == 200
    with pytest.raises(requests.JSONDecodeError):
        answer.json()
    assert stand_in.jobs == {"4711@lab": job()}


def test_redirect_leads_to_itself_and_applies_nothing(stand_in, client):
    stand_in.faults("redirect*1")
    answer = client.post("JobConfig", job())
    assert (answer.status_code, answer.headers["location"]) == (302, "/api/resources/computejob/v1/JobConfig")
    assert stand_in.jobs == {}


def test_a_rule_refuses_job_keys_for_good(stand_in, client):
    stand_in.faults("400@^47.*@lab")
    for document in (job(), job(), ended()):
        answer = client.post("JobConfig", document)
        assert (answer.status_code, answer.json()["code"]) == (400, 3)
        assert "400@^47.*@lab" in answer.json()["message"]
    assert client.post("JobConfig", job("1@lab")).status_code == 200
    failed = objects(client.post("JobConfig/some", {"values": [job(), job("2@lab")]}))
    assert [one["result"]["key"]["id"] for one in failed] == ["4711@lab"]
    assert client.post("NodeConfig", node("4711@lab")).status_code == 200
    assert list(stand_in.jobs) == ["1@lab", "2@lab"]


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("503*20,hung*2", r"'hung\*2'"),
        ("503*0", r"'503\*0'"),
        ("503*", r"'503\*'"),
        ("503*-1", r"'503\*-1'"),
        ("302", "'302'"),
        ("200*1", r"'200\*1'"),
        ("503,,reset", "''"),
        ("HANG", "'HANG'"),
        ("400@(", r"'400@\('"),
    ],
)
def test_a_wrong_spec_names_the_part_and_what_is_allowed(stand_in, spec, part):
    stand_in.faults("hang*3")
    with pytest.raises(ValueError, match=f"(?s)fault {part} .*allowed, separated by commas: .*redirect"):
        stand_in.faults(spec)
    assert Faults("hang*3").left() == "hang*3"


def test_what_would_never_be_reached_is_refused():
    with pytest.raises(ValueError, match=r"'hang\*2' is never reached: '503' has no \*N"):
        Faults("503,hang*2")


def test_what_is_left_is_a_spec():
    faults = Faults(" 503*20, hang*2 ,400@^a.*b,lost")
    assert faults.left() == "503*20,hang*2,lost,400@^a.*b"
    assert faults.take() == "503"
    assert faults.left() == "503*19,hang*2,lost,400@^a.*b"
    assert [faults.take() for _ in range(23)] == ["503"] * 19 + ["hang"] * 2 + ["lost"] * 2
    assert Faults(faults.left()).left() == "lost,400@^a.*b"
