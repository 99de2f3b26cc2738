"""DockerRunner against a small strict engine on a unix socket, which really runs what it is given."""

import gc
import json
import os
import re
import signal
import socket
import socketserver
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import docker
import pytest
from test_runner import LONG, RunnerContract

from cvagent.clients.docker import Container, DockerRunner
from cvagent.clients.runner import MAX_STDOUT
from cvagent.errors import CommandFailed

CONTAINER = "slurmctld"
# What the engine may take beside the command.
ENGINE_S = 5
NOT_STARTED = (
    'OCI runtime exec failed: exec failed: unable to start container process: exec: "{}": '
    "executable file not found in $PATH: unknown"
)


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The part of Docker's API that an exec needs, with one container."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path):
        super().__init__(str(path), Handler)
        self.state = "running"
        self.trouble = ""
        self.path = os.environ["PATH"]
        self.execs = {}
        self.exit_codes = {}
        self.unready = 0
        self.children = []
        self.complaints = []
        self.released = threading.Event()
        self._serving = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._serving.start()

    def end(self):
        self.released.set()
        self.shutdown()
        self._serving.join()
        self.server_close()
        Path(self.server_address).unlink()
        for child in self.children:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args):
        pass

    def do_GET(self):
        if self.path == "/version":
            self.answer(200, {"ApiVersion": "1.41"})
        elif found := re.fullmatch(r"/v1\.41/exec/(\w+)/json", self.path):
            self.server.unready -= 1
            exit_code = None if self.server.unready >= 0 else self.server.exit_codes[found[1]]
            self.answer(200, {"Running": exit_code is None, "ExitCode": exit_code})
        else:
            self.complain("unknown path")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.trouble == "hang":
            self.server.released.wait()
            self.close_connection = True
        elif self.server.trouble.isdigit():
            self.answer(int(self.server.trouble), {"message": "out of\nspace"})
        elif found := re.fullmatch(r"/v1\.41/containers/(\w+)/exec", self.path):
            self.create(found[1], asked)
        elif found := re.fullmatch(r"/v1\.41/exec/(\w+)/start", self.path):
            self.start(found[1], asked)
        else:
            self.complain("unknown path")

    def create(self, container, asked):
        if container != CONTAINER:
            self.answer(404, {"message": f"No such container: {container}"})
        elif self.server.state == "stopped":
            self.answer(409, {"message": f"Container {container} is not running"})
        elif self.server.state == "paused":
            self.answer(409, {"message": f"Container {container} is paused, unpause the container before exec"})
        elif asked["Tty"] or asked["AttachStdin"] or not (asked["AttachStdout"] and asked["AttachStderr"]):
            self.complain("wrong streams")
        elif asked["Cmd"][:3] != ["timeout", "-k", "1"]:
            self.complain("no time limit in the container")
        else:
            exec_id = f"e{len(self.server.execs)}"
            self.server.execs[exec_id] = asked
            self.answer(201, {} if self.server.trouble == "no id" else {"Id": exec_id})

    def start(self, exec_id, asked):
        if asked != {"Detach": False, "Tty": False}:
            self.complain("wrong start")
            return
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n")
        if self.server.trouble == "not frames":
            self.wfile.write(b"plain text, no frames")
        elif self.server.trouble == "broken off":
            self.wfile.write(b"\1\0\0\0\0\0\0\x10half")
        else:
            with suppress(BrokenPipeError):
                self.server.exit_codes[exec_id] = self.execute(**self.server.execs[exec_id])

    def execute(self, Cmd, Env, **_rest):  # noqa: N803 - Docker's names
        env = {"PATH": self.server.path} | dict(item.split("=", 1) for item in Env)
        if self.server.state == "just stopped":
            self.frame(1, b"OCI runtime exec failed: exec failed: cannot exec in a stopped state: unknown\r\n")
            return 126
        try:
            child = subprocess.Popen(
                Cmd, env=env, stdin=-3, stdout=-1, stderr=-1, start_new_session=True, executable=self.which(Cmd[0], env)
            )
        except FileNotFoundError:
            self.frame(1, NOT_STARTED.format(Cmd[0]).encode())
            return 126
        self.server.children.append(child)
        with child:
            errors = threading.Thread(target=self.copy, args=(2, child.stderr))
            errors.start()
            self.copy(1, child.stdout)
            errors.join()
        return child.returncode if child.returncode >= 0 else 128 - child.returncode

    @staticmethod
    def which(name, env):
        folders = [Path(folder) for folder in env["PATH"].split(":")]
        return next((str(folder / name) for folder in folders if (folder / name).exists()), "/nowhere")

    def copy(self, stream, pipe):
        with suppress(BrokenPipeError):
            while chunk := os.read(pipe.fileno(), 30_000):
                self.frame(stream, chunk)

    def frame(self, stream, chunk):
        self.wfile.write(bytes([stream, 0, 0, 0]) + len(chunk).to_bytes(4, "big") + chunk)

    def complain(self, text):
        self.server.complaints.append(f"{self.command} {self.path}: {text}")
        self.answer(400, {"message": text})

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def socket_path(tmp_path_factory):
    return tmp_path_factory.mktemp("e") / "docker.sock"


