"""What scontrol says of GRES, and what a user can make it say."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvagent.clients.gres import GresAnswer, Part, Size, read_gres, read_sizes
from cvagent.clients.hostlist import unfold
from cvagent.errors import Unreadable

# Of a lab with Slurm 22.05: types of GPU, shards, NICs, a GRES without files, arrays, hostile names and comments.
RECORDED = (Path(__file__).parents[1] / "fixtures" / "scontrol_show_job_d.txt").read_text()
EVERYBODY = range(1, 30)
SECTION = "JOB_GRES=gpu:8   Nodes=node9 CPU_IDs=0 Mem=1 GRES=gpu:h100:8(IDX:0-7) MinCPUsNode=1"


def record(
    job_id, name="train", section="JOB_GRES=gpu:2   Nodes=node1 CPU_IDs=0 Mem=1 GRES=gpu:2(IDX:0,3)", comment=""
):
    section = f"{section} " if section else ""
    return (
        f"JobId={job_id} JobName={name} UserId=alice(1) JobState=RUNNING CoreSpec=* {section}MinCPUsNode=1 "
        f"Features=(null) Comment={comment} Power= \n"
    )


def read(text, job_ids=EVERYBODY):
    held, doubtful = read_gres(text, job_ids, unfold)
    return GresAnswer({job: {node: part.held for node, part in parts.items()} for job, parts in held.items()}, doubtful)


def held_as(gres):
    text = record(7, section=f"JOB_GRES={gres}   Nodes=node1 CPU_IDs=0 Mem=1 GRES={gres}")
    return read(text).held[7]["node1"]


def test_recorded():
    held, doubtful = read(RECORDED)
    assert held[7] == {"node1": {"gpu": (0, 2), "nic": (0,)}}
    assert held[8] == {"node1": {"shard": (1,)}}
    assert held[10] == {"node1": {"fpga": None, "nic": (1,)}}
    assert held[11] == {"node1": {"gpu": (3,)}, "node2": {"gpu": (1,)}}
    assert held[12] == {"node1": {"nic": (3,)}}
    assert held[14] == {"node1": {"nic": (2,)}}
    assert held[13] == {"node1": {}}
    assert doubtful == {1, 2, 6, 15, 17}


def test_cpus_are_counted():
    assert read_gres(RECORDED, [7, 12], unfold).held[7]["node1"] == Part({"gpu": (0, 2), "nic": (0,)}, 1)


def test_sizes_of_nodes():
    text = "".join(
        f"NodeName=n{number} Arch=x86_64 CPUAlloc=2 {cpus} CPULoad=0.4 Gres={gres} NodeAddr=n OS=Linux #1 BootTime=x \n"
        for number, (cpus, gres) in enumerate(
            [
                ("CPUEfctv=6 CPUTot=8", "gpu:h100:8(S:0-1),nic:8"),
                ("CPUTot=4", "(null)"),
                ("CPUTot=2", "bandwidth:lustre:4K"),
            ]
        )
    )
    text += "Reason=of two\nlines\n"
    assert read_sizes(text) == {"n0": Size(6, {"gpu": 8, "nic": 8}), "n1": Size(4, {}), "n2": Size(2, {})}


@pytest.mark.parametrize("text", ["", "half a line", "NodeName=n1 Arch=x86_64 CPUTot=4 \n", "error\n"])
def test_what_are_no_sizes(text):
    with pytest.raises(Unreadable, match="show node"):
        read_sizes(text)


def test_a_name_of_two_lines_is_no_harm():
    assert read(RECORDED).held[16] == {"node1": {}}


def test_jobs_over_or_pending_are_left_out():
    assert not {2, 4, 5, 18, 19, 20} & read(RECORDED).held.keys()


def test_a_job_whose_record_was_forged_is_sure_when_asked_for_alone():
    alone = "".join(line for line in RECORDED.splitlines(keepends=True) if line.startswith("JobId=6 ArrayJobId"))
    assert read(alone, {6}) == ({}, frozenset())


@pytest.mark.parametrize(
    ("gres", "expected"),
    [
        ("gpu:h100:2(IDX:0-1)", {"gpu": (0, 1)}),
        ("gpu:2(IDX:0,3)", {"gpu": (0, 3)}),
        ("nic:1(IDX:3)", {"nic": (3,)}),
        ("gpu:a100(CNT:2)", {"gpu": None}),
        ("gpu:a100:1(IDX:2),gpu:h100:2(IDX:0-1),nic:mlx5:1(IDX:7)", {"gpu": (0, 1, 2), "nic": (7,)}),
        ("gpu:a100:1(IDX:2),gpu:h100(CNT:2)", {"gpu": None}),
        ("gpu:h100:0(IDX:)", {"gpu": ()}),
        ("shard:4(0/8,4/8)", {"shard": (1,)}),
        ("mps:100(IDX:0(100/200),2(50/200))", {"mps": (0, 2)}),
        ("gpu:2", {"gpu": None}),
        ("gpu:2(IDX:one)", {"gpu": None}),
        ("gpu:2(IDX:0-99999)", {"gpu": None}),
        ("gpu:2(IDX:3-9999)", {"gpu": None}),
        ("gpu:2()", {"gpu": None}),
        ("(null)", {}),
    ],
)
def test_forms(gres, expected):
    assert held_as(gres) == expected


@pytest.mark.parametrize("gres", ["((", ",", "gpu:1(IDX:0),", "(IDX:0)"])
def test_what_is_no_gres_is_doubtful(gres):
    text = record(7, section=f"JOB_GRES=gpu:1   Nodes=node1 CPU_IDs=0 Mem=1 GRES={gres}")
    assert read(text) == ({}, {7})


def test_no_hostlist_is_doubtful():
    text = record(7, section="JOB_GRES=gpu:1   Nodes=node[1 CPU_IDs=0 Mem=1 GRES=gpu:1(IDX:0)")
    assert read(text).doubtful == {7}


def test_several_nodes():
    nodes = "   Nodes=node[1-2] CPU_IDs=0-1 Mem=1 GRES=gpu:1(IDX:0)   Nodes=b1 CPU_IDs=0 Mem=1 GRES=gpu:1(IDX:1)"
    held = read(record(7, section=f"JOB_GRES=gpu:3{nodes}")).held[7]
    assert held == {"node1": {"gpu": (0,)}, "node2": {"gpu": (0,)}, "b1": {"gpu": (1,)}}


def test_none():
    assert read("No jobs in the system\n") == ({}, frozenset())


def test_jobs_of_others_are_passed_over():
    assert read(record(7) + record(8), {8}).held.keys() == {8}


@pytest.mark.parametrize(
    "text", ["", "\n", "slurm_load_jobs error: Unable to contact\n", record(7)[:-20], "warning\n" + record(7), "{}"]
)
def test_garbage_and_half_an_answer(text):
    with pytest.raises(Unreadable):
        read(text)


@pytest.mark.parametrize("place", ["name", "comment"])
@pytest.mark.parametrize(
    "text",
    [
        f"x {SECTION}",
        f"x\n{SECTION}",
        f"x\nJobId=8 JobName=y {SECTION}",
        f"x\nJobId=8 JobName=y UserId=bob(2) {SECTION} Power= \n",
        "x JOB_GRES=gpu:8",
        "x MinCPUsNode=1",
        f"x\nJobId={'9' * 5000} y",
    ],
)
@pytest.mark.parametrize("other", [record(8), record(8, section=""), record(8, section="JOB_GRES=(null)")])
def test_nobody_gets_what_is_forged(place, text, other):
    held, doubtful = read(record(7, **{place: text}) + other, {7, 8})
    assert held.get(7) in ({"node1": {"gpu": (0, 3)}}, None)
    assert held.get(8) in ({"node1": {"gpu": (0, 3)}}, None)
    assert doubtful <= {7, 8}


def test_the_true_section_stands_where_nothing_else_looks_like_one():
    held, doubtful = read(record(7, name="JOB_GRES=gpu:8", comment="a\nb") + record(8, comment="Nodes=x GRES=y"))
    assert held.keys() == {7, 8}
    assert not doubtful


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=4, max_size=4))
def test_any_names_and_comments(names, comments):
    text = "".join(record(number, name, comment=comments[number]) for number, name in enumerate(names))
    held, doubtful = read(text, range(len(names)))
    assert {*held, *doubtful} == set(range(len(names)))
    assert all(places == {"node1": {"gpu": (0, 3)}} for places in held.values())


PIECES = [
    "\n",
    "JobId=",
    "1",
    "2",
    " ",
    "JobName=",
    SECTION,
    "JOB_GRES=",
    "MinCPUsNode=",
    "Nodes=",
    "GRES=",
    "gpu",
    "(",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.booleans())
def test_any_forgery(hostile, in_name):
    forged = record(1, hostile) if in_name else record(1, comment=hostile)
    held, _ = read(forged + record(2), {1, 2})
    assert all(places == {"node1": {"gpu": (0, 3)}} for places in held.values())
