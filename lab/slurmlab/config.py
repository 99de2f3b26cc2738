"""The files that the daemons and the commands of a lab read, from the templates beside this package."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from string import Template

from slurmlab.namespaces import TEMPLATES, namespace_options, process_option
from slurmlab.settings import USERS, Settings

CONTROLLER = "10.77.0.1"
COMMANDS = (
    *("sacct", "sacctmgr", "salloc", "sattach", "sbatch", "sbcast", "scancel", "scontrol", "sdiag", "sinfo", "sprio"),
    *("squeue", "sreport", "srun", "sshare", "sstat", "strigger"),
    # Whom the controller knows as a user.
    "getent",
)
# These take their working folder along; the others must work even where the caller's folder does not exist inside.
SUBMITTING = ("salloc", "sbatch", "srun")
HOOKS = ("prologslurmctld", "epilogslurmctld", "prolog", "epilog")
FOLDERS = ("bin", "db", "dev", "etc", "home", "hooks", "log", "run", "state", "state/slurmctld")


def node_address(number: int, network: int = 77) -> str:
    """The address of a node, counted from 1; network 77 is Ethernet, 88 the fabric."""
    return f"10.{network}.{1 + (number - 1) // 250}.{1 + (number - 1) % 250}"


def write_system_files(settings: Settings) -> None:
    """/etc/passwd, group and hosts as the lab sees them. Written in place: the holder has them mounted."""
    passwd, group = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
    for user, uid in USERS.items():
        home = settings.path("home", user)
        home.mkdir(exist_ok=True)
        os.chown(home, uid, uid)
        passwd += f"{user}:x:{uid}:{uid}:{user}:{home}:/bin/sh\n"
        group += f"{user}:x:{uid}:\n"
    settings.path("etc", "passwd").write_text(passwd)
    settings.path("etc", "group").write_text(group)
    addresses = [node_address(i + 1) if settings.mode == "netns" else "127.0.0.1" for i in range(settings.nodes)]
    hosts = [f"{address} {name}" for address, name in zip(addresses, settings.names, strict=True)]
    settings.path("etc", "hosts").write_text("\n".join(["127.0.0.1 localhost", f"{CONTROLLER} ctl", *hosts, ""]))


def write_slurm_files(settings: Settings) -> None:
    """slurm.conf and its neighbours, the keys, the hooks and the device files that stand for GPUs and NICs."""
    etc = settings.path("etc")
    words = _words(settings)
    for name in ("slurm.conf", "slurmdbd.conf", "cgroup.conf"):
        etc.joinpath(name).write_text(_fill(name, words))
    etc.joinpath("slurmdbd.conf").chmod(0o600)
    if not etc.joinpath("munge.key").exists():
        etc.joinpath("munge.key").touch(0o600)
        etc.joinpath("munge.key").write_bytes(os.urandom(1024))
    for hook in HOOKS:
        if not settings.path("hooks", hook).exists():
            settings.path("hooks", hook).write_text("#!/bin/sh\nexit 0\n")
            settings.path("hooks", hook).chmod(0o755)
    _write_gres(settings)


def write_commands(settings: Settings, holder: int) -> None:
    """`enter`, and `bin/` with one wrapper for each of Slurm's commands."""
    options = " ".join(namespace_options(holder))
    words = {"folder": settings.folder, "options": options, "process": process_option(holder), "mode": settings.mode}
    _write_script(settings.path("enter"), _fill("enter.sh", words))
    for name in COMMANDS:
        real = shutil.which(name)
        if real:
            command = f'--wdns="$PWD" {real}' if name in SUBMITTING else real
            _write_script(settings.path("bin", name), _fill("command.sh", {**words, "name": name, "command": command}))


def _words(settings: Settings) -> dict[str, object]:
    folders = {name: settings.path(name) for name in ("run", "log", "state", "hooks")}
    expiry = settings.credential_expiry_s
    accounting = _fill("accounting.conf", folders) if settings.accounting else _NO_ACCOUNTING
    confined = settings.cgroup
    return {
        **folders,
        "cluster": settings.cluster,
        "auth_info": f"socket={folders['run']}/munge.socket" + (f",cred_expire={expiry}" if expiry else ""),
        "accounting": accounting,
        "priority": "priority/multifactor" if settings.accounting else "priority/basic",
        "proctrack": "proctrack/cgroup" if confined else "proctrack/linuxproc",
        "task": "task/cgroup" if confined else "task/none",
        "gather": "jobacct_gather/cgroup" if confined else "jobacct_gather/linux",
        "constrain_memory": "yes" if confined else "no",
        "message_timeout_s": settings.message_timeout_s,
        "slurmd_timeout_s": settings.slurmd_timeout_s,
        "min_job_age_s": settings.min_job_age_s,
        "node_lines": "\n".join(_node_line(settings, i + 1) for i in range(settings.nodes)),
        "extra": settings.extra,
    }


_NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none"


def _node_line(settings: Settings, number: int) -> str:
    if settings.mode == "netns":
        place = f"NodeAddr={node_address(number)}"
    else:
        place = f"NodeHostName=ctl NodeAddr=127.0.0.1 Port={6917 + number}"
    counts = {"gpu:h100": settings.gpus, "nic": settings.nics}
    held = ",".join(f"{name}:{count}" for name, count in counts.items() if count)
    gres = f"Gres={held} " if held else ""
    return (
        f"NodeName=node{number} {place} Sockets=2 CoresPerSocket={settings.cpus // 2} ThreadsPerCore=1 "
        f"RealMemory={settings.memory_mib} {gres}Feature=h100,rack{1 + (number - 1) // 8} State=UNKNOWN"
    )


def _write_gres(settings: Settings) -> None:
    # Without File= a node registers no GPU and is refused, while NICs are merely counted. The devices need not work.
    lines = _gres_line(settings, "gpu", settings.gpus, 195, "Type=h100 ")
    if settings.nic_files:
        lines += _gres_line(settings, "nic", settings.nics, 231)
    settings.path("etc", "gres.conf").write_text(lines)


def _gres_line(settings: Settings, name: str, count: int, major: int, kind: str = "") -> str:
    for index in range(count):
        device = settings.path("dev", f"{name}{index}")
        if not device.exists():
            os.mknod(device, 0o20666, os.makedev(major, index))
    files = f"{settings.path('dev')}/{name}[0-{count - 1}]"
    return f"NodeName=node[1-{settings.nodes}] Name={name} {kind}File={files}\n" if count else ""


def _fill(template: str, words: dict[str, object]) -> str:
    return Template((TEMPLATES / template).read_text()).substitute(words)


def _write_script(path: Path, text: str) -> None:
    # Renamed into place: a caller never sees half of it.
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    fresh.chmod(0o755)
    fresh.rename(path)
