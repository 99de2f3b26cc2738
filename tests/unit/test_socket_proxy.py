"""The socket proxy before a small strict engine: what is let through, and what is not."""

import json
import socket
import threading
from http.client import HTTPResponse

import pytest
from test_docker_runner import CONTAINER, Engine
from test_runner import LONG, write_script

from cvagent.clients.docker import DockerRunner
from cvagent.errors import CommandFailed
from cvagent.socket_proxy import Refused, Rules, SocketProxy, exec_of

LIMIT = ["timeout", "-k", "1", "20"]
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


@pytest.fixture
def proxy(folder, engine):
    with SocketProxy(folder / "proxy", Rules(CONTAINER, folder / "engine", slurm_conf="/etc/slurm.conf")) as proxy:
        serving = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        serving.start()
        yield folder / "proxy"
        proxy.shutdown()
        serving.join()
    assert engine.complaints == []


@pytest.fixture
def runner(proxy, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{proxy}")
    runner = DockerRunner(CONTAINER, slurm_conf="/etc/slurm.conf")
    yield runner
    runner.stop()


@pytest.fixture
def ask(proxy):
    """Sends one request as it is; status and body."""

    def ask(method, path, body=None, **headers):
        text = "" if body is None else json.dumps(body)
        given = ({"Content-Length": len(text)} if text else {}) | headers
        lines = [f"{method} {path} HTTP/1.1", "Host: docker", *(f"{name}: {value}" for name, value in given.items())]
        with socket.socket(socket.AF_UNIX) as connected:
            connected.connect(str(proxy))
            # In one piece: what is refused unread is cut off.
            connected.sendall("\r\n".join([*lines, "", text]).encode())
            with HTTPResponse(connected, method=method) as answer:
                answer.begin()
                return answer.status, answer.read().decode()

    return ask


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
    ],
)
def test_an_exec_with_more_than_the_agent_asks_for_is_refused(more, folder):
    rules = Rules(CONTAINER, folder)
    assert exec_of(ASKED, rules)["Cmd"] == ASKED["Cmd"]
    with pytest.raises(Refused):
        exec_of(ASKED | more, rules)


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
