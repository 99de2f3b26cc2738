import json
import socket
import threading

import pytest
import responses

from cvagent.clients.cloudvision import CloudVision, Unsupported
from cvagent.errors import Permanent, Retryable, SettingsError
from cvagent.standin import TOKEN, StandIn

URL = "https://cv.example.com"
JOBS = f"{URL}/api/resources/computejob/v1/JobConfig"
SECRET = "abc.t0ken-of-the-service.xyz"
BODY = {
    "key": {"id": "1@lab"},
    "name": "train@batch",
    "state": "JOB_STATE_RUNNING",
    "start_time": "2026-03-01T10:30:00Z",
    "location": "lab",
    "nodes": {"values": ["node1"]},
}


class Token:
    """A token that has other values when it is read again."""

    def __init__(self, *values):
        self.values = list(values)
        self.rereads = 0

    def value(self):
        return self.values[0]

    def reread(self):
        self.rereads += 1
        if len(self.values) > 1:
            self.values.pop(0)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def connect():
    made = []

    def connect(url=URL, token=None, **options):
        made.append(CloudVision(url, token or Token(SECRET), **options))
        return made[-1]

    yield connect
    for client in made:
        client.close()


@pytest.fixture
def wire():
    with responses.RequestsMock(assert_all_requests_are_fired=False) as wire:
        yield wire


def another(number):
    return BODY | {"key": {"id": f"{number}@lab"}}


def test_accepted(connect, wire):
    wire.post(JOBS, json={"value": {}, "time": "x"}, match=[responses.matchers.json_params_matcher(BODY)])
    connect(f"{URL}/").set_job(BODY)
    sent = wire.calls[0].request
    assert sent.headers["Authorization"] == f"Bearer {SECRET}"
    assert sent.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(("status", "body"), [(200, ""), (204, ""), (200, "\n"), (201, "{}"), (200, "[]")])
def test_accepted_with_few_words(connect, wire, status, body):
    wire.post(JOBS, status=status, body=body)
    connect().set_job(BODY)


@pytest.mark.parametrize(
    ("status", "everything"),
    [(408, False), (425, False), (500, False), (407, True), (429, True), (502, True), (503, True), (504, True)],
)
def test_retryable(connect, wire, status, everything):
    wire.post(JOBS, status=status, json={"code": 14, "message": "busy\nnow", "details": []})
    with pytest.raises(Retryable, match=f"CloudVision answered {status}: busy now") as failed:
        connect().set_job(BODY)
    assert failed.value.everything is everything
    assert failed.value.after_s is None


@pytest.mark.parametrize("status", [400, 409, 410, 413, 422, 431])
def test_permanent(connect, wire, status):
    wire.post(JOBS, status=status, json={"code": 3, "message": "unknown field", "details": []})
    with pytest.raises(Permanent, match=f"^CloudVision answered {status}: unknown field$"):
        connect().set_job(BODY)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_no_such_api(connect, wire, status):
    wire.post(JOBS, status=status, body="Not Found")
    with pytest.raises(Retryable, match=rf"does not know the computejob API: {URL}.*{status}") as failed:
        connect().set_job(BODY)
    assert failed.value.everything


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(connect, wire, status):
    wire.post(JOBS, status=status, headers={"Location": f"https://www.example.com/login?next={SECRET}"})
    with pytest.raises(
        Retryable, match=r"redirect to https://www\.example\.com/login: set CVAGENT_CLOUDVISION_URL"
    ) as failed:
        connect().set_job(BODY)
    assert failed.value.everything
    assert len(wire.calls) == 1


@pytest.mark.parametrize("body", ["<html>Sign in</html>", "OK", '{"value":', '{"error": {"code": 13, "message": "x"}}'])
def test_success_that_is_none(connect, wire, body):
    wire.post(JOBS, status=200, body=body)
    with pytest.raises(Retryable) as failed:
        connect().set_job(BODY)
    assert not failed.value.everything


