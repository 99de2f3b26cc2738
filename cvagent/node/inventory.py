"""Prints this node's interfaces, GPUs and LLDP neighbours as one line of JSON.

Runs on a compute node as `python3 inventory.py`, or from stdin: `python3 - < inventory.py`. Reads sysfs and procfs,
starts nothing but lldpctl, writes nothing, needs no root. What cannot be read is a line of `problems`, never the loss
of the rest; after LIMIT_S seconds it prints what it has.
"""

import array
import fcntl
import json
import os
import re
import socket
import struct
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing it takes as long as reading ten interfaces
    from collections.abc import Callable
    from typing import Any

    Addresses = dict[tuple[int, str], list[str]]
    Found = dict[str, list[Any]]

SCHEMA = 1
LIMIT_S = 5
LLDP_LIMIT_S = 2
MAX_TEXT = 200
# srun passes on what several nodes print in blocks of 1,024 bytes: longer lines of theirs mingle.
PIECE = 900
MAX_ADDRESSES = 1024
SIOCGIFCONF = 0x8912
IFREQ = struct.Struct("16sHH4s16x" if sys.maxsize > 1 << 32 else "16sHH4s8x")
ARPHRD_ETHER, ARPHRD_INFINIBAND = "1", "32"
# VGA and 3D controllers. AMD's accelerators also call themselves display controllers and processing accelerators.
GPU_CLASSES = {"0x10de": ("0x0300", "0x0302"), "0x1002": ("0x0300", "0x0302", "0x0380", "0x1200")}
VENDORS = {"0x10de": "nvidia", "0x1002": "amd"}
# Drivers' words for an unknown speed, in 16 and 32 bits.
UNKNOWN_SPEEDS = (0xFFFF, 0xFFFFFFFF)
PCI_ROOT = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}")
PCI_FUNCTION = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
# In switchdev mode each function's switch port appears on the host as a device of the PF; no cable leads there.
REPRESENTOR = re.compile(r"(c[0-9]+)?pf[0-9]+(vf|sf)[0-9]+")


class Tree:
    """Files below a root that tests can swap."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def text(self, *parts: str) -> "str | None":
        """A file's text without blanks at its ends; None when it is absent or refuses to be read."""
        try:
            with open(self.path(*parts), encoding="utf-8", errors="replace") as file:
                return file.read().strip()
        except OSError:
            return None

    def number(self, *parts: str) -> "int | None":
        """None also for the kernel's -1, its word for unknown."""
        text = self.text(*parts) or ""
        return int(text) if re.match("[0-9]{1,18}$", text) else None

    def names(self, *parts: str) -> "list[str]":
        """What a folder holds, sorted; nothing when there is none."""
        try:
            return sorted(os.listdir(self.path(*parts)))
        except OSError:
            return []


def read_all(tree: Tree, allow: "re.Pattern[str]", found: "Found") -> None:
    """Fill `found`, what matters most first; the main thread may look at it at any moment."""
    addresses: "Addresses" = {}
    guarded(found, "ipv4", read_ipv4, addresses)
    guarded(found, "ipv6", read_ipv6, tree, addresses)
    for name in tree.names("sys/class/net"):
        if is_wanted(tree, name, allow):
            guarded(found, name, read_interface, tree, name, addresses, found)
    guarded(found, "vfs", read_moved_vfs, tree, found)
    for pci in sorted(tree.names("sys/bus/pci/devices"), key=lambda address: (len(address), address)):
        guarded(found, pci, read_gpu, tree, pci, found)
    guarded(found, "lldp", read_lldp, found)


def guarded(found: "Found", what: str, function: "Callable[..., None]", *arguments: "Any") -> None:
    try:
        function(*arguments)
    except Exception as error:  # whatever a driver does, the rest of the node is told
        found["problems"].append(printable(f"{what}: {type(error).__name__}: {error}"))


def is_wanted(tree: Tree, name: str, allow: "re.Pattern[str]") -> bool:
    """Hardware has a device; bridges, bonds, VLANs, veths and loopback have none."""
    is_hardware = os.path.exists(tree.path("sys/class/net", name, "device"))
    port = tree.text("sys/class/net", name, "phys_port_name") or ""
    return bool(allow.search(name)) or (is_hardware and not REPRESENTOR.match(port))


