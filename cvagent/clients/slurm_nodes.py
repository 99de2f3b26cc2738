"""Asks Slurm about nodes, and has them run the inventory. Records in, nothing decided.

Reasons and comments of nodes are never asked for: what is left holds names and words of Slurm's own.
"""

import base64
import datetime as dt
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from math import ceil
from pathlib import Path

from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException
from msgspec import Struct

from cvagent import node
from cvagent.clients.runner import SYSTEM_PATH, Runner
from cvagent.clients.slurm import FIELD
from cvagent.errors import CommandFailed, Unreadable
from cvagent.model.nodes import joined

JOB_NAME = "cv-inventory"
_SCRIPT = "CVAGENT_INVENTORY"
_LAUNCHER = f"import binascii,os,zlib;exec(zlib.decompress(binascii.a2b_base64(os.environ['{_SCRIPT}'])))"
# The node's own Python, whatever the agent's PATH is, and without the site's modules: half the time to start.
_PYTHON = ("env", f"PATH={SYSTEM_PATH}", "python3", "-I", "-S")
_FIELDS = ("NodeList", "Partition", "Available", "StateComplete", "CPUsState", "Memory", "AllocMem")
_END = "\x1e"
_BOOT = re.compile(r"NodeName=(\S+) .*? BootTime=(\S+) ")
_MIB = 16
_WAIT_S = 5


class Place(Struct, frozen=True):
    """A partition that a node is in.

    Attributes:
        up: Whether it takes jobs.
        default: Whether a job that names no partition goes there.
    """

    name: str
    up: bool
    default: bool


class SlurmNode(Struct, frozen=True):
    """One node as Slurm tells it.

    Attributes:
        words: Slurm's words for its state and flags, lower case: idle, mixed, drain, not_responding.
        idle_cpus: CPUs that no job holds.
        idle_mib: Memory that no job holds.
        booted_at: Epoch seconds; None when it never registered.
        places: The partitions it is in; none for a node without one.
    """

    name: str
    words: frozenset[str]
    idle_cpus: int
    idle_mib: int
    booted_at: int | None
    places: tuple[Place, ...] = ()


class InventoryJob(Struct, frozen=True):
    """How the step is to be started; None and empty leave it to Slurm.

    Attributes:
        time_s: Limit of the whole, in seconds, the wait for nodes included.
        arguments: For srun, as they are.
        allow: Regular expression: interfaces to read though they are no hardware.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    reservation: str | None = None
    time_s: float = 60
    arguments: tuple[str, ...] = ()
    allow: str = ""


class SlurmNodes:
    """The cluster's nodes, one method a question.

    Args:
        timeout_s: Limit for one command, in seconds; the inventory has its own.

    Every method raises CommandFailed, or Unreadable for an answer that is not in the form asked for.
    """

    def __init__(self, runner: Runner, timeout_s: float) -> None:
        self._runner = runner
        self._timeout_s = timeout_s

    def nodes(self) -> dict[str, SlurmNode]:
        """Every node by name. A cluster without any is not believed. Two calls: sinfo tells no boot time."""
        booted = self._boots()
        fields = ",".join(f"{field}:{FIELD}" for field in _FIELDS[:-1]) + f",{_FIELDS[-1]}:{_END}"
        lines = self._ask(["sinfo", "-h", "-a", "-N", "-O", fields]).split(_END + "\n")
        if lines.pop() or not lines:
            raise Unreadable("sinfo printed no nodes, or half a record at the end of its answer")
        found = {name: SlurmNode(name, frozenset(), 0, 0, at) for name, at in booted.items()}
        for node_seen in map(_node, lines):
            if node_seen.name not in found:
                raise Unreadable(f"sinfo names {node_seen.name[:64]}, which scontrol does not: one of them told half")
            before = found[node_seen.name]
            found[node_seen.name] = SlurmNode(
                node_seen.name,
                node_seen.words,
                node_seen.idle_cpus,
                node_seen.idle_mib,
                before.booted_at,
                before.places + node_seen.places,
            )
        return found

    def jobs(self) -> list[int]:
        """Ids of this user's inventory jobs that are not over."""
        states = "PENDING,CONFIGURING,RUNNING,SUSPENDED"
        said = self._ask(["squeue", "-h", "-a", "--me", "-n", JOB_NAME, "-t", states, "-O", f"JobID:{_END}"])
        words = said.split(f"{_END}\n")
        if words.pop() or not all(word.isdecimal() for word in words):
            raise Unreadable("squeue printed no job ids")
        return [int(word) for word in words]

    def cancel(self, job_ids: Sequence[int]) -> None:
        """End these jobs."""
        self._ask(["scancel", *map(str, job_ids)])

    def inventories(self, nodes: Sequence[str], partition: str | None, job: InventoryJob, limit_s: float) -> "Answers":
        """Run the inventory on all these nodes in one step.

        Nodes that answered are told even when the step failed on others.
        """
        command = [
            *("srun", f"--job-name={JOB_NAME}", "--quiet", "--input=none", "--export=ALL", "--mpi=none"),
            *("--no-kill", "--kill-on-bad-exit=0"),
            *(f"--nodes={len(nodes)}", f"--nodelist={folded(nodes)}", "--ntasks-per-node=1", f"--mem={_MIB}"),
            *(f"--immediate={_WAIT_S}", f"--time={ceil(job.time_s / 60)}", *_chosen(job, partition)),
            *job.arguments,
            *_launched(job.allow),
        ]
        said, reason = b"", ""
        try:
            said = self._runner.run(command, timeout_s=limit_s, env={_SCRIPT: _packed()})
        except CommandFailed as error:
            said = error.stdout
            reason = str(error).replace("CVAGENT_SLURM_TIMEOUT_S", "CVAGENT_INVENTORY_TIME_S")
        return Answers(joined(said.decode(errors="replace").splitlines()), reason)

    def _boots(self) -> dict[str, int | None]:
        text = self._ask(["scontrol", "-a", "-o", "show", "node"])
        lines = text.split("\n")
        if lines.pop():
            raise Unreadable("scontrol show node printed half a line at the end of its answer")
        return dict(_booted(line) for line in lines if line)

    def _ask(self, command: Sequence[str]) -> str:
        return self._runner.run(command, timeout_s=self._timeout_s).decode(errors="replace")