@pytest.mark.parametrize(
    ("header", "after_s"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "Sun, 01 Mar 2026 10:00:30 GMT", "Date": "Sun, 01 Mar 2026 10:00:00 GMT"}, 30.0),
        ({"Retry-After": "Sun, 01 Mar 2026 09:00:00 GMT", "Date": "Sun, 01 Mar 2026 10:00:00 GMT"}, 0.0),
        ({"Retry-After": "Sun, 01 Mar 2020 09:00:00 GMT"}, 0.0),
        ({"Retry-After": "9" * 400}, 86400.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_server_says_when(connect, wire, status, header, after_s):
    wire.post(JOBS, status=status, headers=header)
    with pytest.raises(Retryable) as failed:
        connect().set_job(BODY)
    assert failed.value.after_s == after_s


@pytest.mark.parametrize("status", [401, 403])
def test_refused_token_is_read_again(connect, wire, status):
    wire.post(JOBS, status=status)
    wire.post(JOBS, status=200, match=[responses.matchers.header_matcher({"Authorization": "Bearer new"})])
    token = Token("old", "new")
    connect(token=token).set_job(BODY)
    assert token.rereads == 1


@pytest.mark.parametrize("values", [["old"], ["old", "new"]])
def test_refused_for_good(connect, wire, values):
    wire.post(JOBS, status=401, json={"message": f"{values[-1]} is no token"})
    token = Token(*values)
    with pytest.raises(Retryable, match=r"token is refused.*CVAGENT_CLOUDVISION_TOKEN_FILE.*401: \*\*\* is") as failed:
        connect(token=token).set_job(BODY)
    assert failed.value.everything
    assert (len(wire.calls), token.rereads) == (len(values), 1)


@pytest.mark.parametrize("value", ["", "two words", "line\nend", "ümlaut"])
def test_token_that_is_none(connect, wire, value):
    with pytest.raises(Retryable, match="CVAGENT_CLOUDVISION_TOKEN_FILE") as failed:
        connect(token=Token(value)).set_job(BODY)
    assert failed.value.everything
    assert not value or value not in str(failed.value)
    assert not wire.calls


def test_token_that_cannot_be_read(connect):
    class Gone(Token):
        def value(self):
            raise SettingsError("/run/secrets/token: cannot be read")

    with pytest.raises(Retryable, match="/run/secrets/token: cannot be read"):
        connect(token=Gone()).set_job(BODY)


def test_replaced_token(connect, wire):
    wire.post(JOBS, match=[responses.matchers.header_matcher({"Authorization": "Bearer other"})])
    client = connect()
    client.replace_token(Token("other"))
    client.set_job(BODY)


@pytest.mark.parametrize(
    "body",
    [
        {"message": f"Bearer {SECRET} may not: \x1b[31m\u009b\r\n{'long ' * 100}{SECRET}"},
        {"error": {"message": f"{'x' * 280} {SECRET}"}},
        [SECRET, {"a": SECRET}],
        f"<p>Authorization: Bearer {SECRET}</p>\0",
    ],
)
def test_what_the_server_says_is_made_safe(connect, wire, body):
    wire.post(JOBS, status=400, **({"body": body} if isinstance(body, str) else {"json": body}))
    with pytest.raises(Permanent) as failed:
        connect().set_job(BODY)
    text = str(failed.value)
    assert SECRET[:6] not in text
    assert text.isprintable()
    assert len(text) < 350


def test_batch_accepted(connect, wire):
    values = [another(1), another(2)]
    wire.post(f"{JOBS}/some", body="", match=[responses.matchers.json_params_matcher({"values": values})])
    client = connect()
    assert client.batches is None
    assert client.set_jobs(values) == {}
    assert client.batches is True


@pytest.mark.parametrize("between", ["", "\n", " \r\n\t"])
def test_batch_names_the_failed(connect, wire, between):
    failed = [f'{{"result": {{"key": {{"id": "{number}@lab"}}, "error": "no\\n{SECRET}"}}}}' for number in (1, 3)]
    wire.post(f"{JOBS}/some", body=between + between.join(failed) + between)
    assert connect().set_jobs([another(1), another(2), another(3)]) == {"1@lab": "no ***", "3@lab": "no ***"}


@pytest.mark.parametrize(
    "body",
    [
        '{"error": {"code": 13, "message": "stream broke"}}',
        '{"result": {"key": {"id": "1@lab"}, "error": "x"}}{"error": {"message": "stream broke"}}',
        '{"result": {"key": {"id": "9@lab"}, "error": "not sent"}}',
        '{"result": {"key": {}, "error": "x"}}',
        '{"result": {"key": {"id": "1@lab"}, "err',
        "<html>",
        "[]",
        "null",
        '"text"',
        "[" * 100_000,
    ],
)
def test_batch_with_garbage(connect, wire, body):
    wire.post(f"{JOBS}/some", body=body)
    client = connect()
    with pytest.raises(Retryable) as failed:
        client.set_jobs([another(1), another(2)])
    assert not failed.value.everything
    assert client.batches is None


@pytest.mark.parametrize("status", [404, 405, 501])
def test_batches_unsupported_for_good(connect, wire, status):
    wire.post(f"{JOBS}/some", status=status)
    client = connect()
    for _ in range(2):
        with pytest.raises(Unsupported):
            client.set_jobs([another(1), another(2)])
    assert client.batches is False
    assert len(wire.calls) == 1


@pytest.mark.parametrize(("status", "error"), [(400, Permanent), (413, Permanent), (500, Retryable), (503, Retryable)])
def test_batch_refused_as_a_whole(connect, wire, status, error):
    wire.post(f"{JOBS}/some", status=status)
    client = connect()
    with pytest.raises(error):
        client.set_jobs([another(1)])
    assert client.batches is None


@pytest.mark.parametrize("status", [200, 404])
def test_ping(connect, wire, status):
    wire.get(JOBS, status=status, headers={"Date": "Sun, 01 Mar 2026 10:00:00 GMT"})
    assert connect().ping() == (status, "Sun, 01 Mar 2026 10:00:00 GMT", True)


@pytest.mark.parametrize("status", [302, 401, 403, 503])
def test_ping_refused(connect, wire, status):
    wire.get(JOBS, status=status)
    with pytest.raises(Retryable):
        connect().ping()


def test_connections_stay_open(connect):
    with StandIn() as server:
        client = connect(server.url, Token(TOKEN))
        for number in range(20):
            client.set_job(another(number))
        client.set_jobs([another(1), another(2)])
        with pytest.raises(Permanent):
            client.set_job({})
        assert client.set_jobs([{"key": {"id": "x"}}, another(3)]).keys() == {"x"}
        client.ping()
        assert server.connections == 1
        assert len(server.jobs) == 20
        assert server.violations == []


def test_server_back_after_it_was_down(connect):
    with StandIn() as server:
        client = connect(server.url, Token(TOKEN), timeout_s=2)
        client.set_job(BODY)
        server.down()
        with pytest.raises(Retryable, match=r"no answer from .*refused") as failed:
            client.set_job(BODY)
        assert failed.value.everything
        server.up()
        client.set_job(BODY)


@pytest.mark.parametrize(("fault", "text"), [("hang", r"no answer within 0\.5 s"), ("reset", "no answer from")])
def test_no_answer(connect, fault, text):
    with StandIn(faults=f"{fault}*1") as server:
        client = connect(server.url, Token(TOKEN), timeout_s=0.5)
        with pytest.raises(Retryable, match=text) as failed:
            client.set_job(BODY)
        assert failed.value.everything
        client.set_job(BODY)


def test_private_ca(connect, monkeypatch):
    with StandIn(tls=True) as server:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem")
        client = connect(server.url, Token(TOKEN), ca_file=server.ca_file)
        for number in range(5):
            client.set_job(another(number))
        assert client.ping().tls
        assert server.connections == 1


def test_ca_of_the_environment(connect, monkeypatch):
    with StandIn(tls=True) as server:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.ca_file))
        connect(server.url, Token(TOKEN)).set_job(BODY)


