"""Runs Slurm's commands: natively here, in a container in `clients.docker`. Arguments in, stdout out, never a shell."""

import os
import re
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import IO, Protocol, cast

from cvagent.errors import CommandFailed

MAX_STDOUT = 256 * 1024 * 1024
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOPPED = "ended because the agent stops"

_MAX_STDERR = 64 * 1024
_MAX_REASON = 300
_MAX_COMPLAINT = 2000
_CHUNK = 64 * 1024
_NO_CONF = "CVAGENT_SLURM_CONF names a slurm.conf that is not in the usual place"
# How soon a running command hears of stop(), in seconds.
_GLANCE_S = 0.2
# How long a command may take to undo what it began, when it is told to end.
_PARTING_S = 1.0
_POLL_S = 0.01
# A killed process may still hang in the kernel (a dead file server): it is not waited for longer than this.
_BURIAL_S = 2.0


class Runner(Protocol):
    """Runs one command to its end. Any thread may call; several commands may run at once."""

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> bytes:
        """Return what the command printed on stdout; stderr is only ever read for the reason of a failure.

        Args:
            command: Program name and arguments, passed on as they are.
            timeout_s: Seconds after which the command and all that it started are ended.
            env: Variables beside those that Slurm's commands always get.

        Raises:
            CommandFailed: Not started, exit code other than 0, out of time, too much output, or ended by stop().
        """
        ...

    def stop(self) -> None:
        """End running commands and refuse new ones: each raises CommandFailed within two seconds. For good."""
        ...


class Watch:
    """Holds one command to its time limit and hears of the stop.

    Args:
        name: The program's name, for the error.
        limit_s: The limit that the error names, in seconds.
        stopped: Set when the agent stops.
    """

    def __init__(self, name: str, limit_s: float, stopped: threading.Event) -> None:
        self.name = name
        self._limit_s = limit_s
        self._stopped = stopped
        self._began = time.monotonic()
        self.check()

    def check(self) -> None:
        """Raise CommandFailed once the agent stops."""
        if self._stopped.is_set():
            raise CommandFailed(self.name, STOPPED)

    def spent(self, grace_s: float = 0.0) -> bool:
        """Whether the time is over, and so many seconds more."""
        return time.monotonic() - self._began >= self._limit_s + grace_s

    def glance(self) -> float:
        """Seconds to wait before asking again; raises CommandFailed when there is nothing left to wait for."""
        self.check()
        if self.spent():
            raise self.too_late()
        return min(_GLANCE_S, self._began + self._limit_s - time.monotonic())

    def too_late(self) -> CommandFailed:
        """The error for a command that ran out of time."""
        return CommandFailed(self.name, f"did not end within {self._limit_s:g} s (CVAGENT_SLURM_TIMEOUT_S)")


class Output:
    """What a command prints, bounded in memory: all of stdout or an error, the end of stderr.

    Args:
        name: The program's name, for errors.
        max_stdout: Bytes.
    """

    def __init__(self, name: str, max_stdout: int) -> None:
        self._name = name
        self._max = max_stdout
        self._size = 0
        self._stdout: list[bytes] = []
        self._stderr = b""

    def out(self, chunk: bytes) -> None:
        """Take a piece of stdout."""
        self._size += len(chunk)
        if self._size > self._max:
            raise CommandFailed(self._name, f"printed more than {self._max / 1024**2:g} MiB")
        self._stdout.append(chunk)

    def err(self, chunk: bytes) -> None:
        """Take a piece of stderr."""
        self._stderr = (self._stderr + chunk)[-_MAX_STDERR:]

    def reason(self) -> str:
        """Its own last words on stderr; empty when it said nothing."""
        words = last_words(self._stderr, self._name)
        return f"{words} ({_NO_CONF})" if "configuration source" in words else words

    def stdout(self) -> bytes:
        """All of stdout."""
        return b"".join(self._stdout)

    def _complaint(self) -> str:
        return " ".join(_cleaned(self._stderr.decode(errors="replace")).split())[:_MAX_COMPLAINT]

    def result(self, exit_code: int) -> bytes:
        """Stdout; raises CommandFailed for an exit code other than 0."""
        if exit_code:
            reason = self.reason() or f"exit code {exit_code}, no message"
            raise CommandFailed(self._name, reason, exit_code, self.stdout(), self._complaint())
        return self.stdout()


