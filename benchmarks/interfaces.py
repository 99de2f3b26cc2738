"""What it costs to tell jobs by their interfaces: 10,000 of them with two GPUs each, on 1,000 nodes of eight."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache

from msgspec import json
from msgspec.structs import replace

from benchmarks.measure import ROOT, Row, at_most, below, median, ms, scratch, seen
from benchmarks.replay import Job, Replay
from benchmarks.rounds import CHANGED, JOBS, Rounds
from cvagent.clients.slurm import FIELD
from cvagent.model.holdings import Sharing
from cvagent.model.nodes import node_facts

NODES = 1000
_GPUS = 8
_ROUNDS = 9
# As real ones are, with what is of use here at its place; the rest is only to be passed over.
_RECORD = f"""\
JobId={{job_id}} JobName=train UserId=alice(20001) GroupId=alice(20001) MCS_label=N/A {"Key=value " * 70}CoreSpec=* \
JOB_GRES=gpu:h100:2   Nodes={{node}} CPU_IDs={{cpu}} Mem=10 GRES=gpu:h100:2(IDX:{{gpus}}) MinCPUsNode=1 \
MinMemoryNode=10M {"Key=value " * 20}TresPerNode=gres:gpu:2 \n"""
_NODE = f"""\
NodeName={{node}} Arch=x86_64 CoresPerSocket=4  CPUAlloc=2 CPUEfctv=64 CPUTot=64 CPULoad=0.49 AvailableFeatures=h100 \
Gres=gpu:h100:8,nic:8 NodeAddr={{node}} {"Key=value " * 60}\n"""


class Shared(Replay):
    """Each job holds two neighbouring GPUs of one node, which it shares."""

    def _scontrol(self, command: Sequence[str]) -> bytes:
        if command[-1] == "config":
            return super()._scontrol(command)
        if command[-1] == "node":
            return "".join(_NODE.format(node=_name(number)) for number in range(NODES)).encode()
        return "".join(_RECORD.format(**_held(job)) for job in self._running).encode()

    def _squeue(self, command: Sequence[str]) -> bytes:
        mark = command[-1].rpartition(":")[2] + "\n"
        return "".join([_shared(line) + mark for line in self._lines.values()]).encode()


def measure() -> Iterator[Row]:
    """See the module."""
    exclusive = median(lambda: Rounds(Replay(JOBS)).cpu_s(), 3)
    first = median(lambda: sharing().cpu_s(), 3)
    name = f"CPU of a first round that resolves the interfaces of {JOBS:,} jobs on {NODES:,} nodes"
    yield below(name, ms(first), ms(2))
    yield at_most("the same", ms(first), ms(exclusive, "of one over jobs with nodes of their own"), 8)
    alone, shared = steady_s(Rounds(Replay(JOBS))), steady_s(sharing())
    name = f"CPU of a steady round over {JOBS:,} jobs that share nodes: 1 % ended, as many began"
    yield at_most(name, ms(shared), ms(alone, "over jobs with nodes of their own"), 6)
    alone, shared = still_s(Rounds(Replay(JOBS))), still_s(sharing())
    yield seen("the same, without a change", ms(shared), ms(alone, "over jobs with nodes of their own"))


def sharing() -> Rounds:
    """Rounds in which every job is told by its interfaces."""
    rounds = Rounds(Shared(JOBS))
    rounds.outbox.facts().keep(_facts(), 1.0)
    return rounds


def steady_s(rounds: Rounds) -> float:
    """CPU seconds of a round in which one job of a hundred ended and as many began."""
    return _after_first(rounds, int(JOBS * CHANGED))


def still_s(rounds: Rounds) -> float:
    """CPU seconds of a round in which nothing did."""
    return _after_first(rounds, 0)


def _after_first(rounds: Rounds, changed: int) -> float:
    rounds.cpu_s()
    told = rounds.told()
    assert len(told) == JOBS
    assert {document.sharing for document in told} <= {Sharing.INTERFACES, Sharing.OWN}
    rounds.deliver()
    return median(lambda: rounds.changed_cpu_s(changed), _ROUNDS)


@cache
def _facts() -> dict[str, bytes]:
    """What a GPU server said, for each node."""
    with scratch() as folder:
        subprocess.run([sys.executable, ROOT / "tests/fixtures/sysfs.py", "gpu_server", folder], check=True)
        command = [sys.executable, ROOT / "cvagent/node/inventory.py", f"--root={folder}"]
        facts = node_facts(subprocess.run(command, check=True, capture_output=True).stdout)
    return {_name(number): json.encode(replace(facts, node=_name(number))) for number in range(NODES)}


def _name(number: int) -> str:
    return f"node{number % NODES:04}"


def _held(job: Job) -> dict[str, object]:
    first = job.job_id // NODES * 2 % _GPUS
    return {"job_id": job.job_id, "node": _name(job.job_id), "cpu": first, "gpus": f"{first}-{first + 1}"}


def _shared(line: str) -> str:
    fields = line.split(FIELD)
    fields[6], fields[8] = "OK", _name(int(fields[0]))
    return FIELD.join(fields)
