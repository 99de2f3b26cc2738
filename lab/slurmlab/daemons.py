"""One daemon at a time: is it alive, start it, stop it, break it. By pid, and only when the pid bears its name."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from slurmlab.errors import LabError
from slurmlab.namespaces import TEMPLATES, inside, need_holder
from slurmlab.settings import ACCOUNTS, USERS, Settings
from slurmlab.waiting import wait_until

START_LIMIT_S = 60
STOP_LIMIT_S = 20
SLURMDBD_PORT = 6819
SLURMCTLD_PORT = 6817
SIGNALS = {"kill": "KILL", "freeze": "STOP", "thaw": "CONT"}


def pid_of(settings: Settings, name: str) -> int | None:
    """The daemon's pid inside the lab, or None when it is not running. A node's slurmd is called `slurmd.node1`."""
    holder = need_holder(settings.folder)
    try:
        pid = int(settings.path("run", f"{name}.pid").read_text())
        comm = Path(f"/proc/{holder}/root/proc/{pid}/comm").read_text().strip()
        stat = Path(f"/proc/{holder}/root/proc/{pid}/stat").read_text()
    except (OSError, ValueError):
        return None
    alive = comm == name.partition(".")[0] and stat.rpartition(")")[2].split()[0] != "Z"
    return pid if alive else None


def signal(settings: Settings, name: str, number: str) -> None:
    """Sends a signal to a daemon that runs."""
    pid = pid_of(settings, name)
    if pid is None:
        raise LabError(f"{name} is not running")
    inside(settings, "kill", f"-{number}", str(pid))


def stop(settings: Settings, *names: str) -> None:
    """Asks the daemons to end and waits for it; those that do not run are fine."""
    running = {name: pid for name in names if (pid := pid_of(settings, name))}
    if not running:
        return
    pids = [str(pid) for pid in running.values()]
    # A frozen one must thaw to end.
    inside(settings, "sh", "-c", 'kill -TERM "$@"; kill -CONT "$@"', "sh", *pids, check=False)
    _wait_for(lambda: not any(pid_of(settings, name) for name in running), STOP_LIMIT_S, f"{', '.join(running)} to end")


def kill(settings: Settings, name: str) -> None:
    """Ends a daemon at once, and waits until it is gone."""
    signal(settings, name, "KILL")
    _wait_for(lambda: pid_of(settings, name) is None, STOP_LIMIT_S, f"{name} to be gone")


def start(settings: Settings, name: str) -> None:
    """Starts a daemon unless it runs, and waits until it answers."""
    if pid_of(settings, name) is None:
        settings.path("run", f"{name}.pid").unlink(missing_ok=True)
        START[name](settings)


def start_munged(settings: Settings) -> None:
    """munged, with a key of the lab's own."""
    run, etc, log = settings.path("run"), settings.path("etc"), settings.path("log")
    for stale in run.glob("munge.socket*"):
        stale.unlink()
    inside(
        settings,
        *("munged", f"--key-file={etc}/munge.key", f"--socket={run}/munge.socket", f"--pid-file={run}/munged.pid"),
        *(f"--log-file={log}/munged.log", f"--seed-file={settings.path('state')}/munged.seed", "--num-threads=4"),
    )


def start_mariadbd(settings: Settings) -> None:
    """MariaDB. Its tables are made aside and renamed: half of them, left by a killed start, would break the next."""
    run, log, db = settings.path("run"), settings.path("log"), settings.path("db", "mariadb")
    if not db.exists():
        fresh = settings.path("db", "fresh")
        inside(settings, "rm", "-rf", str(fresh))
        inside(
            settings,
            *("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={fresh}", "--skip-test-db"),
            *("--auth-root-authentication-method=normal", "--innodb-log-file-size=16M"),
        )
        fresh.rename(db)
    run.joinpath("mysql.sock").unlink(missing_ok=True)
    inside(
        settings,
        *("sh", "-c", 'log=$1; shift; exec setsid --fork "$@" </dev/null >>"$log" 2>&1', "sh", f"{log}/mariadbd.log"),
        *("mariadbd", "--no-defaults", "--user=root", f"--datadir={db}", f"--socket={run}/mysql.sock"),
        *(f"--pid-file={run}/mariadbd.pid", "--bind-address=127.0.0.1", "--port=6837", "--skip-log-bin"),
        *("--innodb-buffer-pool-size=128M", "--innodb-log-file-size=16M", "--innodb-lock-wait-timeout=900"),
        *("--innodb-flush-log-at-trx-commit=2", "--max-allowed-packet=64M", f"--init-file={TEMPLATES}/mariadb.sql"),
    )
    _wait_for(lambda: _accepts(run / "mysql.sock"), START_LIMIT_S, f"mariadbd ({log}/mariadbd.log)")


def start_slurmdbd(settings: Settings) -> None:
    """slurmdbd; it makes its tables before it listens."""
    inside(settings, "slurmdbd")
    _wait_for(
        lambda: _listens(settings, SLURMDBD_PORT), START_LIMIT_S, f"slurmdbd ({settings.path('log')}/slurmdbd.log)"
    )


def start_slurmctld(settings: Settings) -> None:
    """slurmctld; a state that a killed run left incomplete does not keep it from starting (`-i`)."""
    inside(settings, "slurmctld", "-i")
    log = settings.path("log", "slurmctld.log")
    _wait_for(lambda: _listens(settings, SLURMCTLD_PORT), START_LIMIT_S, f"slurmctld ({log})")


def register_cluster(settings: Settings) -> None:
    """Enters the cluster, its accounts and users into slurmdbd, in one go."""
    users = "".join(f"User - '{user}':DefaultAccount='{ACCOUNTS[0]}':Fairshare=1\n" for user in USERS)
    accounts = "".join(f"Account - '{name}':Description='{name}':Organization='lab'\n" for name in ACCOUNTS)
    members = "".join(f"Parent - '{name}'\n{users}" for name in ACCOUNTS)
    root = "User - 'root':DefaultAccount='root':AdminLevel='Administrator':Fairshare=1\n"
    tree = f"Cluster - '{settings.cluster}':Fairshare=1:QOS='normal'\nParent - 'root'\n{root}{accounts}{members}"
    path = settings.path("etc", "accounts")
    path.write_text(tree)
    inside(settings, "sacctmgr", "-i", "load", f"file={path}")


START: dict[str, Callable[[Settings], None]] = {
    "munged": start_munged,
    "mariadbd": start_mariadbd,
    "slurmdbd": start_slurmdbd,
    "slurmctld": start_slurmctld,
}


def _wait_for(holds: Callable[[], bool], limit_s: float, what: str) -> None:
    if not wait_until(holds, limit_s):
        raise LabError(f"waited {limit_s:.0f} s in vain for {what}")


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(os.fspath(path)) == 0


def _listens(settings: Settings, port: int) -> bool:
    listening = "0A"
    for table in ("tcp", "tcp6"):
        rows = Path(f"/proc/{need_holder(settings.folder)}/net/{table}").read_text().splitlines()[1:]
        if any(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == listening for row in rows):
            return True
    return False
