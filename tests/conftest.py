"""What every folder of tests may use: a real PostgreSQL. No test depends on how fast the machine is."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

START_LIMIT_S = 30
STOP_LIMIT_S = 20


@pytest.fixture(scope="session")
def postgresql():
    """The URL of a PostgreSQL server that belongs to this test session."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=_version, default=None)
    if binaries is None:
        pytest.skip("no PostgreSQL in /usr/lib/postgresql: install it with lab/packages postgresql")
    folder = Path(tempfile.mkdtemp(prefix="cvagent-postgresql-", dir="/tmp"))  # its user must be able to reach it
    as_user = _as_user(folder)
    server = None
    try:
        made = subprocess.run(
            [
                *as_user,
                binaries.with_name("initdb"),
                "-D",
                folder / "data",
                "-U",
                "cvagent",
                "-A",
                "trust",
                "--no-sync",
            ],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [*as_user, binaries, "-D", folder / "data", "-k", folder, "-F", "-c", "listen_addresses="],
                cwd="/",
                stdout=log,
                stderr=log,
            )
        assert _answers_in_time(folder), (folder / "log").read_text()
        yield f"postgresql+psycopg://cvagent@/postgres?host={folder}"
    finally:
        if server:
            server.send_signal(signal.SIGINT)
            server.wait(STOP_LIMIT_S)
        shutil.rmtree(folder)


@pytest.fixture
def postgresql_database(postgresql, request):
    """The URL of an empty database for one test."""
    name = f"test_{abs(hash(request.node.nodeid))}"
    host = postgresql.partition("host=")[2]
    with psycopg.connect(host=host, user="cvagent", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield postgresql.replace("@/postgres?", f"@/{name}?")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _version(postgres: Path) -> float:
    return float(postgres.parent.parent.name)


def _as_user(folder: Path) -> list[str]:
    """PostgreSQL refuses root. It ends with this process, however that ends."""
    if os.geteuid() != 0:
        return ["setpriv", "--pdeathsig", "INT"]
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--pdeathsig", "INT"]


def _answers_in_time(folder: Path) -> bool:
    deadline = time.monotonic() + START_LIMIT_S
    pause = threading.Event()
    while not (answers := _answers(folder)) and time.monotonic() < deadline:
        pause.wait(0.05)
    return answers


def _answers(folder: Path) -> bool:
    try:
        psycopg.connect(host=str(folder), user="cvagent", dbname="postgres").close()
    except psycopg.OperationalError:
        return False
    return True
