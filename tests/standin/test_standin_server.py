"""The stand-in as a server: TLS, down and up, the page, the control, the foreground."""

import concurrent.futures
import re
import signal
import socket
import ssl
import subprocess
import sys
import time

import pytest
import requests
from standin_client import job, node

from cvagent.standin import Reach, StandIn


def test_tls_is_verified_with_its_own_ca(connect):
    with StandIn(tls=True) as stand_in:
        assert stand_in.url.startswith("https://")
        assert connect(stand_in, verify=stand_in.ca_file).post("JobConfig", job()).status_code == 200
        by_name = connect(stand_in, verify=stand_in.ca_file)
        stand_in.url = stand_in.url.replace("127.0.0.1", "localhost")
        assert by_name.get("JobConfig?key.id=4711@lab").status_code == 200


def test_tls_is_refused_without_its_ca(connect):
    with StandIn(tls=True) as stand_in, StandIn(tls=True) as other:
        for verify in (True, other.ca_file):
            with pytest.raises(requests.exceptions.SSLError):
                connect(stand_in, verify=verify).post("JobConfig", job())
        assert stand_in.requests == []


def test_other_machines_reach_it_under_a_name_by_tls_alone(tmp_path):
    ca_file = tmp_path / "ca.pem"
    with StandIn(tls=Reach("cloudvision", ca_file)) as stand_in:
        trusting = ssl.create_default_context(cafile=ca_file)
        port = int(stand_in.url.rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.2", port), 10) as connection,
            trusting.wrap_socket(connection, server_hostname="cloudvision") as asked,
        ):
            asked.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert asked.recv(12) == b"HTTP/1.1 200"
    with pytest.raises(ValueError, match="is no host name"), StandIn(tls=Reach("a\nb", ca_file)):
        pass


def test_tls_connections_are_cut_too(connect):
    with StandIn(tls=True, faults="reset*1,lost*1") as stand_in:
        client = connect(stand_in, verify=stand_in.ca_file)
        for _ in range(2):
            with pytest.raises(requests.ConnectionError):
                client.post("JobConfig", job())
        assert client.post("JobConfig", job()).status_code == 200
        assert len(stand_in.history) == 2


def test_tls_without_openssl_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RuntimeError, match="TLS needs the openssl command"), StandIn(tls=True):
        pass


def test_down_refuses_and_up_comes_back_on_the_same_port(stand_in, client):
    client.post("JobConfig", job())
    url = stand_in.url
    stand_in.down()
    stand_in.down()
    with pytest.raises(requests.ConnectionError):
        client.post("JobConfig", job("2@lab"))
    stand_in.up()
    stand_in.up()
    assert stand_in.url == url
    assert client.post("JobConfig", job("3@lab")).status_code == 200
    assert list(stand_in.jobs) == ["4711@lab", "3@lab"]


def test_down_cuts_what_hangs_promptly(stand_in, connect):
    stand_in.faults("hang")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(connect(stand_in).post, "JobConfig", job()) for _ in range(3)]
        assert stand_in.wait_for(lambda: stand_in.requests_total == 3)
        began = time.monotonic()
        stand_in.down()
        assert time.monotonic() - began < 1
        for one in asked:
            with pytest.raises(requests.ConnectionError):
                one.result()


def test_it_stops_promptly_while_a_handshake_is_pending():
    with StandIn(tls=True) as stand_in:
        silent = socket.create_connection(("127.0.0.1", int(stand_in.url.rsplit(":", 1)[1])))
        began = time.monotonic()
    assert time.monotonic() - began < 1
    silent.close()


def test_a_port_that_is_taken_is_an_error(stand_in):
    with pytest.raises(OSError, match="in use"), StandIn(int(stand_in.url.rsplit(":", 1)[1])):
        pass


def test_the_token_changes_at_run_time(stand_in, client):
    stand_in.token = "another"
    assert client.post("JobConfig", job()).status_code == 401
    client.token = "another"
    assert client.post("JobConfig", job()).status_code == 200


def test_writers_on_many_threads_lose_nothing(stand_in, connect):
    def write(writer):
        client = connect(stand_in)
        return [client.post("JobConfig", job(f"{writer}-{number}@lab")).status_code for number in range(20)]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert {status for statuses in pool.map(write, range(8)) for status in statuses} == {200}
    assert len(stand_in.jobs) == len(stand_in.history) == stand_in.requests_total == 160
    assert stand_in.connections == 8


def test_waiting_for_what_never_comes_ends(stand_in):
    assert not stand_in.wait_for(lambda: stand_in.requests_total > 0, timeout_s=0.01)


