"""Prints this node's interfaces, GPUs and LLDP neighbours as one line of JSON.

Runs on a compute node as `python3 inventory.py`, or from stdin: `python3 - < inventory.py`. Reads sysfs and procfs,
starts nothing but lldpctl, writes nothing, needs no root. What cannot be read is a line of `problems`, never the loss
of the rest; after LIMIT_S seconds it prints what it has.
"""

# argparse, re, json, socket and threading take longer to import than all the rest to run: done without, or only then.
import _thread
import binascii
import fcntl
import os
import struct
import sys
import time
import zlib
from _json import encode_basestring_ascii, make_encoder
from _socket import AF_INET, AF_INET6, SOCK_DGRAM, inet_ntop, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
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
SIOCGIFCONF = 0x8912
IFREQ = struct.Struct("16sHH4s16x" if sys.maxsize > 1 << 32 else "16sHH4s8x")
ARPHRD_ETHER, ARPHRD_INFINIBAND = "1", "32"
# VGA and 3D controllers. AMD's accelerators also call themselves display controllers and processing accelerators.
GPU_CLASSES = {"0x10de": ("0x0300", "0x0302"), "0x1002": ("0x0300", "0x0302", "0x0380", "0x1200")}
VENDORS = {"0x10de": "nvidia", "0x1002": "amd"}
# Drivers' words for an unknown speed, in 16 and 32 bits.
UNKNOWN_SPEEDS = (0xFFFF, 0xFFFFFFFF)
MAX_DIGITS, PYTHON_3_10 = 18, 0x30A0000
# The `shape` of a PCI address without its domain, and how that of a root complex begins.
FUNCTION, ROOT = ":00:00.0", "p0i0000"


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

    def number(self, *parts: str, after: str = "") -> "int | None":
        """Of the line that begins with `after`. None also for the kernel's -1, its word for unknown."""
        lines = (self.text(*parts) or "").splitlines()
        told = next((line[len(after) :].strip() for line in lines if line.startswith(after)), "")
        return int(told) if 0 < len(told) <= MAX_DIGITS and not told.strip("0123456789") else None

    def names(self, *parts: str) -> "list[str]":
        """What a folder holds, sorted; nothing when there is none."""
        try:
            return sorted(os.listdir(self.path(*parts)))
        except OSError:
            return []


def read_all(tree: Tree, allow: "re.Pattern[str] | None", found: "Found", done: "_thread.LockType") -> None:
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
    done.release()


def guarded(found: "Found", what: str, function: "Callable[..., None]", *arguments: "Any") -> None:
    try:
        function(*arguments)
    except Exception as error:  # whatever a driver does, the rest of the node is told
        found["problems"].append(printable(f"{what}: {type(error).__name__}: {error}"))


def is_wanted(tree: Tree, name: str, allow: "re.Pattern[str] | None") -> bool:
    """Hardware has a device; bridges, bonds, VLANs, veths and loopback have none."""
    is_hardware = os.path.exists(tree.path("sys/class/net", name, "device"))
    port = tree.text("sys/class/net", name, "phys_port_name") or ""
    return bool(allow and allow.search(name)) or (is_hardware and not is_representor(port))


def is_representor(port: str) -> bool:
    """In switchdev mode each function's port, like c1pf0vf2, is a device of the PF here; no cable leads there."""
    head, kind, _ = port.partition("vf") if "vf" in port else port.partition("sf")
    _, pf, number = head.rpartition("pf")
    return bool(kind and pf) and number.isdecimal()


def read_interface(tree: Tree, name: str, addresses: "Addresses", found: "Found") -> None:
    folder = tree.path("sys/class/net", name)
    # The members of a bond all show the bond's address as their own.
    address = tree.text(folder, "bonding_slave/perm_hwaddr") or tree.text(folder, "address")
    if address is None:
        raise ValueError("has no address that can be read")
    hardware, speed = tree.text(folder, "type"), tree.number(folder, "speed")
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
    steps = real.split("/")
    last = max([at for at, step in enumerate(steps) if shape(step).lstrip("0") == FUNCTION] or [0])
    # A USB interface is no PCI device, though its controller is one.
    if not last or any(step.startswith("usb") for step in steps[last:]):
        return dict(dict.fromkeys(("pci", "numa_node", "parent", "rdma")), pci_path=[], kind="regular")
    function = "/".join(steps[: last + 1])
    parent = tree.path(function, "physfn")
    is_pf = any(name.startswith("virtfn") for name in tree.names(function))
    return {
        "pci": os.path.basename(function),
        "pci_path": [step for step in steps[: last + 1] if shape(step).lstrip("0").startswith((FUNCTION, ROOT))],
        # A virtio or auxiliary device has no NUMA node of its own; the PCI function above it has.
        "numa_node": tree.number(function, "numa_node"),
        "kind": "vf" if os.path.islink(parent) else "pf" if is_pf else "regular",
        "parent": target_of(parent),
        "rdma": next(iter(tree.names(real, "infiniband") or tree.names(function, "infiniband")), None),
    }


def shape(text: str) -> str:
    """The text with a 0 for each hexadecimal digit."""
    return "".join("0" if letter in "0123456789abcdef" else letter for letter in text)


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
    return address if shape(address) == "00:00:00:00:00:00" and address.strip("0:") else None