@pytest.mark.parametrize("ca", [None, "empty", "missing", "localhost"])
def test_untrusted(connect, monkeypatch, tmp_path, ca):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty").touch()
    with StandIn(tls=True) as server:
        client = connect(server.url, Token(TOKEN), ca_file=tmp_path / ca if ca else None)
        with pytest.raises(Retryable, match="CVAGENT_CLOUDVISION_CA_FILE") as failed:
            client.set_job(BODY)
        assert failed.value.everything
        assert server.jobs == {}
        connect(server.url, Token(TOKEN), ca_file=server.ca_file).set_job(BODY)
        assert server.jobs.keys() == {"1@lab"}


def test_plain_http_where_tls_was_expected(connect):
    with StandIn() as server, pytest.raises(Retryable, match="no answer from https"):
        connect(server.url.replace("http", "https"), Token(TOKEN)).set_job(BODY)


def test_netrc_is_not_read(connect, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with StandIn() as server:
        connect(server.url, Token(TOKEN)).set_job(BODY)


class Listener:
    """A TCP server that does with each connection what it is told, until closed."""

    def __init__(self, act):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"
        self.act = act
        self.asked = []
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self.serve)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_error):
        self.closed.set()
        self.thread.join()
        self.listening.close()

    def serve(self):
        connection, _ = self.listening.accept()
        with connection:
            self.asked.append(connection.recv(65536))
            self.act(connection, self.closed)