def read_interface(tree: Tree, name: str, addresses: "Addresses", found: "Found") -> None:
    folder = tree.path("sys/class/net", name)
    # The members of a bond all show the bond's address as their own.
    address = tree.text(folder, "bonding_slave/perm_hwaddr") or tree.text(folder, "address")
    if address is None:
        raise ValueError("has no address that can be read")
    hardware = tree.text(folder, "type")
    speed = tree.number(folder, "speed")
    found["interfaces"].append(
        dict(
            place(tree, tree.path(folder, "device")),
            name=printable(name),
            mac=mac_of(address) if hardware == ARPHRD_ETHER else None,
            guid=address.lower() if hardware == ARPHRD_INFINIBAND else None,
            ipv4=addresses.get((4, name), []),
            ipv6=addresses.get((6, name), []),
            state=tree.text(folder, "operstate") or "unknown",
            speed_mbps=None if speed in UNKNOWN_SPEEDS else speed,
            driver=target_of(tree.path(folder, "device/driver")),
            bond=target_of(tree.path(folder, "master")) if tree.names(folder, "bonding_slave") else None,
        )
    )


def place(tree: Tree, device: str) -> "dict[str, Any]":
    """Where a device sits. `pci_path` begins with the root complex and ends with the device itself."""
    real = os.path.realpath(device)
    head, _, beyond = real.rpartition(next(iter(PCI_FUNCTION.findall(real)[-1:]), "\0"))
    # A USB interface is no PCI device, though its controller is one.
    if not head or "/usb" in beyond:
        return dict(dict.fromkeys(("pci", "numa_node", "parent", "rdma")), pci_path=[], kind="regular")
    function = real[: len(real) - len(beyond)]
    parent = tree.path(function, "physfn")
    is_pf = any(name.startswith("virtfn") for name in tree.names(function))
    return {
        "pci": os.path.basename(function),
        "pci_path": [step for step in function.split("/") if PCI_ROOT.fullmatch(step) or PCI_FUNCTION.fullmatch(step)],
        # A virtio or auxiliary device has no NUMA node of its own; the PCI function above it has.
        "numa_node": tree.number(function, "numa_node"),
        "kind": "vf" if os.path.islink(parent) else "pf" if is_pf else "regular",
        "parent": target_of(parent),
        "rdma": next(iter(tree.names(real, "infiniband") or tree.names(function, "infiniband")), None),
    }


def target_of(link: str) -> "str | None":
    """The last name of what a link leads to; None where there is none."""
    return printable(os.path.basename(os.readlink(link))) if os.path.islink(link) else None


def read_moved_vfs(tree: Tree, found: "Found") -> None:
    """VFs without an interface here: in a container's namespace, or given to a virtual machine."""
    seen = {interface["pci"] for interface in found["interfaces"]}
    for pf in sorted({interface["pci"] for interface in found["interfaces"] if interface["kind"] == "pf"}):
        folder = tree.path("sys/bus/pci/devices", pf)
        vfs = [place(tree, tree.path(folder, name)) for name in tree.names(folder) if name.startswith("virtfn")]
        for vf in sorted((vf for vf in vfs if vf["pci"] not in seen), key=lambda vf: str(vf["pci"])):
            found["interfaces"].append(dict(vf, name=None, mac=None, state="elsewhere"))


def mac_of(address: str) -> "str | None":
    """A MAC as it is told everywhere; None for anything else, and for all zeros."""
    address = address.lower()
    return address if re.fullmatch("([0-9a-f]{2}:){5}[0-9a-f]{2}", address) and address.strip("0:") else None


def read_ipv4(addresses: "Addresses") -> None:
    """All addresses, secondary ones too. An ioctl works everywhere: old `ip` has no JSON, small images have no `ip`."""
    records = array.array("B", bytes(IFREQ.size * MAX_ADDRESSES))
    question = struct.pack("iP", len(records), records.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        length, _ = struct.unpack("iP", fcntl.ioctl(end, SIOCGIFCONF, question))
    for label, _, _, packed in IFREQ.iter_unpack(records.tobytes()[:length]):
        name = os.fsdecode(label.partition(b"\0")[0].partition(b":")[0])
        addresses.setdefault((4, name), []).append(socket.inet_ntoa(packed))


def read_ipv6(tree: Tree, addresses: "Addresses") -> None:
    for line in (tree.text("proc/net/if_inet6") or "").splitlines():
        packed, _, _, scope, _, name = line.split()
        if scope == "00":  # global
            addresses.setdefault((6, name), []).append(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(packed)))


def read_gpu(tree: Tree, pci: str, found: "Found") -> None:
    """GPUs come in PCI order, as Slurm counts them. A GPU's virtual function is none of its own."""
    vendor = tree.text("sys/bus/pci/devices", pci, "vendor") or ""
    classes = GPU_CLASSES.get(vendor)
    if not classes or (tree.text("sys/bus/pci/devices", pci, "class") or "")[:6] not in classes:
        return
    gpu = place(tree, tree.path("sys/bus/pci/devices", pci))
    if gpu["kind"] != "vf":
        known = {name: gpu[name] for name in ("pci", "pci_path", "numa_node")}
        found["gpus"].append(dict(known, index=len(found["gpus"]), minor=minor_of(tree, pci), vendor=VENDORS[vendor]))


