"""The socket proxy before a small strict engine: what is let through, and what is not."""

import json
import socket
import threading
from contextlib import closing, contextmanager, suppress
from http.client import HTTPResponse

import pytest
from test_docker_runner import CONTAINER, Engine
from test_runner import LONG, write_script
from waiting import wait_until

from cvagent.clients.docker import Container, DockerRunner
from cvagent.errors import CommandFailed
from cvagent.socket_proxy import Refused, Rules, SocketProxy, exec_of

LIMIT = ["timeout", "-k", "1", "20"]
# Each of them bounds nothing, or not soon.
NO_LIMITS = [
    "0",
    "0.0",
    "...",
    "",
    ".5",
    "5.",
    "1.1.1",
    "3601",
    "99999999999",
    "1e3",
    "1d",
    "-1",
    "inf",
    "\u0663",
    "5\n",
]
ASKED = {"Container": CONTAINER, "Cmd": [*LIMIT, "squeue", "-h"], "Env": ["TZ=UTC"], "Privileged": False, "User": ""}


@pytest.fixture
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("p")


@pytest.fixture
def engine(folder):
    engine = Engine(folder / "engine")
    engine.path = f"{folder}:{engine.path}"
    yield engine
    engine.end()


@contextmanager
def serving(folder):
    with SocketProxy(folder / "proxy", Rules(CONTAINER, folder / "engine", slurm_conf="/etc/slurm.conf")) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


@pytest.fixture
def proxy(folder, engine):
    with serving(folder):
        yield folder / "proxy"
    assert engine.complaints == []


@pytest.fixture
def runner(proxy, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{proxy}")
    runner = DockerRunner(Container(CONTAINER, slurm_conf="/etc/slurm.conf"))
    yield runner
    runner.stop()


@pytest.fixture
def ask(proxy):
    """Sends one request as it is; status and body."""

    def ask(method, path, body=None, **headers):
        text = "" if body is None else json.dumps(body)
        connected = said_to(proxy, request(method, path, text, **headers))
        with closing(connected), HTTPResponse(connected, method=method) as answer:
            answer.begin()
            return answer.status, answer.read().decode()

    return ask


def request(method, path, text="", **headers):
    """The bytes of one request."""
    given = ({"Content-Length": len(text)} if text else {}) | headers
    lines = [f"{method} {path} HTTP/1.1", "Host: docker", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "", text]).encode()


def said_to(proxy, *pieces):
    """A connection on which this was said, in one piece: what is refused unread is cut off."""
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(str(proxy))
    connected.sendall(b"".join(pieces))
    return connected


def all_of(connected):
    """What comes until the end."""
    return b"".join(iter(lambda: connected.recv(65536), b""))


def test_slurms_commands_are_let_through_with_all_that_they_print(runner, folder):
    write_script(folder / "squeue", "#!/bin/sh\nhead -c 3000000 /dev/zero; echo $1 $TZ >&2; exit $2")
    assert len(runner.run(["squeue", "-h", "0"], timeout_s=LONG)) == 3_000_000
    with pytest.raises(CommandFailed, match="-h UTC") as failed:
        runner.run(["squeue", "-h", "3"], timeout_s=LONG)
    assert failed.value.exit_code == 3


@pytest.mark.parametrize("command", [["sh", "-c", "id"], ["env", "squeue"], ["/srv/squeue"], ["timeout", "1", "sh"]])
def test_other_commands_are_refused(runner, command):
    with pytest.raises(CommandFailed, match=r"refused \(403\): .*only sacct, sacctmgr"):
        runner.run(command, timeout_s=LONG)


def test_users_are_looked_up(runner):
    assert runner.run(["/usr/bin/env", "getent", "passwd", "--", "root"], timeout_s=LONG).startswith(b"root:")


def test_a_command_that_hangs_ends_by_its_own_limit(runner, folder):
    write_script(folder / "squeue", "#!/bin/sh\nexec sleep 60")
    with pytest.raises(CommandFailed, match="did not end within"):
        runner.run(["squeue"], timeout_s=0.3)


@pytest.mark.parametrize(
    "more",
    [
        {"Privileged": True},
        {"privileged": True},
        {"User": "root"},
        {"Tty": True},
        {"AttachStdin": True},
        {"WorkingDir": "/srv"},
        {"Env": ["LD_PRELOAD=/srv/x.so"]},
        {"Env": ["PATH=/srv"]},
        {"Env": ["SLURM_CONF=/srv/slurm.conf"]},
        {"Env": "TZ=UTC"},
        {"Env": ["PATH"]},
        {"Cmd": None},
        {"Cmd": [*LIMIT, 1]},
        {"Cmd": LIMIT},
        {"Cmd": ["squeue", "-h"]},
        {"Cmd": ["timeout", "-k", "1", "--help", "squeue"]},
        *({"Cmd": ["timeout", "-k", "1", limit, "squeue"]} for limit in NO_LIMITS),
        *({"Cmd": ["timeout", "-k", limit, "1", "squeue"]} for limit in NO_LIMITS),
        {"Cmd": [*LIMIT, "squeue", "-h\0"]},
        {"Env": ["TZ=UTC\0"]},
        {"Env": ["TZ=UTC\nLD_PRELOAD=/srv/x.so"]},
        {"Env": ["TZ\0=UTC"]},
    ],
)
def test_an_exec_with_more_than_the_agent_asks_for_is_refused(more, folder):
    rules = Rules(CONTAINER, folder)
    assert exec_of(ASKED, rules)["Cmd"] == ASKED["Cmd"]
    with pytest.raises(Refused):
        exec_of(ASKED | more, rules)


