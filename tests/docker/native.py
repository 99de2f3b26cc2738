"""Machines without Docker, played by containers: bare ones, and one that systemd rules."""

import json
import shlex
import subprocess
from pathlib import Path

from docker_engine import Engine

LIMIT_S = 60
# What systemd wants of a container. Credentials reach a unit by mounts that are shared, as they are on a real machine.
RULED = ("--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined", "--cgroupns=private", "--hostname=head",
         "--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp")  # fmt: skip
SYSTEMD = ("sh", "-c", "mount --make-rshared / && exec /lib/systemd/systemd")
RECIPE = """
FROM debian:bookworm-slim
RUN apt-get update -q && apt-get install -q -y --no-install-recommends \
    systemd curl mariadb-server munge slurmdbd slurmctld slurmd slurm-client && rm -rf /var/lib/apt/lists/*
"""
SLURM_CONF = """
ClusterName=lab
SlurmctldHost=head
SlurmUser=slurm
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=head
AccountingStorageTRES=gres/gpu
GresTypes=gpu
NodeName=head CPUs=1
PartitionName=batch Nodes=ALL Default=YES
"""

SLURMDBD_CONF = """
DbdHost=head
SlurmUser=slurm
PidFile=/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StorageLoc=slurm_acct_db
"""
DATABASE = "CREATE DATABASE slurm_acct_db; CREATE USER slurm@localhost; GRANT ALL ON slurm_acct_db.* TO slurm@localhost"


class Machine:
    """A container that plays a machine; the folder `packages` is its /packages."""

    def __init__(self, engine: Engine, image: str, packages: Path, *arguments: str, command=("sleep", "1h")) -> None:
        self._engine = engine
        share = f"--volume={packages}:/packages:ro"
        self._id = engine.docker("run", "-d", share, *arguments, image, *command).strip()

    def close(self) -> None:
        """It is gone."""
        self._engine.docker("rm", "-f", self._id)

    def result(self, line: str) -> subprocess.CompletedProcess:
        """Runs a line of shell as root, whatever comes of it."""
        return self._engine.result("exec", self._id, "bash", "-c", line, limit_s=LIMIT_S)

    def sh(self, line: str) -> str:
        """Runs a line of shell as root; what it printed. AssertionError with its words when it failed."""
        done = self.result(line)
        assert done.returncode == 0, f"{line}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout.strip()

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Makes a file."""
        self.sh(f"install -D -m {mode} /dev/null {path} && printf %s {shlex.quote(text)} >{path}")

    def property(self, unit: str, name: str) -> str:
        """What systemd says of a unit."""
        return self.sh(f"systemctl show --value -p {name} {unit}")

    def held(self, kind: str = "JobConfig") -> dict[str, dict]:
        """What the stand-in CloudVision on it holds, by key."""
        url = f"http://127.0.0.1:8480/api/resources/computejob/v1/{kind}/all"
        said = self.sh(f"curl -fsS -H 'Authorization: Bearer stand-in-token' {url}")
        values = [json.loads(line)["result"]["value"] for line in said.splitlines()]
        return {value["key"]["id"]: value for value in values}
