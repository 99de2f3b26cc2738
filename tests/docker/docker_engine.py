"""A real Docker engine for tests, in namespaces of its own: when it ends, the kernel ends all that it started.

It reaches the network as a user process does (slirp4netns), so that builds work, and touches neither the machine's
interfaces nor its iptables. What it publishes on 127.0.0.1 is there inside its network namespace alone: see `inside`.
"""

import ctypes
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from waiting import wait_until

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
FOLDERS = Path("/var/tmp")  # noqa: S108 - a unix socket's path must be short
PREFIX = "cvagent-docker-"
# Debian's own: another `docker` may come first on the PATH.
DOCKER, DOCKERD = "/usr/bin/docker", "/usr/sbin/dockerd"
NEEDED = (DOCKER, DOCKERD, "mmdebstrap", "slirp4netns", "unshare", "ip")
START_LIMIT_S = 30
COMMAND_LIMIT_S = 60
BUILD_LIMIT_S = 300
CLONE_NEWNET = 0x40000000
WITH_PYTHON = "--include=python3,python3-venv,ca-certificates"
# By the name that a FROM line has: Debian's release, and what there is beside its smallest set of packages.
BASES = {
    "python:3.11-slim-bookworm": ("bookworm", WITH_PYTHON),
    "debian:bookworm-slim": ("bookworm", WITH_PYTHON),
    "debian:trixie-slim": ("trixie",),
    "debian:sid-slim": ("sid",),
}
# Images are made and kept in memory where there is enough: on a disk it takes twice as long. Goes with its namespace.
IN_MEMORY_BYTES = 8 * 1024**3
ALONE = """
ip link set lo up
exec unshare --pid --mount --mount-proc --fork --kill-child docker-init -- sh -ec "$0" "$@"
"""
ON_TMPFS = 'mount -t tmpfs -o mode=700 tmpfs "$0" && exec "$@"'
ON_DISK = 'exec "$@"'


