"""Lab nodes that look like GPU servers: each has a sysfs of its own, whose MACs tell which node it is."""

from fixtures.sysfs import gpu_server, rail_mac
from slurm_lab import Lab

RAILS = 8
VF_MAC = "94:6d:ae:00:01:00"
_MOUNTED = """
set -e
mount --bind "$0/sys/devices" /sys/devices
mount --bind "$0/sys/bus/pci" /sys/bus/pci
mount --bind "$0/sys/class/net" /sys/class/net
ip link set ens1f1 down
ip link set ens1f1 name ens0f0np0
ip addr add "$1/16" dev ens0f0np0
ip link set ens0f0np0 up
"""


def dress(lab: Lab, name: str) -> None:
    """Gives a node the hardware of a GPU server, and the interface of its first rail an address."""
    number = int(name.removeprefix("node"))
    tree = lab.folder / "trees" / name
    gpu_server(tree)
    for pattern in ("net/*/address", "bonding_slave/perm_hwaddr"):
        for file in tree.glob(f"sys/devices/**/{pattern}"):
            file.write_text(of_node(file.read_text(), number))
    lab.run("sh", "-c", _MOUNTED, str(tree), f"10.99.0.{number}", node=name)


def of_node(address: str, number: int) -> str:
    """The address as this node has it: the fixture's, with the node's number in its third byte."""
    parts = address.strip().split(":")
    return ":".join([*parts[:2], f"{number:02x}", *parts[3:]]) if len(parts) == 6 else address


def ports_of(*indices: int, node: int) -> set[str]:
    """The MACs that belong to these GPUs, or to these NICs: the first has a virtual function."""
    macs = [rail_mac(index) for index in indices] + [VF_MAC] * (0 in indices)
    return {of_node(mac, node) for mac in macs}


def truth(number: int) -> dict[str, object]:
    """What CloudVision is to hold of a node: the fixture's cables and its VF, and nothing else of all it shows."""
    macs = {f"ens{rail}f0np0": rail_mac(rail) for rail in range(RAILS)} | {
        "ens0f0v0": VF_MAC,
        "eno1": "3c:ec:ef:00:00:01",
        "eno2": "3c:ec:ef:00:00:02",
        "enxb03af2b6059f": "b0:3a:f2:b6:05:9f",
    }
    ips = {"ens0f0np0": [f"10.99.0.{number}"]}
    return {
        "key": {"id": f"node{number}"},
        "location": "lab",
        "hostname": f"node{number}",
        "data_interfaces": {
            "values": [
                {"name": name, "mac_address": of_node(mac, number), "ip_addresses": {"values": ips.get(name, [])}}
                for name, mac in sorted(macs.items())
            ]
        },
    }
