"""The nodes: their namespaces and links, their slurmds, and the ways in which they break."""

from __future__ import annotations

from pathlib import Path

from slurmlab import daemons
from slurmlab.config import CONTROLLER, node_address
from slurmlab.errors import LabError
from slurmlab.namespaces import TEMPLATES, inside, need_holder
from slurmlab.settings import Settings
from slurmlab.waiting import wait_until

# The kernel's ARP table (1,024 entries) is one for all network namespaces: beyond this many nodes on one segment it
# overflows. They then reach each other through the controller, with permanent entries, which do not count.
MOST_ON_ONE_SEGMENT = 200
GOOD_STATES = ("idle", "mix", "alloc", "drain", "drng", "comp", "resv", "plnd")
START_LIMIT_S = 30


def make(settings: Settings) -> None:
    """Makes the nodes' namespaces and links, those that are missing."""
    if settings.mode != "netns":
        return
    made = Path(f"/proc/{need_holder(settings.folder)}/root/run/made")
    made.mkdir(exist_ok=True)
    missing = [number for number in range(1, settings.nodes + 1) if not (made / f"node{number}").exists()]
    if not missing:
        return
    names = [f"node{number}" for number in missing]
    inside(settings, "env", f"RUN={settings.path('run')}", "sh", "-e", str(TEMPLATES / "node.sh"), *names)
    routed = settings.nodes > MOST_ON_ONE_SEGMENT
    if routed:
        inside(settings, "sh", "-ec", _FORWARD)
    inside(settings, "ip", "-batch", "-", text="".join(links(number, routed=routed) for number in missing))
    for number in missing:
        inside(settings, "ip", "-n", f"node{number}", "-batch", "-", text=addresses(number, routed=routed))
        (made / f"node{number}").touch()


_FORWARD = (
    "cd /proc/sys/net/ipv4; echo 1 >ip_forward; for d in all default br0; do echo 0 >conf/$d/send_redirects; done"
)


def links(number: int, *, routed: bool) -> str:
    """The controller's side: three cables to the node, as lines for `ip -batch`.

    >>> print(links(1, routed=False).splitlines()[0])
    link add e1 type veth peer name eth0 address 02:00:0a:4d:00:01 netns node1
    """
    tail = f"{number // 256:02x}:{number % 256:02x}"
    lines = []
    for ours, theirs, prefix, bridge in (
        (f"e{number}", "eth0", "02:00:0a:4d", "br0"),
        (f"f{number}a", "ens1f0", "0c:42:a1:00", "leaf1"),
        (f"f{number}b", "ens1f1", "0c:42:a1:01", "leaf2"),
    ):
        lines += [
            f"link add {ours} type veth peer name {theirs} address {prefix}:{tail} netns node{number}",
            f"link set {ours} master {bridge} up",
        ]
    if routed:
        lines.append(f"neigh replace {node_address(number)} lladdr 02:00:0a:4d:{tail} dev br0 nud permanent")
    return "\n".join(lines) + "\n"


def addresses(number: int, *, routed: bool) -> str:
    """The node's side."""
    address = node_address(number)
    eth0 = [f"addr add {address}/16 dev eth0", "link set eth0 up"]
    if routed:
        eth0 = [
            f"addr add {address}/16 dev eth0 noprefixroute",
            "link set eth0 up",
            f"neigh replace {CONTROLLER} lladdr 02:00:0a:4d:ff:01 dev eth0 nud permanent",
            f"route replace {CONTROLLER} dev eth0 scope link src {address}",
            f"route replace 10.77.0.0/16 via {CONTROLLER} src {address}",
        ]
    fabric = [f"addr add {node_address(number, 88)}/16 dev ens1f0", "link set ens1f0 up", "link set ens1f1 up"]
    return "\n".join([*eth0, *fabric, ""])


def start(settings: Settings, *names: str) -> None:
    """Starts the slurmds that do not run. They join within a moment: `wait_until_up`."""
    absent = [name for name in names if daemons.pid_of(settings, f"slurmd.{name}") is None]
    if absent:
        folders = [f"{word}={settings.path(word.lower())}" for word in ("RUN", "STATE")]
        script = str(TEMPLATES / "slurmd.sh")
        inside(settings, "env", *folders, f"MODE={settings.mode}", "sh", "-e", script, *absent)


def wait_until_up(settings: Settings, *names: str) -> None:
    """Waits until slurmctld calls these nodes good.

    Raises:
        LabError: Some stayed away; names them with their states.
    """
    states: dict[str, str] = {}

    def all_up() -> bool:
        said = inside(settings, "sinfo", "-h", "-N", "-o", "%N %t", check=False).stdout
        states.update(line.split() for line in said.splitlines())
        return all(states.get(name) in GOOD_STATES for name in names)

    if not wait_until(all_up, START_LIMIT_S + 0.4 * len(names)):
        bad = {name: states.get(name) for name in names if states.get(name) not in GOOD_STATES}
        raise LabError(f"these nodes did not come up: {bad}; see {settings.path('log')}/slurmd.*.log")


def stop(settings: Settings, name: str) -> None:
    """Only its slurmd ends: its jobs live on."""
    daemons.stop(settings, f"slurmd.{name}")


def kill(settings: Settings, name: str) -> None:
    """The node dies: slurmd, slurmstepds and jobs at once."""
    _need_netns(settings, "kill")
    inside(settings, "sh", "-c", _KILL_ALL_IN, "sh", name)


_KILL_ALL_IN = """
holder=$(cat "/run/nodes/$1")
space=$(readlink "/proc/$holder/ns/net")
for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    [ "$pid" = "$holder" ] || [ "$(readlink "$process/ns/net")" != "$space" ] || kill -KILL "$pid"
done
"""


def cut(settings: Settings, name: str) -> None:
    """Its Ethernet cable is pulled; what runs there runs on."""
    _need_netns(settings, "cut")
    inside(settings, "ip", "link", "set", f"e{name.removeprefix('node')}", "down")


def join(settings: Settings, name: str) -> None:
    """Its cable is back."""
    _need_netns(settings, "join")
    inside(settings, "ip", "link", "set", f"e{name.removeprefix('node')}", "up")


def _need_netns(settings: Settings, what: str) -> None:
    if settings.mode != "netns":
        raise LabError(f"'node {what}' needs nodes with networks of their own: lab/slurm up N --mode netns")