@pytest.mark.parametrize("limit", ["1", "0.001", "20", "59.5", "3600"])
def test_the_limits_that_the_agent_sets_are_let_through(folder, limit):
    command = ["timeout", "-k", "1", limit, "squeue"]
    assert exec_of(ASKED | {"Cmd": command}, Rules(CONTAINER, folder))["Cmd"] == command


def test_arguments_may_hold_the_control_characters_that_end_a_field(folder):
    command = [*LIMIT, "sacct", "--delimiter=\x1e0123", "--comment=a\nb"]
    assert exec_of(ASKED | {"Cmd": command}, Rules(CONTAINER, folder))["Cmd"] == command


def test_the_user_may_be_named_that_counts_anyway_and_no_other(folder):
    rules = Rules(CONTAINER, folder, user="slurm")
    assert exec_of(ASKED | {"User": "slurm"}, rules)["User"] == "slurm"
    for other in ("root", "0", "Slurm"):
        with pytest.raises(Refused, match="an exec with User is not allowed"):
            exec_of(ASKED | {"User": other}, rules)


def test_the_folder_of_slurms_commands_counts_when_it_is_known(folder):
    rules = Rules(CONTAINER, folder, user="slurm", bin_dir="/opt/slurm/bin")
    path = "PATH=/opt/slurm/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    made = exec_of(ASKED | {"Cmd": [*LIMIT, "/opt/slurm/bin/sinfo"], "Env": [path]}, rules)
    assert (made["User"], made["Env"]) == ("slurm", [path])
    with pytest.raises(Refused):
        exec_of(ASKED, rules)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1.41/containers/create"),
        ("POST", "/v1.41/containers/other/exec"),
        ("POST", f"http://docker/v1.41/containers/{CONTAINER}/exec"),
        ("POST", f"http://docker/v1.41/containers/other/exec#/containers/{CONTAINER}/exec"),
        ("POST", f"/v1.41%2fcontainers/{CONTAINER}/exec"),
        ("POST", f"/v1.41/containers%2f{CONTAINER}/exec"),
        ("POST", f"/v1.41/containers/other/exec?/containers/{CONTAINER}/exec"),
        ("GET", "/version?x"),
        ("POST", f"/v1.41/containers/{CONTAINER}%2f..%2fother/exec"),
        ("POST", f"/v1.41/containers/{CONTAINER}/../other/exec"),
        ("POST", f"/v1.41/containers/{CONTAINER}/exec?x=/exec"),
        ("POST", f"/v1.41/containers/{CONTAINER}/start"),
        ("POST", "/v1.41/exec/e0/start"),
        ("GET", "/v1.41/exec/e0/json"),
        ("GET", f"/containers/{CONTAINER}/archive?path=/etc"),
        ("GET", f"/containers/{CONTAINER}/json"),
        ("GET", "/info"),
        ("GET", "/images/json"),
        ("POST", "/version"),
    ],
)
def test_other_requests_are_refused(ask, engine, method, path):
    assert ask(method, path, ASKED if method == "POST" else None)[0] == 403
    assert engine.execs == {}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD"])
def test_other_methods_do_not_exist(ask, method):
    assert ask(method, f"/containers/{CONTAINER}")[0] == 501


def test_a_body_must_say_what_it_is(ask):
    path = f"/containers/{CONTAINER}/exec"
    assert ask("POST", path)[0] == 403
    assert ask("POST", path, [])[0] == 403
    assert ask("POST", path, ASKED, **{"Transfer-Encoding": "chunked"})[0] == 403


def test_a_body_that_says_two_lengths_is_refused(proxy, engine):
    text = json.dumps(ASKED)
    twice = request(
        "POST", f"/containers/{CONTAINER}/exec", text, **{"Content-Length": f"2\r\nContent-Length: {len(text)}"}
    )
    with closing(said_to(proxy, twice)) as connected:
        assert all_of(connected).startswith(b"HTTP/1.0 403 ")
    assert engine.execs == {}


@pytest.mark.parametrize("text", ["[" * 300_000, '{"Cmd":' * 100_000, "{", "1" * 9000])
def test_a_body_that_cannot_be_read_is_refused(proxy, text):
    with closing(said_to(proxy, request("POST", f"/containers/{CONTAINER}/exec", text))) as connected:
        assert all_of(connected).startswith(b"HTTP/1.0 403 ")