def minor_of(tree: Tree, pci: str) -> "int | None":
    """N of /dev/nvidiaN; None where the driver does not tell."""
    text = tree.text("proc/driver/nvidia/gpus", pci, "information") or ""
    told = re.search(r"^Device Minor:\s*([0-9]+)", text, re.MULTILINE)
    return int(told.group(1)) if told else None


def read_lldp(found: "Found") -> None:
    """Neighbours of all interfaces, where lldpd runs and lets this user ask."""
    answer = answer_of("lldpctl", "-f", "json")
    for group in listed(json.loads(answer)["lldp"].get("interface")) if answer else []:
        for name, neighbour in group.items():
            chassis, port = listed(neighbour["chassis"])[0], listed(neighbour["port"])[0]
            # A chassis is keyed by its name where it tells one.
            switch = chassis["id"]["value"] if "value" in chassis.get("id", {}) else next(iter(chassis))
            is_name = port["id"]["type"] in ("ifname", "ifalias", "local") or not port.get("descr")
            label = port["id"]["value"] if is_name else port["descr"]
            told = {"interface": name, "switch": switch, "port": label}
            found["lldp"].append({key: printable(str(text)) for key, text in told.items()})


def answer_of(*command: str) -> str:
    """What a command prints; nothing when it fails or is not there."""
    # A job's PATH often lacks the folders of system programs.
    folders = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin"
    if not any(os.access(os.path.join(folder, command[0]), os.X_OK) for folder in folders.split(":")):
        return ""
    import signal
    import subprocess

    nobody, environment = subprocess.DEVNULL, dict(os.environ, PATH=folders)
    with subprocess.Popen(
        command, stdin=nobody, stdout=subprocess.PIPE, stderr=nobody, env=environment, start_new_session=True
    ) as child:
        try:
            answer, _ = child.communicate(timeout=LLDP_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            raise
    return answer.decode("utf-8", "replace") if child.returncode == 0 else ""


def listed(told: "Any") -> "list[Any]":
    """`lldpctl -f json` writes a list of one as its only element, and leaves out an empty one."""
    return told if isinstance(told, list) else [told] if told else []


def printable(text: str) -> str:
    """Names of interfaces may be any bytes, and a switch says what it likes."""
    return re.sub("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text)[:MAX_TEXT]


def report_of(tree: Tree, allow: "re.Pattern[str]") -> "dict[str, Any]":
    found: "Found" = {"interfaces": [], "gpus": [], "lldp": [], "problems": []}
    reader = threading.Thread(target=read_all, args=(tree, allow, found), daemon=True)
    reader.start()
    reader.join(LIMIT_S)
    if reader.is_alive():
        found["problems"].append(f"not all was read within {LIMIT_S} s")
    booted = re.search("^btime ([0-9]+)$", tree.text("proc/stat") or "", re.MULTILINE)
    return {
        "schema": SCHEMA,
        "hostname": printable(socket.gethostname()),
        "node": os.environ.get("SLURMD_NODENAME"),
        "boot_id": tree.text("proc/sys/kernel/random/boot_id"),
        "booted_at": int(booted.group(1)) if booted else None,
        "collected_at": int(time.time()),
        **{name: list(records) for name, records in found.items()},
    }


def pieces(node: str, line: str) -> "list[str]":
    """`node number/count piece` a line; the pieces together are base64 of the zlib-compressed line."""
    import binascii
    import zlib

    packed = binascii.b2a_base64(zlib.compress(line.encode()), newline=False).decode()
    parts = [packed[start : start + PIECE] for start in range(0, len(packed), PIECE)]
    return [f"cvagent-inventory {node} {number}/{len(parts)} {part}\n" for number, part in enumerate(parts, 1)]


def main() -> None:
    """--pieces; --root=FOLDER, where /sys and /proc are; --allow=REGEX, interfaces to take, hardware or not."""
    # argparse and what it imports would take a quarter of the time.
    given = dict(option.partition("=")[::2] for option in sys.argv[1:])
    if set(given) - {"--pieces", "--root", "--allow"}:
        sys.exit("usage: inventory.py [--pieces] [--root=FOLDER] [--allow=REGEX]")
    allow = re.compile(given.get("--allow", "(?!)"))
    report = report_of(Tree(given.get("--root", "/")), allow)
    line = json.dumps(report)
    sys.stdout.write(
        "".join(pieces(report["node"] or report["hostname"], line)) if "--pieces" in given else line + "\n"
    )
    sys.stdout.flush()
    os._exit(0)  # a thread that hangs in a driver must not keep the process


if __name__ == "__main__":
    main()
