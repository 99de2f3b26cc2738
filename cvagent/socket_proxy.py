"""Lets an agent run Slurm's commands in one container, and do nothing else with the Docker engine.

No request is passed on: each is taken apart, and what is allowed in it is written anew. So there is no second reading
of a path or a body by which more could be meant. Four requests exist:

    GET /version · POST /containers/<the one>/exec · POST /exec/<one of ours>/start · GET /exec/<one of ours>/json

It stands alone: it knows Slurm's commands by name, and nothing of what the agent asks with them.
"""

import json
import logging
import re
import selectors
import socket
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

COMMANDS = frozenset({"sacct", "sacctmgr", "scancel", "scontrol", "sdiag", "sinfo", "squeue", "srun"})
LOOK_UP = ["/usr/bin/env", "getent", "passwd", "--"]

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_VARIABLES = frozenset({"TZ", "LC_ALL", "SLURM_TIME_FORMAT", "CVAGENT_INVENTORY"})
# What an exec is made of; anything else in a request must be empty.
_OURS = frozenset({"Container", "Cmd", "Env", "AttachStdout", "AttachStderr"})
_LIMITED = 4
_NUMBER = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")
_LONGEST_S = 3600
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MOST_BYTES = 1024 * 1024
_CHUNK = 64 * 1024
# So many execs may be under way; the engine itself starts none of them twice.
_REMEMBERED = 10_000
_PATIENCE_S = 60


class Rules(NamedTuple):
    """What is allowed.

    Attributes:
        container: The one container, by the name or id that the agent gives.
        engine: The engine's socket.
        user: Who the commands run as in the container; "": whom the container itself runs as.
        bin_dir: Folder of Slurm's commands in the container, as the agent has it; "": its PATH.
        slurm_conf: Likewise slurm.conf; "": its own.
    """

    container: str
    engine: Path
    user: str = ""
    bin_dir: str = ""
    slurm_conf: str = ""


class Refused(Exception):
    """The request is not one of those that are allowed."""