def inventory_command(allow: str) -> list[str]:
    """What runs the inventory on a node that is given no environment. See InventoryJob for `allow`."""
    env, *rest = _launched(allow)
    return [env, f"{_SCRIPT}={_packed()}", *rest]


def _launched(allow: str) -> list[str]:
    return [*_PYTHON, "-c", _LAUNCHER, "--pieces", *([f"--allow={allow}"] if allow else [])]


class Answers(Struct, frozen=True):
    """What a step brought.

    Attributes:
        lines: By node, the inventory's line of JSON.
        reason: Why the step failed; empty when it did not.
    """

    lines: dict[str, bytes]
    reason: str


def folded(nodes: Sequence[str]) -> str:
    """A hostlist of these nodes, with one range at most in each name: Slurm's words for more differ by release.

    >>> folded(["r1n1", "r1n2", "r2n1", "login"])
    'login,r1n[1-2],r2n1'
    """
    try:
        found = NodeSet.fromlist(nodes, resolver=RESOLVER_NOGROUP)
    except NodeSetException:
        return ",".join(nodes)
    found.fold_axis = (-1,)
    return str(found)


def _node(record: str) -> SlurmNode:
    fields = record.split(FIELD)
    if len(fields) != len(_FIELDS):
        raise Unreadable(f"sinfo printed a record of {len(fields)} fields where {len(_FIELDS)} were asked for")
    name, partition, available, state, cpus, memory, held = fields
    try:
        idle_cpus = int(cpus.split("/")[1])
        idle_mib = int(memory) - int(held)
    except (ValueError, IndexError):
        raise Unreadable(f"sinfo printed a node that cannot be read: {name[:64]}") from None
    place = Place(partition.removesuffix("*"), up=available == "up", default=partition.endswith("*"))
    return SlurmNode(name, _words(state), idle_cpus, idle_mib, None, (place,))


def _words(state: str) -> frozenset[str]:
    """Base state and flags; a star, Slurm's mark for a node that does not answer, becomes its word.

    >>> sorted(_words("down*+drain"))
    ['down', 'drain', 'not_responding']
    """
    words = {word.strip("*~#!%$@^-") for word in state.lower().split("+")}
    marks = {"*": "not_responding", "~": "powered_down", "#": "powering_up", "%": "powering_down", "@": "reboot"}
    return frozenset(words | {meaning for mark, meaning in marks.items() if mark in state})


def _booted(line: str) -> tuple[str, int | None]:
    found = _BOOT.match(line)
    if not found:
        raise Unreadable("scontrol show node printed a node without name or boot time")
    name, text = found.groups()
    if text.isdecimal():
        return name, int(text)
    with suppress(ValueError):
        moment = dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=dt.timezone.utc)
        return name, int(moment.timestamp())
    return name, None


def _chosen(job: InventoryJob, partition: str | None) -> Iterator[str]:
    chosen = {
        "partition": job.partition or partition,
        "account": job.account,
        "qos": job.qos,
        "reservation": job.reservation,
    }
    return (f"--{option}={value}" for option, value in chosen.items() if value)


@cache
def _packed() -> str:
    script = Path(node.__file__).with_name("inventory.py").read_bytes()
    return base64.b64encode(zlib.compress(script)).decode()
