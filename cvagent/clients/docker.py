"""Runs Slurm's commands in the container that holds slurmctld, by the Docker engine's exec."""

import importlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from pathlib import PurePath
from typing import Any, NamedTuple

import requests
import urllib3

from cvagent.clients.docker_stream import GRACE_S, STDOUT, frames
from cvagent.clients.runner import (
    MAX_STDOUT,
    STOPPED,
    SYSTEM_PATH,
    Output,
    Watch,
    in_folder,
    last_words,
    slurm_environment,
)
from cvagent.errors import CommandFailed

# How soon a run hears of stop(), in seconds.
_GLANCE_S = 0.2
_KILL_AFTER_S = 1
_MAX_ENGINE_TEXT = 2000

_TIMED_OUT, _NOT_RUN, _NOT_FOUND, _KILLED = 124, 126, 127, 137


class Container(NamedTuple):
    """One container.

    Attributes:
        name: Or its id.
        bin_dir: Folder of Slurm's commands inside; None leaves it to the container's PATH.
        slurm_conf: Path of slurm.conf inside; None leaves it to the container.
        user: As whom commands run; empty leaves it to the container.
    """

    name: str
    bin_dir: PurePath | None = None
    slurm_conf: PurePath | None = None
    user: str = ""


class DockerRunner:
    """Runs commands by `docker exec`, under `timeout` inside the container; see Runner.

    A command that has to be given up (the agent stops, the engine hangs) ends in the container by its own limit.

    Args:
        container: Where commands run.
        client: Makes a `docker.APIClient` with that HTTP timeout in seconds; None takes the engine that DOCKER_HOST
            names, or the local socket.
        max_stdout: Bytes.
    """

    def __init__(
        self,
        container: Container,
        client: Callable[[float], Any] | None = None,
        *,
        max_stdout: int = MAX_STDOUT,
    ) -> None:
        self._container, self._bin_dir, slurm_conf, self._user = container
        self._environment = slurm_environment(self._bin_dir, slurm_conf, SYSTEM_PATH)
        self._max_stdout = max_stdout
        self._sdk = importlib.import_module("docker")
        self._connect = client or self._local_engine
        self._engines: dict[float, Any] = {}
        self._keeping = threading.Lock()
        self._stopped = threading.Event()
        self._open: set[requests.Response] = set()
        self._opening = threading.Lock()

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> bytes:
        """See Runner."""
        watch = Watch(PurePath(command[0]).name, timeout_s, self._stopped)
        output = Output(watch.name, self._max_stdout)

        def carry_out() -> int:
            with self._readable(watch, timeout_s):
                return self._exec(command, watch, output, timeout_s, env or {})

        exit_code = _awaited(carry_out, watch)
        if exit_code in {_TIMED_OUT, _KILLED} and watch.spent():
            raise watch.too_late()
        if exit_code in {_NOT_RUN, _NOT_FOUND, _KILLED}:
            raise CommandFailed(watch.name, self._unusual(exit_code, watch.name, output), exit_code)
        return output.result(exit_code)

    def stop(self) -> None:
        """See Runner."""
        with self._opening:
            self._stopped.set()
            for response in self._open:
                with suppress(OSError, ValueError, RuntimeError):
                    response.raw.shutdown()
        with self._keeping:
            for engine in self._engines.values():
                engine.close()

    def _exec(
        self, command: Sequence[str], watch: Watch, output: Output, timeout_s: float, env: Mapping[str, str]
    ) -> int:
        engine = self._engine(timeout_s + GRACE_S)
        arguments = ["timeout", "-k", str(_KILL_AFTER_S), _seconds(timeout_s)]
        arguments += [in_folder(self._bin_dir, command[0]), *command[1:]]
        # Nobody waits any more for what an engine that hung would now begin.
        watch.glance()
        given = {"environment": self._environment | dict(env), "user": self._user}
        exec_id = engine.exec_create(self._container, arguments, **given)["Id"]
        with self._stream(engine, exec_id, watch) as raw:
            for kind, chunk in frames(raw, watch):
                (output.out if kind == STDOUT else output.err)(chunk)
        watch.check()
        return self._exit_code(engine, exec_id, watch)

    @contextmanager
    def _stream(self, engine: Any, exec_id: str, watch: Watch) -> Iterator[Any]:
        """Start the exec and yield its output.

        Not by the SDK's exec_start: that waits without a limit, and loses what arrives together with the headers.
        """
        url = f"{engine.base_url}/v{engine.api_version}/exec/{exec_id}/start"
        watch.glance()
        with engine.post(url, json={"Detach": False, "Tty": False}, stream=True, timeout=engine.timeout) as response:
            response.raise_for_status()
            with self._opening:
                watch.check()
                self._open.add(response)
            try:
                yield response.raw
            finally:
                with self._opening:
                    self._open.discard(response)

    def _exit_code(self, engine: Any, exec_id: str, watch: Watch) -> int:
        """The engine may need a moment between the end of the output and the exit code."""
        while (exit_code := engine.exec_inspect(exec_id)["ExitCode"]) is None:
            self._stopped.wait(watch.glance() / 10)
        return int(exit_code)

    def _engine(self, http_timeout_s: float) -> Any:
        """One client for each limit: the SDK keeps its timeout in the client."""
        with self._keeping:
            engine = self._engines.get(http_timeout_s)
        # Not under the lock: to connect the SDK asks the engine for its version, which may take as long as the limit.
        return engine or self._kept(http_timeout_s, self._connect(http_timeout_s))

    def _kept(self, http_timeout_s: float, made: Any) -> Any:
        """The client to use: the one just made, or that of a thread that was sooner."""
        with self._keeping:
            kept = self._engines.setdefault(http_timeout_s, made)
        if kept is not made or self._stopped.is_set():
            made.close()
        return kept

    def _local_engine(self, http_timeout_s: float) -> Any:
        return self._sdk.APIClient(**self._sdk.utils.kwargs_from_env(), timeout=http_timeout_s, version="auto")

    def _forget_engine(self, http_timeout_s: float) -> None:
        with self._keeping:
            engine = self._engines.pop(http_timeout_s, None)
        if engine is not None:
            engine.close()

    @contextmanager
    def _readable(self, watch: Watch, timeout_s: float) -> Iterator[None]:
        """Turn what the SDK raises into CommandFailed; after a transport error the client is made anew on next use."""
        try:
            yield
        except requests.HTTPError as error:
            raise CommandFailed(watch.name, self._refusal(error)) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            self._forget_engine(timeout_s + GRACE_S)
            raise CommandFailed(watch.name, STOPPED if self._stopped.is_set() else _no_engine(error)) from None
        except self._sdk.errors.DockerException as error:
            raise CommandFailed(watch.name, _no_engine(error)) from None
        except KeyError as error:
            raise CommandFailed(watch.name, f"the Docker engine's answer holds no {error}") from None

    def _refusal(self, error: requests.HTTPError) -> str:
        words = " ".join(str(getattr(error, "explanation", None) or error).split())[:300]
        status = error.response.status_code
        if status == requests.codes.not_found and "exec" not in words.lower():
            return f"there is no container {self._container}: check its name with `docker ps -a`"
        if status == requests.codes.conflict:
            return self._not_running(words)
        return f"the Docker engine refused ({status}): {words}"

    def _unusual(self, exit_code: int, name: str, output: Output) -> str:
        """The reason for the exit codes that the engine and `timeout` use themselves.

        The engine says on stdout why it could not start a command.
        """
        engine = last_words(output.stdout()[:_MAX_ENGINE_TEXT], name)
        said = f"{engine} {output.reason()}".lower()
        if 'exec: "timeout"' in said:
            return f"the container {self._container} has no `timeout` command (coreutils), without which nothing is run"
        if "in a stopped" in said or "not running" in said:
            return self._not_running(engine)
        if "permission denied" in said:
            return f"may not be run in the container {self._container}: check its rights"
        if "not found" in said or "no such file" in said:
            where = f"in {self._bin_dir} of the container" if self._bin_dir else "in the container"
            return f"not found {where} {self._container}: set CVAGENT_SLURM_BIN_DIR to the folder that holds {name}"
        if exit_code == _KILLED:
            return f"was killed: the container {self._container} was stopped, or out of memory"
        return output.reason() or engine or f"exit code {exit_code}, no message"

    def _not_running(self, words: str) -> str:
        return f"the container {self._container} is stopped or paused: start it ({words})"