class NativeRunner:
    """Runs commands on this machine, each in a process group of its own.

    Args:
        bin_dir: Folder of Slurm's commands; None finds them on the agent's PATH.
        slurm_conf: Path of slurm.conf; None keeps the SLURM_CONF that the agent itself was given, if any.
        max_stdout: Bytes.
        stopped: Set by stop(), and may be set by others; None makes one.
    """

    def __init__(
        self,
        bin_dir: Path | None = None,
        slurm_conf: Path | None = None,
        *,
        max_stdout: int = MAX_STDOUT,
        stopped: threading.Event | None = None,
    ) -> None:
        self._bin_dir = bin_dir
        self._max_stdout = max_stdout
        self._stopped = stopped or threading.Event()
        path = os.environ.get("PATH") or SYSTEM_PATH
        self._environment = {"PATH": path} | slurm_environment(
            bin_dir, slurm_conf or os.environ.get("SLURM_CONF"), path
        )

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> bytes:
        """See Runner."""
        watch = Watch(PurePath(command[0]).name, timeout_s, self._stopped)
        output = Output(watch.name, self._max_stdout)
        process = self._start(watch.name, command, env or {})
        try:
            _read(process, output, watch)
            exit_code = _wait(process, watch)
        except BaseException as error:
            _kill(process)
            if isinstance(error, CommandFailed):
                error.stdout = output.stdout()
            raise
        finally:
            _pipe(process.stdout).close()
            _pipe(process.stderr).close()
        if exit_code < 0:
            raise CommandFailed(watch.name, f"was ended by signal {-exit_code}", 128 - exit_code)
        return output.result(exit_code)

    def stop(self) -> None:
        """See Runner."""
        self._stopped.set()

    def _start(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        arguments = [in_folder(self._bin_dir, command[0]), *command[1:]]
        try:
            return subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment | dict(env),
                start_new_session=True,
            )
        except OSError as error:
            raise CommandFailed(name, self._unstartable(error)) from None

    def _unstartable(self, error: OSError) -> str:
        where = self._bin_dir or "the folders of PATH"
        if isinstance(error, FileNotFoundError):
            return f"not found in {where}: set CVAGENT_SLURM_BIN_DIR to the folder that holds it"
        if isinstance(error, PermissionError):
            return f"the agent's user may not run it in {where}: check its rights, or CVAGENT_SLURM_BIN_DIR"
        return f"cannot be started: {error.strerror}"


def slurm_environment(bin_dir: PurePath | None, slurm_conf: PurePath | str | None, path: str) -> dict[str, str]:
    """Variables that make Slurm's commands print the same everywhere: UTC, epoch seconds, plain messages.

    Args:
        bin_dir: Put in front of the PATH; None says nothing about PATH.
        slurm_conf: None says nothing about SLURM_CONF.
        path: What comes after `bin_dir`.
    """
    environment = {"TZ": "UTC", "LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"}
    if bin_dir:
        environment["PATH"] = f"{bin_dir}:{path}"
    if slurm_conf:
        environment["SLURM_CONF"] = str(slurm_conf)
    return environment


def in_folder(bin_dir: PurePath | None, program: str) -> str:
    """The program's path in the folder; its bare name without one."""
    return str(bin_dir / program) if bin_dir else program


def last_words(stderr: bytes, name: str) -> str:
    r"""The last line that says something, cleaned of control characters and of the program's own name.

    >>> last_words(b"squeue: unknown option\nTry 'squeue --help' for more information\n\n", "squeue")
    'unknown option'
    """
    lines = (_cleaned(line).strip() for line in stderr.decode(errors="replace").split("\n"))
    said = [line for line in lines if line and not line.startswith("Try ")]
    return said[-1].removeprefix(f"{name}: ")[:_MAX_REASON] if said else ""


def _cleaned(text: str) -> str:
    return re.sub(r"[\x00-\x20\x7f-\x9f]+", " ", text)


def _read(process: subprocess.Popen[bytes], output: Output, watch: Watch) -> None:
    """Read both streams to their ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(_pipe(process.stdout), selectors.EVENT_READ, output.out)
        selector.register(_pipe(process.stderr), selectors.EVENT_READ, output.err)
        while selector.get_map():
            for key, _ in selector.select(watch.glance()):
                chunk = os.read(key.fd, _CHUNK)
                cast("Callable[[bytes], None]", key.data)(chunk)
                if not chunk:
                    selector.unregister(key.fileobj)


def _wait(process: subprocess.Popen[bytes], watch: Watch) -> int:
    """Wait for a process that closed its streams; most are gone by then."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(watch.glance())


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group. Only while the leader is not reaped is its id surely ours."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
        _let_part(process.pid)
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_BURIAL_S)


def _let_part(pid: int) -> None:
    """Wait a moment for a process to end, and do not reap it. An srun killed at once would leave its job behind."""
    deadline = time.monotonic() + _PARTING_S
    while time.monotonic() < deadline and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
        time.sleep(_POLL_S)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    return cast("IO[bytes]", stream)