class Engine:
    """One engine. Its images are made here, from Debian's archive: nothing is pulled."""

    def __init__(self, folder: Path, ending: ExitStack) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self._ending = ending
        self._bases: dict[tuple[str, ...], subprocess.Popen] = {}
        self._compose: subprocess.Popen | None = None
        self._environment = os.environ | {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(folder / "config"),
            "DOCKER_BUILDKIT": "1",
        }
        self._keep = ON_TMPFS if psutil.virtual_memory().available > IN_MEMORY_BYTES else ON_DISK

    def start(self) -> "Engine":
        """Starts it. Skips the test where the machine does not let it start."""
        images, running = self._place("images"), self._place("running")
        places = [f"--data-root={images}", f"--exec-root={running}", f"--pidfile={running}/pid"]
        engine = [DOCKERD, *places, f"--host=unix://{self.socket}", "--mtu=1400"]
        log = self._log("dockerd")
        process = self._begin(["unshare", "--net", "sh", "-ec", ALONE, self._keep, str(images), *engine], log)
        self.network = Path(f"/proc/{process.pid}/ns/net")
        # What the engine calls /..., as this process may call it.
        self.root_of_namespace = Path(f"/proc/{process.pid}/root")
        wait_until(lambda: process.poll() is not None or _own_network(self.network), START_LIMIT_S)
        self._connect()
        wait_until(lambda: process.poll() is not None or self._answers(), START_LIMIT_S, "dockerd")
        if process.poll() is not None:
            pytest.skip(f"no Docker engine can be started here: {log.read_text()[-300:]}")
        self._inside = self._ending.enter_context(ThreadPoolExecutor(1, initializer=self._enter))
        self._ending.callback(lambda: self.docker("rm", "-f", *self.docker("ps", "-aq").split(), check=False))
        return self

    def docker(self, *arguments: object, limit_s: float = COMMAND_LIMIT_S, check: bool = True, **more) -> str:
        """Runs `docker ...` and returns what it printed; AssertionError with its words when it failed."""
        done = self.result(*arguments, limit_s=limit_s, **more)
        assert not check or done.returncode == 0, f"docker {arguments}: {done.stderr[-3000:]}"
        return done.stdout

    def result(
        self, *arguments: object, limit_s: float = COMMAND_LIMIT_S, env: dict[str, str] | None = None, **more
    ) -> subprocess.CompletedProcess:
        """Runs `docker ...` and returns exit code, stdout and stderr."""
        return subprocess.run(
            [DOCKER, *map(str, arguments)],
            env=self._environment | (env or {}),
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
            **more,
        )

    def inside(self, function: Callable[..., T], *arguments, **named) -> T:
        """Calls a function in the engine's network namespace: `inside(requests.get, "http://127.0.0.1:9410")`."""
        return self._inside.submit(function, *arguments, **named).result()

    def fetch_base(self, name: str) -> subprocess.Popen:
        """Begins to make a base image, if nobody has."""
        release, *packages = recipe = BASES[name]
        if recipe not in self._bases:
            # A mirror's sid may be older than its own Release file allows.
            lenient = '--aptopt=Acquire::Check-Valid-Until "false"'
            log = self._log(release)
            place = self._place(release)
            make = ["env", f"TMPDIR={place}", "mmdebstrap", "--variant=minbase", lenient, *packages, release]
            made = self._begin(["unshare", "--mount", "sh", "-ec", self._keep, str(place), *make], log, subprocess.PIPE)
            self._bases[recipe] = self._begin([DOCKER, "import", "-", f"debian:{release}-slim"], log, stdin=made.stdout)
            made.stdout.close()
        return self._bases[recipe]

    def base(self, name: str) -> str:
        """Makes the base image that a FROM line names, and returns that name."""
        release = BASES[name][0]
        failed = self.fetch_base(name).wait(BUILD_LIMIT_S)
        assert not failed, self._log(release).read_text()[-1000:]
        self.docker("tag", f"debian:{release}-slim", name)
        return name

    def fetch_compose(self) -> subprocess.Popen:
        """Begins to get Docker's compose, version 2: trixie's package of it holds one binary that runs anywhere."""
        if self._compose is None:
            place = self._place("compose")
            make = ["mmdebstrap", "--variant=extract", "--include=docker-compose", "trixie", str(place)]
            self._compose = self._begin(make, self._log("docker-compose"))
        return self._compose

    def compose(self, *arguments: object, limit_s: float = COMMAND_LIMIT_S, **more) -> str:
        """Runs `docker compose ...` and returns what it printed."""
        plugins = self.folder / "config" / "cli-plugins"
        if not plugins.exists():
            failed = self.fetch_compose().wait(BUILD_LIMIT_S)
            assert not failed, self._log("docker-compose").read_text()[-1000:]
            plugins.mkdir(parents=True)
            binary = self.folder / "compose/usr/libexec/docker/cli-plugins/docker-compose"
            binary.rename(plugins / binary.name).chmod(0o755)
        return self.docker("compose", *arguments, limit_s=limit_s, **more)

    def build(self, context: Path, tag: str, *arguments: str) -> str:
        """Builds an image, and returns its tag. Where TLS is intercepted pip learns of the CA as by hand."""
        authority = os.environ.get("PIP_CERT")
        secret = ["--secret", f"id=ca,src={authority}"] if authority else []
        self.docker("build", "-q", *secret, "-t", tag, *arguments, context, limit_s=BUILD_LIMIT_S)
        return tag

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _place(self, name: str) -> Path:
        place = self.folder / name
        place.mkdir()
        return place

    def _begin(self, command: list[str], log: Path, stdout=None, stdin=subprocess.DEVNULL) -> subprocess.Popen:
        """A process that ends with this one, however that ends."""
        with log.open("ab") as said:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                env=self._environment,
                stdin=stdin,
                stdout=stdout or said,
                stderr=said,
                start_new_session=True,
            )
        self._ending.callback(_end, process)
        return process

    def _connect(self) -> None:
        ready, tell = os.pipe()
        try:
            command = ["slirp4netns", "--configure", "--mtu=1500", "--disable-host-loopback", "--netns-type=path"]
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command, f"--ready-fd={tell}", str(self.network), "tap0"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[tell],
            )
            self._ending.callback(_end, process)
        finally:
            os.close(tell)
        with os.fdopen(ready, "rb") as said:
            said.read(1)

    def _answers(self) -> bool:
        return self.socket.exists() and self.result("version").returncode == 0

    def _enter(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        with self.network.open("rb") as network:
            assert library.setns(network.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


def why_not() -> str | None:
    """Why no engine can run on this machine, or None."""
    if os.geteuid() != 0:
        return "no Docker engine of our own: that takes root"
    missing = [name for name in NEEDED if not shutil.which(name)]
    return f"no Docker engine: {', '.join(missing)} not installed (lab/packages docker)" if missing else None


def folder_of_ours(ending: ExitStack) -> Path:
    """A folder that is removed in the end; those of test sessions that were killed go first."""
    for folder in FOLDERS.glob(f"{PREFIX}*"):
        with suppress(BlockingIOError), ExitStack() as holding:
            _hold(folder, holding)
            shutil.rmtree(folder)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=FOLDERS))
    ending.callback(shutil.rmtree, folder)
    _hold(folder, ending)
    return folder


def _hold(folder: Path, holding: ExitStack) -> None:
    """Keep a folder for this process, for as long as it lives. BlockingIOError when another has it."""
    opened = os.open(folder, os.O_RDONLY)
    holding.callback(os.close, opened)
    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _own_network(network: Path) -> bool:
    return network.readlink() != Path("/proc/self/ns/net").readlink()


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
