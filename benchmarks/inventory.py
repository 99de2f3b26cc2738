"""What the inventory of many nodes takes beside the barest job on as many. In wall time: it is what people wait for."""

import time
from collections.abc import Callable, Iterator
from statistics import median

from benchmarks.measure import Row, at_most, ms, wait_until
from benchmarks.slurm_lab import Lab, RealSlurm, real_slurm
from cvagent.clients.slurm_nodes import InventoryJob, SlurmNodes

FEW, MANY = 128, 256
_LIMIT_S = 300
_ROUNDS = {FEW: 5, MANY: 3}


def measure() -> Iterator[Row]:
    """See the module."""
    few_bare, few = both_s(FEW)
    yield at_most(f"inventory of {FEW} nodes", ms(few), ms(few_bare, f"of srun -N{FEW} hostname"), 1.5)
    many_bare, many = both_s(MANY)
    yield at_most(f"inventory of {MANY} nodes", ms(many), ms(many_bare, f"of srun -N{MANY} hostname"), few / few_bare)


def both_s(nodes: int) -> tuple[float, float]:
    """Seconds of the barest job, and of the inventory, on so many nodes: in turn, as other work comes and goes."""
    with real_slurm(nodes) as lab:
        taken = [(_bare_s(lab, nodes), _inventory_s(lab, nodes)) for _ in range(_ROUNDS[nodes])]
    return median(bare for bare, _ in taken), median(inventory for _, inventory in taken)


def _bare_s(lab: Lab, nodes: int) -> float:
    return _wall_s(lab, lambda: RealSlurm(lab).run(["srun", f"-N{nodes}", "hostname"], timeout_s=_LIMIT_S))


def _inventory_s(lab: Lab, nodes: int) -> float:
    names = [f"node{number}" for number in range(1, nodes + 1)]
    job = InventoryJob(time_s=_LIMIT_S)

    def ask() -> None:
        answers = SlurmNodes(RealSlurm(lab), _LIMIT_S).inventories(names, "batch", job, _LIMIT_S)
        assert len(answers.lines) == nodes, answers.reason

    return _wall_s(lab, ask)


def _wall_s(lab: Lab, work: Callable[[], object]) -> float:
    """Of work on nodes that are clean of what was there before."""
    wait_until(lambda: set(lab.say("sinfo", "-h", "-o", "%T").split()) == {"idle"}, _LIMIT_S, "idle nodes")
    began = time.monotonic()
    work()
    return time.monotonic() - began