def _awaited(work: Callable[[], int], watch: Watch) -> int:
    """What `work` returns. It is left alone when the agent stops or the time is over: the SDK cannot be interrupted.

    As the container ends the command in time, it is the engine that does not answer then.
    """
    done: Future[int] = Future()

    def carry_out() -> None:
        try:
            done.set_result(work())
        except CommandFailed as error:
            done.set_exception(error)
        except BaseException as error:
            done.set_exception(error)
            raise

    threading.Thread(target=carry_out, name=watch.name, daemon=True).start()
    while not wait([done], _GLANCE_S).done:
        watch.check()
        if watch.spent(GRACE_S):
            raise CommandFailed(watch.name, _silent_engine())
    return done.result()


def _engine_named() -> str:
    return f"Docker engine at {os.environ.get('DOCKER_HOST', 'unix:///var/run/docker.sock')}"


def _silent_engine() -> str:
    return f"the {_engine_named()} does not answer"


def _no_engine(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "Permission denied" in text:
        return f"the agent may not use the {_engine_named()}: give its user the group of the socket"
    if isinstance(error, requests.Timeout) or "timed out" in text.lower():
        return _silent_engine()
    return f"no {_engine_named()}: is it running, and is its socket mounted? ({text[-120:]})"


def _seconds(limit_s: float) -> str:
    """As `timeout` reads it; busybox knows whole numbers only.

    >>> _seconds(30.0), _seconds(0.5)
    ('30', '0.5')
    """
    return f"{limit_s:.3f}".rstrip("0").rstrip(".")
