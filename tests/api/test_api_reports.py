"""POST /nodes/report over real HTTP: who may, what is taken, what hostile senders get."""

import json
import socket

import pytest
import requests

from cvagent.sources.node_reports import MOST_BYTES

SECRET = "nodes-own"
URL = "/nodes/report"


def line(node="n1", **fields):
    return json.dumps({"schema": 1, "hostname": "somewhere", "node": node, "collected_at": 1} | fields)


@pytest.fixture
def server(lab, tmp_path):
    token = tmp_path / "report_token"
    token.write_text(f"{SECRET}\n")
    lab.mailbox.take({"n1", "n2"})
    return lab.serve(node_report_token_file=token)


def post(server, body, token=SECRET, **options):
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    return requests.post(server.url + URL, data=body, headers=headers, timeout=5, **options)


def test_a_report_is_taken_and_the_flow_is_woken_once(lab, server):
    assert [post(server, line(node)).status_code for node in ("n1", "n2")] == [202, 202]
    assert lab.woken == 1
    assert lab.mailbox.take({"n1", "n2"}) == {"n1": line("n1").encode(), "n2": line("n2").encode()}
    assert lab.mailbox.take({"n1", "n2"}) == {}


def test_a_node_without_slurms_name_goes_by_its_own(lab, server):
    assert post(server, line(None, hostname="n2.example.org")).status_code == 202
    assert list(lab.mailbox.take({"n2"})) == ["n2"]


@pytest.mark.parametrize("token", [None, "", "wrong", SECRET[:-1], f"{SECRET}x", "n\u00f6"])
def test_no_report_without_the_token(lab, server, token):
    answer = requests.post(
        server.url + URL,
        data=line(),
        headers={} if token is None else {"Authorization": f"Bearer {token}".encode()},
        timeout=5,
    )
    assert answer.status_code == 401
    assert lab.mailbox.take({"n1"}) == {}


def test_the_pages_token_is_no_token_for_reports_nor_the_other_way_round(lab, tmp_path):
    token = tmp_path / "report_token"
    token.write_text(SECRET)
    lab.mailbox.take({"n1"})
    server = lab.serve(token="pages-own", node_report_token_file=token)
    assert post(server, line(), "pages-own").status_code == 401
    assert post(server, line()).status_code == 202
    pages = requests.get(f"{server.url}/", headers={"Authorization": f"Bearer {SECRET}"}, timeout=5)
    assert pages.status_code == 401


def test_without_a_token_file_there_is_no_such_page(lab):
    assert post(lab.serve(), line()).status_code == 404


def test_reports_can_only_be_posted(server):
    answer = requests.get(server.url + URL, headers={"Authorization": f"Bearer {SECRET}"}, timeout=5)
    assert answer.status_code == 405


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "no inventory"),
        ("{}", "missing required field"),
        ("[]", "no inventory"),
        ("x" * 100, "no inventory"),
        (b"\xff\xfe", "no inventory"),
        ("[" * 100_000, "no inventory"),
        (line(interfaces=[{"mac": "AA:00:00:00:00:01"}]), "mac"),
        (line(schema=7), "schema 7"),
        (line(hostname=5), "hostname"),
    ],
)
def test_hostile_json_is_answered_with_the_reason(lab, server, body, why):
    answer = post(server, body)
    assert answer.status_code == 400
    assert why in answer.text
    assert lab.mailbox.take({"n1"}) == {}


def test_a_node_that_slurm_does_not_know_cannot_report(lab, server):
    answer = post(server, line("evil"))
    assert (answer.status_code, "Slurm knows no such node" in answer.text) == (404, True)
    assert lab.mailbox.take({"evil"}) == {}


def test_before_slurm_was_asked_nobody_can_report(lab, tmp_path):
    token = tmp_path / "report_token"
    token.write_text(SECRET)
    answer = post(lab.serve(node_report_token_file=token), line())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


def test_too_much_is_refused(server):
    assert post(server, line(boot_id="x" * MOST_BYTES)).status_code == 413
    endless = (b"x" * 65536 for _ in range(2 + MOST_BYTES // 65536))
    assert post(server, endless).status_code == 413


def test_a_node_cannot_report_all_the_time(server):
    assert post(server, line()).status_code == 202
    answer = post(server, line())
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
    assert post(server, line("n2")).status_code == 202


def test_what_waits_is_bounded(lab, server):
    many = {f"n{number}" for number in range(100)}
    lab.mailbox.take(many)
    big = line("n1", boot_id="x" * (MOST_BYTES - 200))
    codes = [post(server, big.replace('"n1"', f'"n{number}"')).status_code for number in range(66)]
    assert codes[:60] == [202] * 60
    assert codes[-1] == 503


def test_a_sender_that_stops_in_the_middle_keeps_nobody_waiting(lab, server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as half:
        half.sendall(
            f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\r\n"
            "Content-Length: 100\r\n\r\nhalf".encode()
        )
        assert post(server, line()).status_code == 202
    assert list(lab.mailbox.take({"n1"})) == ["n1"]