@pytest.fixture
def engine(socket_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket_path}")
    engine = Engine(socket_path)
    yield engine
    engine.end()
    assert engine.complaints == []


@pytest.fixture
def make():
    made = []

    def make(container=CONTAINER, client=None, max_stdout=MAX_STDOUT, **fields):
        made.append(DockerRunner(Container(container, **fields), client, max_stdout=max_stdout))
        return made[-1]

    yield make
    for runner in made:
        runner.stop()


@pytest.fixture
def left_by_the_sdk():
    """The SDK leaves a socket that could not be connected to the garbage collector; let it be collected here."""
    yield
    gc.collect()


@pytest.mark.usefixtures("engine")
class TestDockerRunner(RunnerContract):
    @pytest.mark.parametrize("state", ["stopped", "just stopped", "paused"])
    def test_container_that_does_not_run(self, make, engine, state):
        engine.state = state
        with pytest.raises(CommandFailed, match="container slurmctld is stopped or paused: start it"):
            make().run(["squeue"], timeout_s=LONG)

    def test_container_that_does_not_exist(self, make):
        with pytest.raises(CommandFailed, match="squeue: there is no container elsewhere"):
            make("elsewhere").run(["squeue"], timeout_s=LONG)

    def test_container_that_runs_again(self, make, engine):
        runner = make()
        engine.state = "stopped"
        with pytest.raises(CommandFailed):
            runner.run(["true"], timeout_s=LONG)
        engine.state = "running"
        assert runner.run(["echo", "back"], timeout_s=LONG) == b"back\n"

    def test_container_without_timeout(self, make, engine, tmp_path):
        engine.path = str(tmp_path)
        with pytest.raises(CommandFailed, match="has no `timeout` command"):
            make().run(["squeue"], timeout_s=LONG)

    def test_killed_from_outside(self, make):
        with pytest.raises(CommandFailed, match="was killed: the container slurmctld was stopped") as failed:
            make().run(["sh", "-c", "kill -KILL $PPID"], timeout_s=LONG)
        assert failed.value.exit_code == 137

    def test_command_that_minds_no_term(self, make):
        with pytest.raises(CommandFailed, match="did not end within"):
            make().run(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], timeout_s=0.2)

    def test_exit_codes_that_timeout_uses_are_no_more_than_that(self, make):
        for code in (124, 126, 127):
            with pytest.raises(CommandFailed, match="sh: own words") as failed:
                make().run(["sh", "-c", f"echo own words >&2; exit {code}"], timeout_s=LONG)
            assert failed.value.exit_code == code

    def test_exit_code_that_comes_late(self, make, engine):
        engine.unready = 2
        assert make().run(["echo", "x"], timeout_s=LONG) == b"x\n"

    @pytest.mark.parametrize("user", ["", "operator"])
    def test_the_user_in_the_container(self, make, engine, user):
        make(user=user).run(["echo"], timeout_s=LONG)
        assert [asked["User"] for asked in engine.execs.values()] == [user]

    @pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
    @pytest.mark.usefixtures("left_by_the_sdk")
    def test_engine_gone_and_back(self, make, engine, socket_path):
        runner = make()
        assert runner.run(["echo", "1"], timeout_s=LONG) == b"1\n"
        engine.end()
        with pytest.raises(CommandFailed, match=r"no Docker engine at unix:.*is it running"):
            runner.run(["echo", "2"], timeout_s=LONG)
        engine.__init__(socket_path)
        assert runner.run(["echo", "3"], timeout_s=LONG) == b"3\n"

    def test_engine_that_hangs(self, engine):
        engine.trouble = "hang"

        def impatient(_http_timeout_s):
            return docker.APIClient(base_url=os.environ["DOCKER_HOST"], timeout=0.3, version="1.41")

        with pytest.raises(CommandFailed, match=r"Docker engine at unix:.* does not answer"):
            DockerRunner(Container(CONTAINER), client=impatient).run(["squeue"], timeout_s=LONG)

    @pytest.mark.parametrize(
        ("trouble", "text"),
        [
            ("500", r"the Docker engine refused \(500\): out of space"),
            ("no id", "answer holds no 'Id'"),
            ("not frames", "not in the form of an exec"),
            ("broken off", "answer broke off"),
        ],
    )
    def test_answers_that_make_no_sense(self, make, engine, trouble, text):
        engine.trouble = trouble
        with pytest.raises(CommandFailed, match=text):
            make().run(["squeue"], timeout_s=LONG)


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.usefixtures("left_by_the_sdk")
def test_no_engine(make, socket_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket_path}")
    with pytest.raises(CommandFailed, match=r"squeue: no Docker engine at unix://.*is its socket mounted"):
        make().run(["squeue"], timeout_s=LONG)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without the right")