def test_a_second_request_on_a_connection_is_not_read(proxy, engine):
    first = request("GET", "/version")
    second = request("POST", f"/v1.41/containers/{CONTAINER}/exec", json.dumps(ASKED))
    with closing(said_to(proxy, first, second)) as connected:
        assert all_of(connected).count(b"HTTP/1.") == 1
    assert engine.execs == {}


def test_the_exec_of_someone_else_is_not_started(ask, folder, engine):
    write_script(folder / "squeue", f"#!/bin/sh\ntouch {folder}/ran")
    asked = json.dumps(exec_of(ASKED, Rules(CONTAINER, folder)))
    theirs = request("POST", f"/v1.41/containers/{CONTAINER}/exec", asked, Connection="close")
    with closing(said_to(folder / "engine", theirs)) as connected:
        made = json.loads(all_of(connected).partition(b"\r\n\r\n")[2])["Id"]
    assert made in engine.execs
    assert ask("POST", f"/v1.41/exec/{made}/start", {"Detach": False})[0] == 403
    assert ask("GET", f"/v1.41/exec/{made}/json")[0] == 403
    assert not (folder / "ran").exists()


class Scripted:
    """An engine that notes what it hears on each connection, and answers each with the next of its pieces.

    It reads the head and so many bytes of the body: a connection that is closed before all is read breaks.
    """

    def __init__(self, path, *answers, body=0):
        self.heard = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._serving = threading.Thread(target=self._serve, args=(answers, body))
        self._serving.start()

    def _serve(self, answers, body):
        # Its end is that of the socket.
        with suppress(OSError):
            for answer in answers:
                self._tell(answer, body)

    def _tell(self, answer, body):
        with self._listening.accept()[0] as connected:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connected.recv(1)
            self.heard.append(head + connected.recv(body, socket.MSG_WAITALL))
            connected.sendall(answer)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._serving.join()
        self._listening.close()


START = b'{"Detach": false, "Tty": false}'
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"


def test_no_header_of_the_client_reaches_the_engine(folder):
    headers = {"Connection": "Upgrade", "Upgrade": "tcp", "X-Registry-Auth": "x"}
    with Scripted(folder / "engine", STREAM + b"all", body=len(START)) as engine, serving(folder) as proxy:
        proxy.ours.append("e1")
        with closing(said_to(folder / "proxy", request("POST", "/exec/e1/start", "{}", **headers))) as connected:
            assert all_of(connected) == STREAM + b"all"
    heard = engine.heard[0].lower()
    assert heard.endswith(START.lower())
    assert b"connection: close\r\n" in heard
    assert b"upgrade" not in heard
    assert b"x-registry" not in heard


def test_an_answer_that_breaks_off_is_not_followed_by_another(folder, capfd):
    with Scripted(folder / "engine", STREAM + b"half", body=len(START) - 1), serving(folder) as proxy:
        proxy.ours.append("e1")
        with closing(said_to(folder / "proxy", request("POST", "/exec/e1/start", "{}"))) as connected:
            assert all_of(connected) == STREAM + b"half"
    assert "Traceback" not in capfd.readouterr().err


def test_an_engine_that_breaks_off_before_it_answers_is_told(folder):
    with Scripted(folder / "engine", b"", body=len(START) - 1), serving(folder) as proxy:
        proxy.ours.append("e1")
        with closing(said_to(folder / "proxy", request("POST", "/exec/e1/start", "{}"))) as connected:
            assert all_of(connected).startswith(b"HTTP/1.0 503 ")


def test_a_client_that_goes_away_leaves_no_traceback(folder, capfd):
    with Scripted(folder / "engine", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as engine, serving(folder):
        said_to(folder / "proxy", request("GET", "/version")).close()
        wait_until(lambda: engine.heard, LONG, "the question at the engine")
        # Nor does one that reads no answer of the proxy's own.
        said_to(folder / "proxy", request("GET", "/info"), b"more").close()
    assert "Traceback" not in capfd.readouterr().err


def test_an_exec_is_started_as_the_proxy_says(ask, folder):
    write_script(folder / "squeue", "#!/bin/sh\necho here")
    status, said = ask("POST", f"/v1.41/containers/{CONTAINER}/exec", ASKED)
    assert status == 201
    path = f"/v1.41/exec/{json.loads(said)['Id']}/start"
    assert ask("POST", path, {"Detach": True})[0] == 403
    assert ask("POST", path, {"Detach": False})[1].endswith("here\n")


def test_an_engine_that_is_gone_is_told(ask, engine, folder):
    engine.end()
    status, said = ask("GET", "/version")
    assert status == 503
    assert "no answer from the Docker engine" in said
    engine.__init__(folder / "engine")
    assert ask("GET", "/version")[0] == 200


def test_only_user_and_group_may_use_it(proxy):
    assert proxy.stat().st_mode & 0o777 == 0o660
