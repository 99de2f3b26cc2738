"""Runs one command on many nodes by ssh, side by side, and prints what each said: a JSON object a line.

A program of its own, and no part of the agent's process: ClusterShell forks, which a process with threads had better
not. The environment's CVAGENT_FANOUT says what to do, in the form of `Order`.
"""

import json
import os
import sys
from collections import defaultdict
from typing import TypedDict

from ClusterShell.Event import EventHandler
from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet
from ClusterShell.Task import task_self
from ClusterShell.Worker.Worker import Worker

ORDER = "CVAGENT_FANOUT"
_CONNECT_S = 5
_MOST_BYTES = 4 << 20
_LAST_WORDS = 300


class Order(TypedDict):
    """What to do.

    Attributes:
        command: For the nodes' own shells.
        options: For ssh, in a shell's quotes.
        fanout: Nodes at a time.
        timeout_s: Limit for one node, in seconds, the connecting included.
    """

    nodes: list[str]
    command: str
    options: str
    fanout: int
    timeout_s: float


class Said(TypedDict):
    """What one node said. One that did not end in time is left out.

    Attributes:
        exit_code: The command's, or 255 from ssh itself.
        stderr: The end of it.
    """

    node: str
    exit_code: int
    stdout: str
    stderr: str


class _Listener(EventHandler):
    """Prints a node's answer as soon as it is complete."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], bytes] = defaultdict(bytes)

    def ev_read(self, worker: Worker, node: str, sname: str, msg: bytes) -> None:
        """A line of a node's."""
        del worker
        self._said[node, sname] = (self._said[node, sname] + msg + b"\n")[:_MOST_BYTES]

    def ev_hup(self, worker: Worker, node: str, rc: int) -> None:
        """A node is done."""
        del worker
        stdout, stderr = (self._said.pop((node, name), b"").decode(errors="replace") for name in ("stdout", "stderr"))
        said = Said(node=node, exit_code=rc, stdout=stdout, stderr=stderr[-_LAST_WORDS:])
        sys.stdout.write(f"{json.dumps(said)}\n")
        sys.stdout.flush()


def main() -> None:
    """Carry out the order."""
    order: Order = json.loads(os.environ[ORDER])
    task = task_self()
    task.set_info("fanout", order["fanout"])
    task.set_info("connect_timeout", _CONNECT_S)
    task.set_info("ssh_options", order["options"])
    task.set_default("stdout_msgtree", False)
    nodes = NodeSet.fromlist(order["nodes"], resolver=RESOLVER_NOGROUP)
    how = {"handler": _Listener(), "timeout": order["timeout_s"], "stderr": True, "stdin": False, "tree": False}
    task.run(order["command"], nodes=nodes, **how)


if __name__ == "__main__":
    main()
