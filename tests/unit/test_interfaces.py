"""Which interfaces belong to what a job holds: on machines as they are built, and on invented trees."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvagent.model.holdings import How, Nearness
from cvagent.model.nodes import Gpu, Interface, NodeFacts, node_facts
from cvagent.push.interfaces import Topology, select

ROOT = Path(__file__).parents[2]
EVERYTHING = re.compile("")


@pytest.fixture(scope="session")
def inventory_of(tmp_path_factory):
    """Facts of a machine of tests/fixtures, as its inventory tells them."""

    def told(machine):
        folder = tmp_path_factory.mktemp(machine)
        subprocess.run([sys.executable, ROOT / "tests/fixtures/sysfs.py", machine, folder], check=True)
        command = [sys.executable, ROOT / "cvagent/node/inventory.py", f"--root={folder}"]
        return node_facts(subprocess.run(command, capture_output=True, check=True).stdout)

    return told


@pytest.fixture(scope="session")
def gpu_server(inventory_of):
    return inventory_of("gpu_server")


@pytest.fixture(scope="session")
def grace(inventory_of):
    return inventory_of("grace")


def at(path):
    """The PCI path of a function, bridges named by their places: "a/1/2/x" is below root complex a and root port 1."""
    return tuple(path.split("/"))


def gpu(path, numa=None):
    return Gpu(index=0, pci=path.rpartition("/")[2], pci_path=at(path), numa_node=numa)


def mac(number):
    return f"94:6d:ae:00:00:{number:02x}"


def nic(path, number, numa=None, **more):
    return Interface(
        name=f"ens{number}", mac=mac(number), pci=path.rpartition("/")[2], pci_path=at(path), numa_node=numa, **more
    )


def node(gpus=(), interfaces=()):
    return NodeFacts(schema=1, hostname="n1", collected_at=1, gpus=tuple(gpus), interfaces=tuple(interfaces))


def numbers(resolution):
    """Last bytes of the MACs."""
    return [int(told[-2:], 16) for told in resolution.macs]


def of_each_gpu(facts):
    tree = topology(facts)
    return [numbers(tree.resolve({"gpu": (index,)})) for index in range(len(facts.gpus))]


def topology(facts):
    return Topology("n1", facts)


def rails(count=8):
    """One GPU and one NIC on each of `count` switches."""
    gpus = [gpu(f"r{i}/p/s/d1/0000:{16 + i:02x}:01.0") for i in range(count)]
    return node(gpus, [nic(f"r{i}/p/s/d0/0000:{16 + i:02x}:00.0", i) for i in range(count)])


def two_on_a_switch(*interfaces):
    return node([gpu("r/p/s/d/0000:20:00.0", 0), gpu("r/p/s/e/0000:21:00.0", 0)], interfaces)


def test_a_rail_each():
    assert of_each_gpu(rails()) == [[i] for i in range(8)]


def test_two_jobs_with_four_gpus_each_have_nothing_in_common():
    tree = topology(rails())
    first, second = (tree.resolve({"gpu": held}) for held in [(0, 1, 2, 3), (4, 5, 6, 7)])
    assert (numbers(first), numbers(second)) == ([0, 1, 2, 3], [4, 5, 6, 7])
    assert first.how is How.INFERRED


def test_the_chain_is_told():
    link = topology(rails()).resolve({"gpu": (3,)}).links[0]
    assert (link.gres, link.index, link.gpu, link.nearness) == ("gpu", 3, "0000:13:01.0", Nearness.SWITCH)
    assert [interface.name for interface in link.ports] == ["ens3"]


def test_the_order_of_the_facts_does_not_matter():
    facts = rails()
    turned = node(reversed(facts.gpus), reversed(facts.interfaces))
    assert of_each_gpu(turned) == of_each_gpu(facts)


def test_two_gpus_and_two_nics_on_a_switch_pair_in_pci_order():
    facts = two_on_a_switch(nic("r/p/s/a/0000:19:00.0", 2), nic("r/p/s/b/0000:18:00.0", 1))
    assert of_each_gpu(facts) == [[1], [2]]


def test_a_card_of_two_ports_goes_to_its_gpu_as_a_whole():
    facts = two_on_a_switch(
        *(nic(f"r/p/s/a/0000:18:00.{port}", port) for port in (0, 1)),
        *(nic(f"r/p/s/b/0000:19:00.{port}", 2 + port) for port in (0, 1)),
    )
    assert of_each_gpu(facts) == [[0, 1], [2, 3]]


def test_one_card_of_two_ports_is_split_between_two_gpus():
    facts = two_on_a_switch(*(nic(f"r/p/s/a/0000:18:00.{port}", port) for port in (0, 1)))
    assert of_each_gpu(facts) == [[0], [1]]


def test_two_gpus_share_the_only_port():
    assert of_each_gpu(two_on_a_switch(nic("r/p/s/a/0000:18:00.0", 1))) == [[1], [1]]


def test_a_card_that_does_not_fill_a_round_belongs_to_nobody():
    facts = two_on_a_switch(*(nic(f"r/p/s/a/0000:1{card}:00.0", card) for card in (0, 1, 2)))
    assert of_each_gpu(facts) == [[0], [1]]


def test_members_of_a_bond_come_last():
    facts = two_on_a_switch(
        nic("r/p/s/a/0000:10:00.0", 0, bond="bond0"), *(nic(f"r/p/s/a/0000:1{n}:00.0", n) for n in (1, 2))
    )
    assert of_each_gpu(facts) == [[1], [2]]


def test_the_lower_switch_is_nearer():
    facts = node(
        [gpu("r/p/s/t/0000:20:00.0")], [nic("r/p/s/a/0000:10:00.0", 1), nic("r/p/s/t/0000:11:00.0", 2, numa=0)]
    )
    assert of_each_gpu(facts) == [[2]]


@pytest.mark.parametrize(
    ("nearer", "farther", "nearness"),
    [
        (nic("r/p/s/0000:10:00.0", 1), nic("r/p/0000:11:00.0", 2), Nearness.SWITCH),
        (nic("r/p/0000:10:00.0", 1), nic("r/q/0000:11:00.0", 2, 0), Nearness.ROOT_PORT),
        (nic("x/p/0000:10:00.0", 1, 0), nic("y/p/0000:11:00.0", 2, 1), Nearness.NUMA_NODE),
        (nic("r/q/0000:10:00.0", 1), nic("y/p/0000:11:00.0", 2), Nearness.NUMA_NODE),
        (nic("x/p/0000:10:00.0", 1, 1), nic("", 2), Nearness.OTHER),
    ],
)
def test_nearness(nearer, farther, nearness):
    facts = node([gpu("r/p/s/0000:20:00.0", 0)], [farther, nearer])
    resolution = topology(facts).resolve({"gpu": (0,)})
    assert numbers(resolution) == [1]
    assert resolution.links[0].nearness is nearness


def test_unknown_numa_nodes_are_not_the_same():
    facts = node([gpu("r/p/0000:20:00.0")], [nic("x/p/0000:10:00.0", 1)])
    assert topology(facts).resolve({"gpu": (0,)}).links[0].nearness is Nearness.OTHER


def test_a_gpu_with_no_nic_near_takes_one_that_is_no_nearer_gpus():
    facts = node(
        [gpu("a/p/s/0000:20:00.0", 0), gpu("b/p/s/0000:21:00.0", 0), gpu("c/p/s/0000:22:00.0", 1)],
        [nic("a/p/s/0000:10:00.0", 1, 0), nic("x/p/0000:11:00.0", 2, 0)],
    )
    assert of_each_gpu(facts) == [[1], [2], [1, 2]]


def test_ports_with_rdma_come_before_all_others():
    facts = two_on_a_switch(
        nic("r/p/s/a/0000:10:00.0", 0), nic("x/p/0000:11:00.0", 1, 0, rdma="mlx5_0"), nic("", 2, rdma="mlx5_1")
    )
    assert of_each_gpu(facts) == [[1], [1]]


def test_a_vf_goes_with_its_pf():
    facts = two_on_a_switch(
        nic("r/p/s/a/0000:10:00.0", 0, kind="pf", rdma="mlx5_0"),
        nic("r/p/s/a/0000:10:00.1", 1, kind="vf", parent="0000:10:00.0"),
        Interface(pci="0000:10:00.2", pci_path=at("r/p/s/a/0000:10:00.2"), kind="vf", parent="0000:10:00.0"),
        nic("r/p/s/b/0000:11:00.0", 2, rdma="mlx5_1"),
    )
    assert of_each_gpu(facts) == [[0, 1], [2]]


def test_vfs_alone_are_ports():
    facts = two_on_a_switch(
        *(nic(f"r/p/s/a/0000:10:00.{n}", n, kind="vf", parent="0000:10:00.0") for n in (1, 2, 3, 4))
    )
    assert of_each_gpu(facts) == [[1, 3], [2, 4]]


def test_infiniband_is_no_gpus_port():
    infiniband = Interface(
        name="ib0", guid="00:01", pci="0000:01:00.0", pci_path=at("r/p/s/i/0000:01:00.0"), rdma="mlx5_9"
    )
    facts = two_on_a_switch(infiniband, nic("r/p/s/a/0000:10:00.0", 0), nic("r/p/s/a/0000:11:00.0", 1))
    assert of_each_gpu(facts) == [[0], [1]]


def test_nic_indices_are_exact_and_beat_gpus():
    resolution = topology(rails()).resolve({"nic": (7, 2), "gpu": (0,)})
    assert (resolution.how, numbers(resolution)) == (How.EXACT, [7, 2])
    assert resolution.links[0].nearness is None


def test_infiniband_counts_as_a_nic_and_tells_no_mac():
    facts = node((), [Interface(name="ib0", guid="00:01", pci="0000:01:00.0"), nic("r/0000:10:00.0", 5)])
    tree = topology(facts)
    assert numbers(tree.resolve({"nic": (0, 1)})) == [5]
    assert tree.resolve({"nic": (0,)}).macs == ()


def test_a_nic_without_any_address_is_not_passed_over():
    facts = node((), [Interface(name="e0", pci="0000:01:00.0"), nic("r/0000:10:00.0", 5)])
    assert topology(facts).resolve({"nic": (0, 1)}).macs == ()


def test_software_interfaces_count_last():
    facts = node((), [Interface(name="a0", mac=mac(1)), nic("r/0000:10:00.0", 5)])
    assert numbers(topology(facts).resolve({"nic": (1,)})) == [1]


@pytest.mark.parametrize("held", [{"shard": (1,)}, {"mps": (1,)}, {"gpu": (), "shard": (1,)}, {"nic": (), "gpu": (1,)}])
def test_a_share_of_a_gpu_leads_where_the_gpu_does(held):
    assert numbers(topology(rails()).resolve(held)) == [1]


@pytest.mark.parametrize(
    ("held", "configured"),
    [
        ({}, None),
        ({"fpga": (1,)}, None),
        ({"gpu": ()}, None),
        ({"gpu": None}, None),
        ({"nic": None}, None),
        ({"gpu": (1,), "shard": None}, None),
        ({"gpu": (8,)}, None),
        ({"nic": (8,)}, None),
        ({"gpu": (0,)}, {"gpu": 56}),
        ({"nic": (0,)}, {"nic": 4}),
    ],
)
def test_what_cannot_be_told(held, configured):
    resolution = topology(rails()).resolve(held, configured)
    assert (resolution.how, resolution.macs) == (How.UNRESOLVED, ())
    assert resolution.reason


def test_what_slurm_counts_alike_is_believed():
    assert numbers(topology(rails()).resolve({"gpu": (1,)}, {"gpu": 8, "nic": 4})) == [1]


def test_gpus_on_a_node_without_nics():
    assert topology(node(rails().gpus)).resolve({"gpu": (0,)}).macs == ()


def test_a_whole_node():
    assert numbers(topology(rails()).whole()) == list(range(8))
    assert topology(node()).whole().macs == ()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("all", ["ens0f0np0", "ens0f0v0", "ens1f0np0", None]),
        ("pf", ["ens0f0np0"]),
        ("vf", ["ens0f0v0", None]),
        ("regular", ["ens1f0np0"]),
    ],
)
def test_select(gpu_server, kind, expected):
    told = select(gpu_server, re.compile("^ens[01]f"), kind).interfaces
    assert sorted((interface.name for interface in told), key=str) == sorted(expected, key=str)


def test_a_vf_without_a_name_goes_by_its_pfs(gpu_server):
    assert None not in {interface.name for interface in select(gpu_server, re.compile("^ens1f")).interfaces}


def test_a_gpu_server(gpu_server):
    assert of_each_gpu(gpu_server)[1:] == [[rail] for rail in range(1, 8)]
    of_first = topology(gpu_server).resolve({"gpu": (0,)})
    assert of_first.macs == ("94:6d:ae:00:00:00", "94:6d:ae:00:01:00")
    assert {link.nearness for link in topology(gpu_server).resolve({"gpu": tuple(range(8))}).links} == {Nearness.SWITCH}


def test_grace(grace):
    resolution = topology(grace).resolve({"gpu": (0, 1, 2, 3)})
    assert numbers(resolution) == [0, 1, 2, 3]
    assert {link.nearness for link in resolution.links} == {Nearness.NUMA_NODE}


PLACES = st.tuples(*(st.sampled_from("ab") for _ in range(4))).map("/".join)


@given(st.lists(PLACES, max_size=8), st.lists(PLACES, max_size=8))
def test_any_tree(gpu_places, nic_places):
    facts = node(
        [gpu(f"{place}/0000:{32 + i:02x}:00.0", 0) for i, place in enumerate(gpu_places)],
        [nic(f"{place}/0000:{64 + i:02x}:00.0", i, 0) for i, place in enumerate(nic_places)],
    )
    if not nic_places:
        assert all(topology(facts).resolve({"gpu": (i,)}).macs == () for i in range(len(gpu_places)))
        return
    each = of_each_gpu(facts)
    told = [number for ports in each for number in ports]
    assert all(each)
    if gpu_places and len(set(gpu_places)) == 1 and len(gpu_places) <= len(nic_places) and len(set(nic_places)) == 1:
        assert len(set(told)) == len(told)
    union = topology(facts).resolve({"gpu": tuple(range(len(gpu_places)))}).macs
    assert gpu_places == [] or {int(text[-2:], 16) for text in union} == set(told)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "srun: error",
        b"\xff",
        "[" * 100_000,
        '{"schema": 1, "x": ' + "[" * 100_000,
        '{"schema": 2, "hostname": "n", "collected_at": 1}',
        '{"schema": 1, "hostname": "n", "collected_at": 1, "interfaces": [{"mac": "AA:00:00:00:00:01"}]}',
        '{"schema": 1, "hostname": "n", "collected_at": 1, "interfaces": [{"mac": "aa:00:00:00:00:01\\n"}]}',
    ],
)
def test_what_is_no_inventory(text):
    with pytest.raises(ValueError, match="inventory"):
        node_facts(text)
