import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from cvagent.api.page import View
from cvagent.api.server import HttpServer, make_app
from cvagent.errors import CvagentError, SettingsError
from cvagent.settings import Listen, Settings

TOKEN = "correct-horse"
OPEN = ["/healthz", "/readyz", "/metrics"]
CLOSED = ["/", "/documents?sink=cloudvision_jobs", "/facts", "/favicon.ico", "/docs", "/openapi.json", "/no-such-page"]


def ask(server, path, **more):
    return requests.get(f"http://127.0.0.1:{server.port}{path}", timeout=5, **more)


def raw(server, text):
    """Send bytes as they are; return the status line."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(text.encode())
        return connection.makefile().readline()


@pytest.fixture(params=["127.0.0.1:0", "0.0.0.0:0"])
def guarded(request, lab):
    lab.record()
    return lab.serve(token=TOKEN, http_listen=request.param)


def test_probes_need_no_token(guarded):
    assert {path: ask(guarded, path).status_code for path in OPEN} == dict.fromkeys(OPEN, 200)


def test_everything_else_does(guarded):
    for path in CLOSED:
        answer = ask(guarded, path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"].startswith("Basic ")


def test_no_other_word_opens_the_page(guarded):
    wrong = ["Bearer wrong", "Bearer", TOKEN, f"Digest {TOKEN}", "Basic ???", "Basic /w==", b"Bearer \xfc"]
    for words in wrong:
        answer = ask(guarded, "/", headers={"Authorization": words})
        assert answer.status_code == 401, words
        assert TOKEN not in answer.text


def test_bearer_and_basic_open_the_page(guarded):
    assert ask(guarded, "/", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert ask(guarded, "/", auth=("anybody", TOKEN)).status_code == 200
    assert ask(guarded, "/", auth=("anybody", "wrong")).status_code == 401


def test_with_a_token_the_name_is_free(guarded):
    headers = {"Authorization": f"Bearer {TOKEN}", "Host": "agent.example.org"}
    assert ask(guarded, "/", headers=headers).status_code == 200


def test_a_new_token_counts_from_the_next_request_and_none_closes_the_page(guarded, tmp_path):
    (tmp_path / "http_token").write_text("another-one")
    assert ask(guarded, "/", auth=("anybody", TOKEN)).status_code == 401
    assert ask(guarded, "/", auth=("anybody", "another-one")).status_code == 200
    (tmp_path / "http_token").unlink()
    answer = ask(guarded, "/", auth=("anybody", "another-one"))
    assert answer.status_code == 503
    assert str(tmp_path) not in answer.text
    assert ask(guarded, "/healthz").status_code == 200


def test_beyond_loopback_without_a_token_there_is_no_server(lab):
    settings = Settings(cloudvision_url="https://cvp.example.org", cloudvision_token="t")
    open_settings = settings.model_copy(update={"http_listen": Listen("0.0.0.0", 0)})  # noqa: S104
    with pytest.raises(SettingsError, match="CVAGENT_HTTP_TOKEN_FILE"):
        make_app(View(lab.outbox, lab.board, open_settings, "lab", lab.clock))


def test_loopback_names_are_welcome(lab):
    server = lab.serve()
    for host in ["localhost", "LOCALHOST:9410", "127.0.0.1", "127.0.0.2:1", "[::1]:9410", "[::1]"]:
        assert ask(server, "/", headers={"Host": host}).status_code == 200, host


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:9410", "10.0.0.1"])
def test_names_of_others_are_refused(lab, host):
    server = lab.serve()
    for path in (*OPEN, *CLOSED):
        answer = ask(server, path, headers={"Host": host})
        assert answer.status_code == 421, path
        assert "localhost" in answer.text


def test_no_name_is_refused(lab):
    server = lab.serve()
    assert " 400 " in raw(server, "GET /healthz HTTP/1.0\r\n\r\n")
    assert " 400 " in raw(server, "GET /healthz HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_written(lab, method):
    server = lab.serve()
    for path in ("/", "/documents?sink=cloudvision_jobs", "/readyz", "/metrics"):
        assert requests.request(method, f"{server.url}{path}", json={}, timeout=5).status_code == 405, path


def test_there_is_nothing_else(lab):
    server = lab.serve()
    for path in ("/docs", "/redoc", "/openapi.json", "/no-such-page", "/healthz/"):
        assert ask(server, path).status_code == 404, path


def test_every_answer_carries_the_headers(lab):
    server = lab.serve()
    answers = [ask(server, path) for path in (*OPEN, *CLOSED)] + [ask(server, "/", headers={"Host": "evil.example"})]
    for headers in (answer.headers for answer in answers):
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
        assert "script-src" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_favicon_is_empty(lab):
    assert ask(lab.serve(), "/favicon.ico").status_code == 204


def test_taken_port_is_named_with_its_setting(lab):
    first = lab.serve()
    with pytest.raises(CvagentError, match=rf"CVAGENT_HTTP_LISTEN.*127.0.0.1:{first.port}: another program") as failed:
        lab.serve(http_listen=f"127.0.0.1:{first.port}")
    assert not isinstance(failed.value, SettingsError), "it may be free at the next start"


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-name.invalid"])
def test_address_of_another_machine_is_named_with_its_setting(lab, host):
    with pytest.raises(CvagentError, match=f"CVAGENT_HTTP_LISTEN: cannot listen on {host}:0: "):
        lab.serve(token=TOKEN, http_listen=f"{host}:0")


def test_stopped_server_gives_the_port_back_and_cuts_idle_connections(lab):
    server = lab.serve()
    with requests.Session() as session, socket.create_connection(("127.0.0.1", server.port)) as idle:
        session.get(f"{server.url}/healthz", timeout=5)
        server.stop()
        idle.settimeout(5)
        assert idle.recv(1) == b""
    assert requests.get(f"{lab.serve(http_listen=f'127.0.0.1:{server.port}').url}/healthz", timeout=5).ok


def test_server_that_never_started_can_be_stopped():
    HttpServer(lambda *_: None, Listen("127.0.0.1", 0)).stop()


def test_store_that_hangs_does_not_hold_up_the_stop(lab, hanging):
    lab.outbox = hanging
    server = lab.serve()
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(ask, server, "/readyz")
        assert hanging.asked.wait(5)
        assert ask(server, "/healthz").status_code == 200
        began = time.monotonic()
        server.stop()
        took_s = time.monotonic() - began
        hanging.release.set()
        assert took_s < 4
        assert answer.exception() or answer.result().status_code >= 500