def read_ipv4(addresses: "Addresses") -> None:
    """All addresses, secondary ones too. An ioctl works everywhere: old `ip` has no JSON, small images have no `ip`."""
    # From 3.10 on `array` imports collections, which takes as long as ten interfaces, for what it would set there too.
    if sys.hexversion >= PYTHON_3_10:
        sys.modules.setdefault("collections.abc", sys.modules["_collections_abc"])
    records = __import__("array").array("B", bytes(IFREQ.size * 1024))
    question = struct.pack("iP", len(records), records.buffer_info()[0])
    end = socket(AF_INET, SOCK_DGRAM)
    length, _ = struct.unpack("iP", fcntl.ioctl(end, SIOCGIFCONF, question))
    for label, _, _, packed in IFREQ.iter_unpack(records.tobytes()[:length]):
        name = os.fsdecode(label.partition(b"\0")[0].partition(b":")[0])
        addresses.setdefault((4, name), []).append(inet_ntop(AF_INET, packed))


def read_ipv6(tree: Tree, addresses: "Addresses") -> None:
    for line in (tree.text("proc/net/if_inet6") or "").splitlines():
        packed, _, _, scope, _, name = line.split()
        if scope == "00":  # global
            addresses.setdefault((6, name), []).append(inet_ntop(AF_INET6, bytes.fromhex(packed)))


def read_gpu(tree: Tree, pci: str, found: "Found") -> None:
    """GPUs come in PCI order, as Slurm counts them. A GPU's virtual function is none of its own."""
    vendor = tree.text("sys/bus/pci/devices", pci, "vendor") or ""
    classes = GPU_CLASSES.get(vendor)
    if not classes or (tree.text("sys/bus/pci/devices", pci, "class") or "")[:6] not in classes:
        return
    gpu = place(tree, tree.path("sys/bus/pci/devices", pci))
    if gpu["kind"] != "vf":
        known = {name: gpu[name] for name in ("pci", "pci_path", "numa_node")}
        minor = tree.number("proc/driver/nvidia/gpus", pci, "information", after="Device Minor:")
        found["gpus"].append(dict(known, index=len(found["gpus"]), minor=minor, vendor=VENDORS[vendor]))


def read_lldp(found: "Found") -> None:
    """Neighbours of all interfaces, where lldpd runs and lets this user ask."""
    answer = answer_of("lldpctl", "-f", "json")
    for group in listed(answer and __import__("json").loads(answer)["lldp"].get("interface")):
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
    import subprocess

    limited = ("timeout", "-s", "KILL", str(LLDP_LIMIT_S), *command)  # ends what the command started, too
    answer, nobody, environment = subprocess.PIPE, subprocess.DEVNULL, dict(os.environ, PATH=folders)
    done = subprocess.run(limited, stdin=nobody, stdout=answer, stderr=nobody, env=environment, check=False)
    if done.returncode < 0:
        raise TimeoutError(f"{command[0]} did not answer within {LLDP_LIMIT_S} s")
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def listed(told: "Any") -> "list[Any]":
    """`lldpctl -f json` writes a list of one as its only element, and leaves out an empty one."""
    return told if isinstance(told, list) else [told] if told else []


def printable(text: str) -> str:
    """Names of interfaces may be any bytes, and a switch says what it likes."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)[:MAX_TEXT]


def report_of(tree: Tree, allow: "re.Pattern[str] | None") -> "dict[str, Any]":
    found: "Found" = {"interfaces": [], "gpus": [], "lldp": [], "problems": []}
    done = _thread.allocate_lock()
    done.acquire()
    _thread.start_new_thread(read_all, (tree, allow, found, done))
    if not done.acquire(timeout=LIMIT_S):
        found["problems"].append(f"not all was read within {LIMIT_S} s")
    return {
        "schema": SCHEMA,
        "hostname": printable(os.uname().nodename),
        "node": os.environ.get("SLURMD_NODENAME"),
        "boot_id": tree.text("proc/sys/kernel/random/boot_id"),
        "booted_at": tree.number("proc/stat", after="btime "),
        "collected_at": int(time.time()),
        **{name: list(records) for name, records in found.items()},
    }


def pieces(node: str, line: str) -> "list[str]":
    """`node number/count piece` a line; the pieces together are base64 of the zlib-compressed line."""
    packed = binascii.b2a_base64(zlib.compress(line.encode()), newline=False).decode()
    parts = [packed[start : start + PIECE] for start in range(0, len(packed), PIECE)]
    return [f"cvagent-inventory {node} {number}/{len(parts)} {part}\n" for number, part in enumerate(parts, 1)]


def main() -> None:
    """--pieces; --root=FOLDER, where /sys and /proc are; --allow=REGEX, interfaces to take, hardware or not."""
    given = dict(option.partition("=")[::2] for option in sys.argv[1:])
    if set(given) - {"--pieces", "--root", "--allow"}:
        sys.exit("usage: inventory.py [--pieces] [--root=FOLDER] [--allow=REGEX]")
    allow = __import__("re").compile(given["--allow"]) if "--allow" in given else None
    report = report_of(Tree(given.get("--root", "/")), allow)
    encoded = make_encoder(None, str, encode_basestring_ascii, None, ": ", ", ", False, False, False)
    line = "".join(encoded(report, 0)) + "\n"
    sys.stdout.writelines(pieces(report["node"] or report["hostname"], line) if "--pieces" in given else [line])
    sys.stdout.flush()
    os._exit(0)  # a thread that hangs in a driver must not keep the process


if __name__ == "__main__":
    main()
