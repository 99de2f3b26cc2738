"""The inventory on machines as they are built, and on machines that break."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cvagent.model.nodes import joined, node_facts

SCRIPT = Path(__file__).parents[2] / "cvagent" / "node" / "inventory.py"
LLDP_ONE = """{"lldp": {"interface": {"ens1f0": {"via": "LLDP",
  "chassis": {"leaf1": {"id": {"type": "mac", "value": "28:99:3a:00:00:01"}, "descr": "Arista Networks EOS"}},
  "port": {"id": {"type": "ifname", "value": "Ethernet1"}, "descr": "to node1"}}}}}"""
LLDP_TWO = """{"lldp": {"interface": [
  {"ens1f0": {"chassis": {"leaf1": {"id": {"type": "mac", "value": "28:99:3a:00:00:01"}}},
              "port": {"id": {"type": "ifname", "value": "Ethernet1"}}}},
  {"ens1f1": {"chassis": {"id": {"type": "mac", "value": "28:99:3a:00:00:02"}},
              "port": {"id": {"type": "mac", "value": "28:99:3a:00:00:09"}, "descr": "Ethernet2"}}}]}}"""


def older_pythons():
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python3.{minor}") for minor in range(6, 10)]
    found += [str(path) for path in pyenv.glob("3.[6-9].*/bin/python")]
    # What is on the PATH may be a shim of a version that is not there.
    return [
        path
        for path in found
        if path and subprocess.run([path, "-c", ""], stderr=subprocess.DEVNULL, check=False).returncode == 0
    ]


def by_name(report):
    return {interface["name"]: interface for interface in report["interfaces"]}


@pytest.fixture
def gpu_server(sysfs, tmp_path):
    return sysfs.gpu_server(tmp_path / "gpu_server").root


@pytest.fixture
def plain(sysfs, tmp_path):
    return sysfs.plain(tmp_path / "plain")


def test_hardware_alone_is_told(inventory, gpu_server):
    rails = {f"ens{rail}f0np0" for rail in range(8)}
    report = inventory(gpu_server)
    assert set(by_name(report)) == {*rails, "ens0f0v0", "ib0", "eno1", "eno2", "enxb03af2b6059f", None}
    assert report["problems"] == []


def test_an_interface_in_full(inventory, gpu_server):
    assert by_name(inventory(gpu_server))["ens0f0np0"] == {
        "name": "ens0f0np0",
        "mac": "94:6d:ae:00:00:00",
        "guid": None,
        "ipv4": [],
        "ipv6": ["2001:db8::18", "2001:db8::19"],
        "state": "up",
        "speed_mbps": 400000,
        "driver": "mlx5_core",
        "pci": "0000:18:00.0",
        "pci_path": ["pci0000:15", "0000:15:01.0", "0000:16:00.0", "0000:17:00.0", "0000:18:00.0"],
        "numa_node": 0,
        "kind": "pf",
        "parent": None,
        "rdma": "mlx5_0",
        "bond": None,
    }


def test_members_of_a_bond_keep_their_own_macs(inventory, gpu_server):
    told = by_name(inventory(gpu_server))
    assert [(told[name]["mac"], told[name]["bond"]) for name in ("eno1", "eno2")] == [
        ("3c:ec:ef:00:00:01", "bond0"),
        ("3c:ec:ef:00:00:02", "bond0"),
    ]


def test_infiniband_has_no_mac(inventory, gpu_server):
    told = by_name(inventory(gpu_server))["ib0"]
    assert told["mac"] is None
    assert len(told["guid"].split(":")) == 20


def test_virtual_functions_know_their_parent_and_stay_known_elsewhere(inventory, gpu_server):
    told = by_name(inventory(gpu_server))
    assert (told["ens0f0v0"]["kind"], told["ens0f0v0"]["parent"]) == ("vf", "0000:18:00.0")
    moved = told[None]
    assert (moved["pci"], moved["parent"], moved["mac"], moved["state"]) == (
        "0000:18:00.2",
        "0000:18:00.0",
        None,
        "elsewhere",
    )
    assert told["ens1f0np0"]["kind"] == "regular"


def test_a_usb_interface_has_no_place_in_the_pci_tree(inventory, gpu_server):
    told = by_name(inventory(gpu_server))["enxb03af2b6059f"]
    assert (told["pci"], told["pci_path"], told["speed_mbps"]) == (None, [], None)


def test_gpus_come_in_pci_order_with_their_minors(inventory, gpu_server):
    gpus = inventory(gpu_server)["gpus"]
    assert [gpu["pci"][5:7] for gpu in gpus] == ["19", "1b", "3b", "3d", "91", "93", "bb", "bd"]
    assert [gpu["index"] for gpu in gpus] == list(range(8))
    assert [gpu["minor"] for gpu in gpus] == list(range(7, -1, -1))
    assert [gpu["numa_node"] for gpu in gpus] == [0] * 4 + [1] * 4


def test_pci_domains(inventory, sysfs, tmp_path):
    report = inventory(sysfs.grace(tmp_path / "grace").root)
    told = by_name(report)["enP22p3s0np0"]
    assert told["pci_path"] == ["pci0016:00", "0016:00:00.0", "0016:03:00.0"]
    assert [gpu["pci"] for gpu in report["gpus"]] == ["0008:01:00.0", "0009:01:00.0", "0018:01:00.0", "0019:01:00.0"]


def test_long_domains_come_last(inventory, sysfs, tmp_path):
    machine = sysfs.Machine(tmp_path / "long")
    machine.gpu("pci10000:00/10000:00:01.0", 0)
    machine.gpu("pcif000:00/f000:00:01.0", 0, vendor="0x1002")
    gpus = inventory(machine.root)["gpus"]
    assert [(gpu["pci"], gpu["vendor"], gpu["minor"]) for gpu in gpus] == [
        ("f000:00:01.0", "amd", None),
        ("10000:00:01.0", "nvidia", None),
    ]


def test_a_plain_server(inventory, plain):
    report = inventory(plain.root)
    told = by_name(report)
    assert [(name, told[name]["speed_mbps"], told[name]["state"], told[name]["numa_node"]) for name in told] == [
        ("ens1f0", 25000, "up", None),
        ("ens1f1", None, "down", None),
    ]
    assert report["gpus"] == []
    assert (report["schema"], report["booted_at"]) == (1, 1795167351)


def test_nothing_there_is_an_answer(inventory, tmp_path):
    report = inventory(tmp_path)
    assert (report["interfaces"], report["gpus"], report["problems"]) == ([], [], [])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("address", "00:00:00:00:00:00"),
        ("address", "garbage"),
        ("address", ""),
        ("address", "0c:42:a1:00:00:01:02:03"),
        ("type", "24"),
    ],
)
def test_what_is_no_mac_is_none(inventory, plain, file, text):
    plain.write(f"sys/class/net/ens1f0/{file}", text)
    told = by_name(inventory(plain.root))
    assert told["ens1f0"]["mac"] is None
    assert told["ens1f1"]["mac"] == "0c:42:a1:00:00:02"


@pytest.mark.parametrize("speed", ["-1", "4294967295", "65535", "fast", "", "٣"])
def test_unknown_speeds(inventory, plain, speed):
    plain.write("sys/class/net/ens1f0/speed", speed)
    assert by_name(inventory(plain.root))["ens1f0"]["speed_mbps"] is None


def test_a_broken_interface_is_a_line_and_no_more(inventory, plain):
    (plain.root / "sys/class/net/ens1f0/address").unlink()
    report = inventory(plain.root)
    assert list(by_name(report)) == ["ens1f1"]
    assert report["problems"] == ["ens1f0: ValueError: has no address that can be read"]


def test_garbage_in_place_of_addresses_is_a_line_and_no_more(inventory, plain):
    plain.write("proc/net/if_inet6", "no such form")
    report = inventory(plain.root)
    assert set(by_name(report)) == {"ens1f0", "ens1f1"}
    assert [problem.partition(":")[0] for problem in report["problems"]] == ["ipv6"]


def test_any_bytes_in_a_name(inventory, plain, sysfs):
    machine = sysfs.Machine(plain.root)
    machine.nic("pci0000:16/0000:16:03.0/0000:19:00.0", os.fsdecode(b"e\xff\x1bth"), "0c:42:a1:00:00:07")
    report = inventory(plain.root)
    assert by_name(report)["e��th"]["mac"] == "0c:42:a1:00:00:07"


def test_software_interfaces_may_be_allowed(inventory, gpu_server):
    report = inventory(gpu_server, "--allow=^(lo|br0)$")
    told = by_name(report)
    assert told["br0"]["mac"] == "3c:ec:ef:00:00:01"
    assert told["lo"]["mac"] is None
    assert told["lo"]["ipv4"] == ["127.0.0.1"]
    assert "bond0" not in told


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace")
def test_all_ipv4_addresses(inventory, sysfs, tmp_path, tools):
    machine = sysfs.Machine(tmp_path / "addressed")
    machine.nic("pci0000:16/0000:16:03.0/0000:19:00.0", "d0", "0c:42:a1:00:00:07")
    tools(
        "isolated",
        "exec unshare --net sh -ec 'ip link add d0 type veth peer name d1; ip addr add 10.1.0.1/16 dev d0; "
        'ip addr add 10.1.0.2/16 dev d0; ip addr add 192.0.2.7/32 dev d0 label d0:1; exec python3 "$@"\' sh "$@"',
    )
    report = inventory(machine.root, python=str(tools.folder / "isolated"))
    assert by_name(report)["d0"]["ipv4"] == ["10.1.0.1", "192.0.2.7", "10.1.0.2"]


def test_slurms_name_for_the_node(inventory, plain):
    assert inventory(plain.root)["node"] is None
    assert inventory(plain.root, env={"SLURMD_NODENAME": "gpu-07"})["node"] == "gpu-07"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"lldp": {}}', []),
        (LLDP_ONE, [("ens1f0", "leaf1", "Ethernet1")]),
        (LLDP_TWO, [("ens1f0", "leaf1", "Ethernet1"), ("ens1f1", "28:99:3a:00:00:02", "Ethernet2")]),
    ],
)
def test_lldp(inventory, plain, tools, answer, expected):
    tools("lldpctl", f"cat <<'END'\n{answer}\nEND")
    report = inventory(plain.root)
    assert [(told["interface"], told["switch"], told["port"]) for told in report["lldp"]] == expected
    assert report["problems"] == []


@pytest.mark.parametrize("script", ["exit 1", "echo '{\"lldp\": {}}'; exit 1"])
def test_lldp_without_an_answer_is_no_problem(inventory, plain, tools, script):
    tools("lldpctl", script)
    report = inventory(plain.root)
    assert (report["lldp"], report["problems"]) == ([], [])


@pytest.mark.parametrize("answer", ["{", "[]", "null", '{"lldp": {"interface": {"ens1f0": {}}}}'])
def test_garbage_from_lldp_is_a_line_and_no_more(inventory, plain, tools, answer):
    tools("lldpctl", f"echo '{answer}'")
    report = inventory(plain.root)
    assert report["lldp"] == []
    assert [problem.partition(":")[0] for problem in report["problems"]] == ["lldp"]
    assert len(report["interfaces"]) == 2


def test_an_lldp_that_hangs_is_given_up(inventory, plain, tools):
    tools("lldpctl", "tail -f /dev/null | tail -f /dev/null")
    report = inventory(plain.root, source=SCRIPT.read_text().replace("LLDP_LIMIT_S = 2", "LLDP_LIMIT_S = 0.2"))
    assert len(report["interfaces"]) == 2
    assert report["problems"] == ["lldp: TimeoutError: lldpctl did not answer within 0.2 s"]


def test_a_driver_that_hangs_is_given_up(inventory, plain):
    speed = plain.root / "sys/class/net/ens1f1/speed"
    speed.unlink()
    os.mkfifo(speed)
    report = inventory(plain.root, source=SCRIPT.read_text().replace("\nLIMIT_S = 5", "\nLIMIT_S = 0.3"))
    assert list(by_name(report)) == ["ens1f0"]
    assert report["problems"] == ["not all was read within 0.3 s"]


def test_from_stdin(inventory, plain):
    assert set(by_name(inventory(plain.root, source=SCRIPT.read_text()))) == {"ens1f0", "ens1f1"}


def test_this_machine(inventory):
    report = inventory("/")
    hardware = {path.parent.name for path in Path("/sys/class/net").glob("*/device")}
    assert set(by_name(report)) - {None} == hardware
    assert report["problems"] == []


def test_what_it_prints_is_what_the_model_reads(inventory, gpu_server, tools):
    tools("lldpctl", f"cat <<'END'\n{LLDP_TWO}\nEND")
    facts = node_facts(json.dumps(inventory(gpu_server)))
    assert len(facts.interfaces) == 14
    assert len(facts.gpus) == 8
    assert [told.switch for told in facts.lldp] == ["leaf1", "28:99:3a:00:00:02"]


def test_the_grammar_is_that_of_python_3_6():
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))


@pytest.mark.skipif(not older_pythons(), reason="no Python of 3.6 to 3.9 here")
def test_older_pythons(inventory, gpu_server):
    reports = [inventory(gpu_server, python=python) for python in [sys.executable, *older_pythons()]]
    for report in reports:
        del report["collected_at"]
    assert all(report == reports[0] for report in reports)


def test_pieces(gpu_server):
    command = [sys.executable, SCRIPT, f"--root={gpu_server}", "--pieces"]
    done = subprocess.run(command, env={"SLURMD_NODENAME": "gpu-07"}, capture_output=True, text=True, check=True)
    (node, line), *others = joined(done.stdout.splitlines()).items()
    assert (node, others) == ("gpu-07", [])
    assert len(node_facts(line).interfaces) == 14


def test_an_unknown_option_is_refused():
    done = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "usage:" in done.stderr
