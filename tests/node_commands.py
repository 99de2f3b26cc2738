"""Slurm's commands about nodes, behind a runner: answers in the form they were asked for."""

import json
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path

from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet

from cvagent.errors import CommandFailed

_PIECES = runpy.run_path(str(Path(__file__).parents[1] / "cvagent" / "node" / "inventory.py"))["pieces"]
_FIELDS = ("NodeList", "Partition", "Available", "StateComplete", "CPUsState", "Memory", "AllocMem")


class FakeNodes:
    """A `clients.runner.Runner` over a few nodes.

    Attributes:
        states: By node what sinfo says; CPUs are idle unless that begins with `allocated`.
        booted: By node the boot time.
        partitions: By name their nodes; `batch` is the default one.
        jobs: Ids of inventory jobs that squeue shows.
        leaves: The id of a job that a failed srun leaves behind; 0 for none.
        spoilers: By node the reason for which a whole step fails.
        mute: Nodes whose task fails.
        lines: By node what its inventory prints instead of its facts.
        broken: By program, the reason it fails with, or the bytes it prints instead of an answer.
        commands: Every command that was run.
    """

    QUESTIONS: Mapping[str, Sequence[str]] = {
        "sinfo": ["sinfo", "-O", ",".join(f"{field}:\x1f" for field in _FIELDS[:-1]) + f",{_FIELDS[-1]}:\x1e"],
        "scontrol": ["scontrol", "-a", "-o", "show", "node"],
    }

    def __init__(self, *names: str) -> None:
        self.states = dict.fromkeys(names, "idle")
        self.booted = dict.fromkeys(names, 50)
        self.partitions = {"batch": list(names)}
        self.jobs: list[int] = []
        self.leaves = 0
        self.spoilers: dict[str, str] = {}
        self.mute: set[str] = set()
        self.lines: dict[str, bytes] = {}
        self.broken: dict[str, str | bytes] = {}
        self.commands: list[list[str]] = []

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> bytes:
        del timeout_s, env
        self.commands.append(list(command))
        broken = self.broken.get(command[0])
        if isinstance(broken, bytes):
            return broken
        if broken:
            raise CommandFailed(command[0], broken, 1)
        answer = {
            "sinfo": self._sinfo,
            "scontrol": self._scontrol,
            "squeue": self._squeue,
            "scancel": self._scancel,
            "srun": self._srun,
        }
        return answer[command[0]](command)

    def stop(self) -> None: ...

    def asked(self, program: str) -> list[list[str]]:
        return [command for command in self.commands if command[0] == program]

    def remove(self, name: str) -> None:
        del self.states[name], self.booted[name]
        for members in self.partitions.values():
            members.remove(name)

    @staticmethod
    def facts(name: str) -> dict[str, object]:
        port = {"name": "ens1f0", "mac": "0c:42:a1:00:00:01"}
        return {"schema": 1, "hostname": name, "node": name, "collected_at": 1, "interfaces": [port]}

    def _sinfo(self, command: Sequence[str]) -> bytes:
        columns = [column.partition(":")[::2] for column in command[command.index("-O") + 1].split(",")]
        rows = [
            {
                "NodeList": name,
                "Partition": f"{partition}*" if partition == "batch" else partition,
                "Available": "up",
                "StateComplete": self.states[name],
                "CPUsState": "8/0/0/8" if self.states[name].startswith("allocated") else "0/8/0/8",
                "Memory": "16000",
                "AllocMem": "0",
            }
            for partition, members in self.partitions.items()
            for name in members
        ]
        return "".join("".join(row[field] + mark for field, mark in columns) + "\n" for row in rows).encode()

    def _scontrol(self, _command: Sequence[str]) -> bytes:
        return "".join(
            f"NodeName={name} Arch=x86_64 State=IDLE BootTime={booted} Reason=NodeName=x BootTime=1 \n"
            for name, booted in self.booted.items()
        ).encode()

    def _squeue(self, command: Sequence[str]) -> bytes:
        assert {"--me", "-n", "cv-inventory"} <= set(command)
        return "".join(f"{job_id}\x1e\n" for job_id in self.jobs).encode()

    def _scancel(self, command: Sequence[str]) -> bytes:
        self.jobs = [job_id for job_id in self.jobs if str(job_id) not in command[1:]]
        return b""

    def _srun(self, command: Sequence[str]) -> bytes:
        assert self.jobs == []
        listed = next(word for word in command if word.startswith("--nodelist=")).partition("=")[2]
        names = list(NodeSet(listed, resolver=RESOLVER_NOGROUP))
        assert f"--nodes={len(names)}" in command
        for name in names:
            if name in self.spoilers:
                self.jobs = [self.leaves] if self.leaves else []
                raise CommandFailed("srun", self.spoilers[name], 1)
        told = {
            name: self.lines.get(name, json.dumps(self.facts(name)).encode()) for name in names if name not in self.mute
        }
        said = "".join(
            line for name, body in told.items() for line in _PIECES(name, body.decode("utf-8", "replace"))
        ).encode()
        if self.mute & set(names):
            raise CommandFailed("srun", "task 1: exited with exit code 1", 1, said)
        return said
