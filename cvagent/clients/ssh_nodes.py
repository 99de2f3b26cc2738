"""Has nodes run the inventory by ssh."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from cvagent.clients import fanout
from cvagent.clients.fanout import Order, Said
from cvagent.clients.runner import Runner
from cvagent.clients.slurm_nodes import inventory_command
from cvagent.errors import CommandFailed
from cvagent.model.nodes import joined

# Enough for the inventory with all its own limits, and for a slow login.
_NODE_S = 20.0
# What is left of the whole for telling who was too late.
_TELLING_S = 2.0


class SshAccess(Struct, frozen=True):
    """How nodes are reached: by their names in Slurm, with ssh's own configuration.

    Attributes:
        arguments: For ssh, as they are.
        fanout: Nodes at a time.
        allow: See InventoryJob.
    """

    arguments: tuple[str, ...] = ()
    fanout: int = 64
    allow: str = ""


class Heard(NamedTuple):
    """What nodes said.

    Attributes:
        lines: By node, the inventory's line of JSON.
        reasons: By node, why there is none.
    """

    lines: dict[str, bytes]
    reasons: dict[str, str]


class SshNodes:
    """The nodes, over ssh from the machine that the agent runs on, wherever Slurm's commands run.

    Args:
        runner: Runs a program on this machine.
    """

    def __init__(self, access: SshAccess, runner: Runner) -> None:
        self._access = access
        self._runner = runner

    def inventories(self, nodes: Sequence[str], limit_s: float) -> Heard:
        """Run the inventory on all of them; what was heard by then counts when the time is over."""
        order = Order(
            nodes=list(nodes),
            command=shlex.join(inventory_command(self._access.allow)),
            options=shlex.join(self._access.arguments),
            fanout=self._access.fanout,
            timeout_s=min(_NODE_S, limit_s - _TELLING_S),
        )
        late = f"did not answer by ssh within {order['timeout_s']:g} s"
        try:
            said = self._runner.run(
                [sys.executable, "-I", str(Path(fanout.__file__))],
                timeout_s=limit_s,
                env={fanout.ORDER: json.dumps(order)},
            )
        except CommandFailed as error:
            reason = error.reason.replace("CVAGENT_SLURM_TIMEOUT_S", "CVAGENT_INVENTORY_TIME_S")
            said, late = error.stdout, f"was not asked by ssh: {reason}"
        heard = Heard({}, dict.fromkeys(nodes, late))
        for line in said.splitlines():
            if line.endswith(b"}"):
                _take(json.loads(line), heard)
        return heard


def _take(said: Said, heard: Heard) -> None:
    node = said["node"]
    told = list(joined(said["stdout"].splitlines()).values())
    if said["exit_code"] == 0 and len(told) == 1:
        heard.lines[node] = told[0]
        heard.reasons.pop(node, None)
    else:
        words = said["stderr"].strip().splitlines() or ["no word of why"]
        clean = "".join(letter if letter.isprintable() else "\ufffd" for letter in words[-1])
        heard.reasons[node] = f"ssh: exit code {said['exit_code']}: {clean}"[:200]