def test_other_processes_steer_faults_and_token(stand_in, client):
    assert client.control("faults", {"spec": "503*2,400@x"}).json() == {"faults": "503*2,400@x"}
    assert client.post("JobConfig", job()).status_code == 503
    assert client.control("faults", {"spec": ""}).json() == {"faults": ""}
    assert client.control("token", {"token": "another"}).status_code == 200
    assert stand_in.token == "another"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("faults", {"spec": "boom"}),
        ("faults", {}),
        ("faults", {"spec": 1}),
        ("token", {"token": ""}),
        ("token", ["token"]),
    ],
)
def test_wrong_control_says_so(stand_in, client, path, body):
    answer = client.control(path, body)
    assert answer.status_code == 400
    assert answer.json()["message"]
    assert stand_in.token == "stand-in-token"


def test_other_web_sites_are_kept_out(stand_in, client):
    url = f"{stand_in.url}/standin/"
    text = {"content-type": "text/plain"}
    assert client.session.post(url + "token", data='{"token": "x"}', headers=text, timeout=10).status_code == 400
    foreign = {"host": "evil.example"}
    assert client.session.get(url + "state", headers=foreign, timeout=10).status_code == 400
    assert stand_in.token == "stand-in-token"


def test_state_tells_everything(stand_in, client):
    client.post("JobConfig", job())
    client.post("NodeConfig", node())
    stand_in.faults("503*2")
    client.post("JobConfig", job())
    state = client.state()
    assert state["jobs"] == {"4711@lab": job()}
    assert state["nodes"] == {"node1": node()}
    assert state["counts"] == {"jobs": 1, "nodes": 1}
    assert state["states"] == {"JOB_STATE_RUNNING": 1}
    assert (state["requests"], state["writes"], state["faults"], state["violations"]) == (3, 2, "503*1", [])


def rows(stand_in, client, wanted=""):
    return client.session.get(f"{stand_in.url}/standin/rows", params={"filter": wanted}, timeout=10).json()


def test_rows_are_the_newest_500_and_say_how_many_there_are(stand_in, client):
    client.post("JobConfig/some", {"values": [job(f"{number}@lab") for number in range(700)]})
    jobs = rows(stand_in, client)["jobs"]
    assert (jobs["found"], len(jobs["rows"]), jobs["rows"][0]["key"]) == (700, 500, "699@lab")


def test_rows_are_folded_and_filtered(stand_in, client):
    client.post("JobConfig", job("1@lab", nodes={"values": [f"node{number}" for number in range(1000)]}))
    client.post("JobConfig", job("2@lab", name="Other@gpu"))
    client.post("NodeConfig", node("node999"))
    answer = rows(stand_in, client, "NODE999")
    assert [(row["key"], row["count"], row["first"]) for row in answer["jobs"]["rows"]] == [
        ("1@lab", 1000, ["node0", "node1", "node2"])
    ]
    assert answer["nodes"]["rows"][0]["first"] == ["ens1f0 0c:42:a1:00:00:01 10.88.1.1"]
    assert [row["key"] for row in rows(stand_in, client, "other@")["jobs"]["rows"]] == ["2@lab"]
    assert rows(stand_in, client, "nothing")["jobs"] == {"found": 0, "rows": []}


def test_the_page_is_strict_and_holds_no_asset_of_others(stand_in, client):
    page = client.session.get(stand_in.url, timeout=10)
    policy = page.headers["content-security-policy"]
    nonces = re.findall(r"'nonce-([\w-]+)'", policy)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.text.count(f'nonce="{nonces[0]}"') == 2
    assert not re.search(r"https?://|innerHTML|document\.write|style=|\son\w+=", page.text)
    assert client.session.get(stand_in.url, timeout=10).headers["content-security-policy"] != policy


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_foreground_says_where_it_is_and_stops_on_a_signal(number):
    code = "from cvagent.standin import main; main(0, tls=True, faults='503*1', token='secret')"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as running:
        lines = [running.stdout.readline() for _ in range(5)]
        said = dict(re.findall(r"^(.*?)[=:] ?(\S+)$", "".join(lines), re.MULTILINE))
        url, ca_file = said["CVAGENT_CLOUDVISION_URL"], said["CA file"]
        assert (said["A CloudVision stand-in is listening. Its page"], said["Token"]) == (f"{url}/", "secret")
        with requests.Session() as session:
            session.trust_env = False
            assert session.get(f"{url}/standin/state", verify=ca_file, timeout=10).json()["faults"] == "503*1"
        running.send_signal(number)
        assert running.wait(5) == 0