def test_proxy_of_the_environment(connect, monkeypatch):
    with Listener(lambda connection, _closed: connection.sendall(b"HTTP/1.1 407 Who are you\r\n\r\n")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:pass@{proxy.address}")
        with pytest.raises(Retryable, match=rf"no answer from the proxy on the way to {URL}") as failed:
            connect().set_job(BODY)
        assert proxy.asked[0].startswith(b"CONNECT cv.example.com:443")
    assert "pass" not in str(failed.value)
    assert failed.value.everything


def test_no_proxy(connect, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with StandIn() as server:
        connect(server.url, Token(TOKEN)).set_job(BODY)


def drip(connection, closed):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while not closed.wait(0.05):
        connection.sendall(b" ")


def test_answer_that_drips(connect):
    with Listener(drip) as server, pytest.raises(Retryable, match=r"no answer within 0\.3 s"):
        connect(f"http://{server.address}", timeout_s=0.3).set_job(BODY)


def flood(connection, closed):
    connection.sendall(b"HTTP/1.1 400 Bad\r\n\r\n")
    try:
        while not closed.is_set():
            connection.sendall(bytes(65536))
    except OSError:
        pass


def test_answer_without_end_is_not_read_to_the_end(connect):
    with Listener(flood) as server, pytest.raises(Permanent):
        connect(f"http://{server.address}").set_job(BODY)


def test_half_an_answer(connect):
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
    with (
        Listener(lambda connection, _closed: connection.sendall(half)) as server,
        pytest.raises(Retryable, match="no answer from") as failed,
    ):
        connect(f"http://{server.address}").set_job(BODY)
    assert failed.value.everything


HELD = {
    "key": {"id": "r1"},
    "state": "JOB_STATE_RUNNING",
    "startTime": "2026-03-01T10:30:00Z",
    "type": "JOB_TYPE_TENANT",
}


def test_what_cloudvision_holds(connect, wire):
    odd = {"key": {"id": "r2"}, "state": "JOB_STATE_RUNNING", "startTime": "yesterday"}
    body = "".join(json.dumps({"result": {"value": value, "type": "INITIAL"}}) for value in (HELD, odd))
    wire.get(f"{JOBS}/all", body=body)
    held = connect().jobs()
    assert list(held) == ["r1"]
    assert (held["r1"].type, held["r1"].nodes.values) == ("JOB_TYPE_TENANT", ())


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_cloudvision_that_lists_nothing(connect, wire, status):
    wire.get(f"{JOBS}/all", status=status)
    assert connect().jobs() is None


@pytest.mark.parametrize(("status", "body"), [(503, "busy"), (200, "{garbage"), (200, '{"result": ')])
def test_a_list_that_did_not_come_is_no_empty_list(connect, wire, status, body):
    wire.get(f"{JOBS}/all", status=status, body=body)
    with pytest.raises(Retryable):
        connect().jobs()


def test_what_cloudvision_holds_of_some(connect, wire):
    only = {"type": "JOB_TYPE_TENANT", "location": "lab"}
    wanted = responses.matchers.json_params_matcher({"partialEqFilter": [only]})
    wire.post(f"{JOBS}/all", json={"result": {"value": HELD | {"location": "lab"}}}, match=[wanted])
    assert connect().jobs(only)["r1"].location == "lab"


@pytest.mark.parametrize("status", [400, 404, 405, 501])
def test_where_nothing_filters_all_are_read(connect, wire, status):
    wire.post(f"{JOBS}/all", status=status)
    wire.get(f"{JOBS}/all", json={"result": {"value": HELD}})
    assert list(connect().jobs({"type": "JOB_TYPE_TENANT"})) == ["r1"]


def test_a_busy_filter_is_no_missing_one(connect, wire):
    wire.post(f"{JOBS}/all", status=503)
    with pytest.raises(Retryable):
        connect().jobs({"type": "JOB_TYPE_TENANT"})


@pytest.mark.parametrize("end", [{}, {"endTime": "2026-03-01T11:30:00Z", "state": "JOB_STATE_COMPLETED"}])
def test_one_job(connect, wire, end):
    wire.get(JOBS, json={"value": HELD | end})
    job = connect().job("r1")
    assert (job.state, job.end_time is None) == (end.get("state", "JOB_STATE_RUNNING"), not end)


@pytest.mark.parametrize("answer", [{"status": 404}, {"status": 501}, {"status": 400}, {"json": {"value": {}}}])
def test_a_job_that_is_not_there_or_not_told(connect, wire, answer):
    wire.get(JOBS, **answer)
    assert connect().job("r1") is None


@pytest.mark.parametrize("answer", [{"status": 503}, {"status": 401}, {"body": "garbage"}, {"body": OSError("gone")}])
def test_no_answer_about_a_job_is_no_missing_job(connect, wire, answer):
    wire.get(JOBS, **answer)
    with pytest.raises(Retryable):
        connect().job("r1")