def test_no_right_to_the_socket(engine, socket_path):
    socket_path.chmod(0o600)
    script = (
        "import docker, os; os.setgroups([]); os.setgid(65534)\n"
        "from cvagent.clients.docker import Container, DockerRunner\n"
        "os.setuid(65534)\n"
        "try: DockerRunner(Container('slurmctld')).run(['squeue'], timeout_s=9)\n"
        "except Exception as error: print(error)"
    )
    assert engine
    done = subprocess.run([os.sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "may not use the Docker engine" in done.stdout, done.stderr


@pytest.fixture
def silent(socket_path, monkeypatch):
    """An engine that takes connections and answers nobody."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket_path}")
    with Silent(socket_path) as engine:
        yield engine


class Silent:
    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._socket.settimeout(LONG)
        self._taken = []

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        # Who still waits for an answer ends now.
        self._socket.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                self.taken()
        self._socket.close()
        for connection in self._taken:
            connection.close()
        left_alone()

    def taken(self):
        """Waits for the next connection and for what is asked on it."""
        connection, _ = self._socket.accept()
        self._taken.append(connection)
        return connection.recv(1000)


@pytest.fixture
def asking():
    """Runs calls in threads of their own; no test ends before they do."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def left_alone():
    """Waits for those that nobody waited for."""
    for thread in threading.enumerate():
        if thread.name == "squeue":
            thread.join(LONG)


def refused_after_s(runner, timeout_s=LONG):
    """Seconds until a run was given up, and why."""
    began = time.monotonic()
    with pytest.raises(CommandFailed) as failed:
        runner.run(["squeue"], timeout_s=timeout_s)
    return time.monotonic() - began, failed.value.reason


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.usefixtures("left_by_the_sdk")
class TestEngineThatNeverAnswers:
    def test_stop_waits_for_nobody_and_ends_what_runs(self, silent, asking):
        runner = DockerRunner(Container(CONTAINER))
        running = asking(refused_after_s, runner)
        assert b"/version" in silent.taken()
        began = time.monotonic()
        runner.stop()
        assert time.monotonic() - began < 1
        assert running.result()[1] == "ended because the agent stops"
        assert time.monotonic() - began < 2

    def test_runs_at_once_each_keep_their_own_limit(self, silent, asking):
        runner = DockerRunner(Container(CONTAINER))
        running = [asking(refused_after_s, runner, timeout_s=0.1) for _ in range(3)]
        assert b"/version" in silent.taken()
        for run in running:
            seconds, reason = run.result()
            assert seconds < ENGINE_S + 3
            assert re.fullmatch(r"the Docker engine at unix:\S+ does not answer", reason)
        runner.stop()


def test_a_client_that_another_thread_made_sooner_is_used_and_ours_closed(engine, asking):
    assert engine
    made, both = [], threading.Barrier(2)

    class Client(docker.APIClient):
        closed = False

        def close(self):
            super().close()
            self.closed = True

    def connect(http_timeout_s):
        client = Client(base_url=os.environ["DOCKER_HOST"], timeout=http_timeout_s, version="1.41")
        made.append(client)
        both.wait(LONG)
        return client

    runner = DockerRunner(Container(CONTAINER), client=connect)
    runs = [asking(runner.run, ["echo", "x"], timeout_s=LONG) for _ in range(2)]
    assert [run.result() for run in runs] == [b"x\n"] * 2
    assert sorted(client.closed for client in made) == [False, True]
    runner.stop()
    assert all(client.closed for client in made)


def test_a_command_is_not_begun_when_nobody_waits_for_it_any_more(engine, asking):
    connected, connecting = threading.Event(), threading.Event()

    def connect(http_timeout_s):
        connecting.set()
        connected.wait(LONG)
        return docker.APIClient(base_url=os.environ["DOCKER_HOST"], timeout=http_timeout_s, version="1.41")

    runner = DockerRunner(Container(CONTAINER), client=connect)
    running = asking(refused_after_s, runner)
    connecting.wait(LONG)
    runner.stop()
    assert running.result()[1] == "ended because the agent stops"
    connected.set()
    left_alone()
    assert engine.execs == {}
