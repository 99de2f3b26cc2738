"""What the store's place costs, and a first look at a day of ended jobs."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Row, median, ms, scratch, seen, started, wait_until
from benchmarks.replay import Replay
from benchmarks.rounds import JOBS, Rounds, steady_s
from benchmarks.stubs import DAY_S

_ENDED = 80_000
_TIMES = 3


def measure() -> Iterator[Row]:
    """See the module."""
    memory = steady_s(JOBS)
    beside = ms(memory, "with the store in memory")
    with scratch() as folder:
        file = steady_s(JOBS, f"sqlite:///{folder}/store.db")
    yield seen(f"CPU of a steady round over {JOBS:,} jobs, store in a SQLite file", ms(file), beside)
    with postgresql() as url:
        if url:
            yield seen("the same, store in PostgreSQL (the client's CPU)", ms(steady_s(JOBS, url)), beside)
    cold = median(lambda: Rounds(Replay(JOBS, _ENDED, DAY_S)).cpu_s(), _TIMES)
    yield seen(f"CPU of a first round with {_ENDED:,} jobs that ended within the last day", ms(cold))


@contextmanager
def postgresql() -> Iterator[str | None]:
    """The URL of a server of our own; None where PostgreSQL is not installed."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if binaries is None:
        yield None
        return
    with scratch() as folder:
        user = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        os.chown(folder, user.pw_uid, user.pw_gid)
        become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        prefix = become if os.geteuid() == 0 else []
        data = folder / "data"
        initdb = [*prefix, binaries / "initdb", "-D", data, "-U", "cvagent", "-A", "trust", "--no-sync"]
        subprocess.run(initdb, cwd="/", check=True, stdout=subprocess.DEVNULL)
        serve = [*prefix, binaries / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses="]
        with scratch() as logs, started(*serve, log=logs / "log"):
            wait_until(lambda: "ready to accept" in (logs / "log").read_text(), 30, "PostgreSQL")
            yield f"postgresql://cvagent@/postgres?host={folder}"