def exec_of(given: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """The exec that is allowed in what was asked for. Raises Refused."""
    for name, value in given.items():
        if name not in _OURS and value and (name, value) != ("User", rules.user):
            raise Refused(f"an exec with {name} is not allowed")
    command, variables = _texts(given.get("Cmd")), _texts(given.get("Env") or [])
    _check_command(command, rules)
    for name, _, value in (variable.partition("=") for variable in variables):
        _check_variable(name, value, rules)
    streams = {"AttachStdin": False, "AttachStdout": True, "AttachStderr": True, "Tty": False}
    return streams | {"Cmd": command, "Env": variables, "User": rules.user}


def _texts(given: object) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise Refused("Cmd and Env must be lists of texts")
    return given


def _check_command(command: list[str], rules: Rules) -> None:
    limit, asked = command[:_LIMITED], command[_LIMITED:]
    if limit[:2] != ["timeout", "-k"] or not all(map(_bounds, limit[2:])):
        raise Refused(f"only what runs under `timeout -k SECONDS SECONDS`, above 0, up to {_LONGEST_S}, is allowed")
    # Others may stand there: the ends of squeue's and sacct's fields are control characters.
    if any("\0" in text for text in asked):
        raise Refused("a NUL in an argument is not allowed")
    folder = f"{rules.bin_dir}/" if rules.bin_dir else ""
    if asked[: len(LOOK_UP)] != LOOK_UP and (not asked or asked[0] not in {folder + name for name in COMMANDS}):
        raise Refused(f"only {', '.join(sorted(COMMANDS))} are allowed")


def _bounds(text: str) -> bool:
    """Whether it is a number that bounds: 0 means no limit to `timeout`."""
    return bool(_NUMBER.fullmatch(text)) and 0 < float(text) <= _LONGEST_S


def _check_variable(name: str, value: str, rules: Rules) -> None:
    fixed = {"PATH": rules.bin_dir and f"{rules.bin_dir}:{_SYSTEM_PATH}", "SLURM_CONF": rules.slurm_conf}
    if _CONTROL.search(value) or (name not in _VARIABLES and not (value and fixed.get(name) == value)):
        raise Refused(f"the variable {ascii(name)[1:-1]} is not allowed, or not with this value")


class SocketProxy(ThreadingMixIn, UnixStreamServer):
    """Serves on a unix socket of its own, which user and group may use.

    Raises:
        OSError: The socket cannot be made.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, listen: Path, rules: Rules) -> None:
        self.rules = rules
        self.ours: deque[str] = deque(maxlen=_REMEMBERED)
        if listen.is_socket():
            listen.unlink()
        super().__init__(str(listen), _Request)
        listen.chmod(0o660)


class _Engine(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=_PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE_S)
        self.sock.connect(str(self._path))


class _Request(BaseHTTPRequestHandler):
    server: SocketProxy
    server_version = "cvagent"
    timeout = _PATIENCE_S
    _begun = False

    def handle(self) -> None:
        """Answer one request; a client that went away is nobody's trouble."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Answer what only looks."""
        self._answer({r"/version": self._ask, r"/exec/(\w+)/json": self._ask_ours})

    def do_POST(self) -> None:
        """Answer what makes an exec, and what starts it."""
        container = re.escape(self.server.rules.container)
        self._answer({rf"/containers/{container}/exec": self._create, r"/exec/(\w+)/start": self._start}, self._body)

    def _answer(self, routes: Mapping[str, Any], body: Callable[[], dict[str, Any]] = dict) -> None:
        self.close_connection = True
        try:
            self._given = body()
            self._act(routes)
        except Refused as refusal:
            log.warning("refused: %s %s: %s", self.command, ascii(self.path)[1:-1][:200], refusal)
            self._say(HTTPStatus.FORBIDDEN, {"message": f"cvagent's socket proxy: {refusal}"})
        except (OSError, HTTPException) as error:
            if self._begun:
                log.warning("broken off: %s %s: %s", self.command, self.path, error)
                return
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, {"message": f"no answer from the Docker engine: {error}"})

    def _act(self, routes: Mapping[str, Any]) -> None:
        for route, act in routes.items():
            if match := re.fullmatch(rf"(?:/v[0-9]+\.[0-9]+)?{route}", self.path, re.ASCII):
                act(*match.groups())
                return
        raise Refused("not allowed")

    def _ask(self) -> None:
        self._pass(*self._asked("GET", self.path))

    def _ask_ours(self, exec_id: str) -> None:
        self._known(exec_id)
        self._ask()

    def _create(self) -> None:
        made = exec_of(self._given, self.server.rules)
        status, said = self._asked("POST", self.path, json.dumps(made).encode())
        if status == HTTPStatus.CREATED:
            self.server.ours.append(json.loads(said)["Id"])
        self._pass(status, said)

    def _start(self, exec_id: str) -> None:
        self._known(exec_id)
        if any(self._given.values()):
            raise Refused("an exec is started with its output, and with nothing else")
        with closing(self._engine()) as engine:
            headers = {"Content-Type": "application/json", "Connection": "close"}
            engine.request("POST", self.path, json.dumps({"Detach": False, "Tty": False}).encode(), headers)
            self._relay(engine.sock)

    def _relay(self, engine: socket.socket) -> None:
        """Hand on the engine's answer until it ends, or until the client goes away, or says more."""
        with selectors.DefaultSelector() as watched:
            for end in (engine, self.connection):
                watched.register(end, selectors.EVENT_READ)
            while self.connection not in [key.fileobj for key, _ in watched.select()]:
                if not (chunk := engine.recv(_CHUNK)):
                    return
                self._begun = True
                self.connection.sendall(chunk)

    def _known(self, exec_id: str) -> None:
        if exec_id not in self.server.ours:
            raise Refused("no exec that was made here")

    def _body(self) -> dict[str, Any]:
        length, *more = self.headers.get_all("Content-Length", [""])
        if more or not re.fullmatch("[0-9]{1,7}", length) or int(length) > _MOST_BYTES:
            raise Refused("the body must say its length, once, at most a MiB")
        if "Transfer-Encoding" in self.headers:
            raise Refused("a body in pieces is not allowed")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise Refused("the body is no JSON that is read here") from None
        if not isinstance(body, dict):
            raise Refused("the body is no object")
        return body

    def _engine(self) -> _Engine:
        return _Engine(self.server.rules.engine)

    def _asked(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        with closing(self._engine()) as engine:
            engine.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = engine.getresponse()
            return answer.status, answer.read()

    def _say(self, status: int, said: Mapping[str, str]) -> None:
        self._pass(status, json.dumps(said).encode())

    def _pass(self, status: int, body: bytes) -> None:
        self._begun = True
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        """A unix socket's clients have none."""
        return "-"

    def log_request(self, *_answered: Any) -> None:
        """Say nothing of what is allowed."""
