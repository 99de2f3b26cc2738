"""What is asked of Slurm, word for word, and what is read from its answers."""

from pathlib import Path

import pytest
from fakes import FakeSlurm, Record
from hypothesis import given, settings
from hypothesis import strategies as st

from cvagent.clients.slurm import Slurm, SlurmConfig
from cvagent.errors import CommandFailed, Unreadable
from cvagent.model import Identity, Run

CAPTURES = Path(__file__).parents[1] / "captures" / "client"
LIVE_STATES = (
    "RUNNING,SUSPENDED,COMPLETING,STOPPED,SIGNALING,STAGE_OUT,RESIZING,COMPLETED,CANCELLED,FAILED,TIMEOUT,"
    "NODE_FAIL,PREEMPTED,BOOT_FAIL,DEADLINE,OUT_OF_MEMORY,REVOKED,SPECIAL_EXIT"
)
ENDED_STATES = (
    "BOOT_FAIL,CANCELLED,COMPLETED,DEADLINE,FAILED,NODE_FAIL,OUT_OF_MEMORY,PREEMPTED,TIMEOUT,REQUEUED,RESIZING,REVOKED"
)
NASTY = [
    "plain",
    "",
    " spaces at both ends ",
    "a|b\x1fc\x1ed\te",
    "first line\nsecond line",
    "ends with a newline\n",
    "\nbegins with one",
    "x\x1e0123456789abcdef\n4712\x1fRUNNING\x1f100\x1f100\x1fN/A\x1f0\x1fbatch\x1fnode9\x1fforged",
    "quotes \" ' ` and ünï→漢字",
    "%A\\x1f$HOME;`id`",
]
QUESTIONS = [
    pytest.param("squeue", lambda slurm: slurm.live_jobs(), id="live"),
    pytest.param("sacct", lambda slurm: slurm.ended_jobs(1_700_000_000, 1_700_000_600), id="ended"),
    pytest.param("sacct", lambda slurm: slurm.jobs_by_id([4711]), id="by id"),
]
GARBAGE = [
    b"slurm_load_jobs error: nothing that was asked for\n",
    b"\x00\xff\xfe",
    b"{}",
    b"\n",
    b"4711\x1fRUNNING\x1f100",
]


def slurm_of(*, live=(), accounted=()) -> tuple[Slurm, FakeSlurm]:
    fake = FakeSlurm(live, accounted)
    return Slurm(fake, timeout_s=10), fake


class Tampered:
    """A runner that hands on what `change` makes of the real answer."""

    def __init__(self, inner, change) -> None:
        self.inner, self.change = inner, change

    def run(self, command, *, timeout_s, env=None):
        return self.change(self.inner.run(command, timeout_s=timeout_s, env=env))

    def stop(self) -> None: ...


def test_squeue_is_asked_for_named_fields_of_all_but_pending_jobs():
    slurm, fake = slurm_of()
    slurm.live_jobs()
    [[*words, fields]] = fake.commands
    assert words == [
        *("squeue", "-h", "-a", "-r", "-t"),
        LIVE_STATES,
        "-O",
    ]
    before, _, mark = fields.rpartition(":")
    assert before == (
        "JobID:\x1f,State:\x1f,SubmitTime:\x1f,StartTime:\x1f,EndTime:\x1f,RestartCnt:\x1f,OverSubscribe:\x1f,"
        "Partition:\x1f,NodeList:\x1f,Name"
    )
    assert mark[0] == "\x1e"
    assert len(mark) == 17


ASKED_OF_SACCT = ["-o", "JobIDRaw,State,Submit,Start,End,Partition,NodeList,JobName"]


@pytest.mark.parametrize(
    ("ask", "end"),
    [
        (
            lambda slurm: slurm.ended_jobs(1_700_000_000, 1_700_000_600),
            [
                *("-S", "uts1700000000", "-E", "uts1700000600", "-s"),
                ENDED_STATES,
            ],
        ),
        (
            lambda slurm: slurm.ended_jobs(1_700_000_000, 1_700_000_600, all_states=True),
            ["-S", "uts1700000000", "-E", "uts1700000600"],
        ),
        (lambda slurm: slurm.jobs_by_id([4711, 4712]), ["-S", "uts1000000", "-j", "4711,4712"]),
    ],
)
def test_sacct_is_asked_for_named_fields_of_allocations_with_all_their_runs(ask, end):
    slurm, fake = slurm_of()
    ask(slurm)
    [command] = fake.commands
    assert command[:6] == ["sacct", "-n", "-a", "-X", "-D", "-p"]
    assert command[6].startswith("--delimiter=\x1e")
    assert command[7:] == [*ASKED_OF_SACCT, *end]


def test_the_mark_is_another_each_time():
    slurm, fake = slurm_of()
    slurm.live_jobs()
    slurm.live_jobs()
    slurm.jobs_by_id([1])
    slurm.jobs_by_id([1])
    assert len({str(command) for command in fake.commands}) == 4


@pytest.mark.parametrize(("program", "ask"), QUESTIONS)
def test_no_jobs_are_no_jobs(program, ask):
    slurm, fake = slurm_of()
    assert ask(slurm) == []
    assert [command[0] for command in fake.commands] == [program]


@pytest.mark.parametrize(("program", "ask"), QUESTIONS)
def test_no_answer_is_never_an_empty_one(program, ask):
    slurm, fake = slurm_of()
    fake.broken[program] = "Unable to contact slurm controller (connect failure)"
    with pytest.raises(CommandFailed, match="Unable to contact slurm controller"):
        ask(slurm)


@pytest.mark.parametrize(("program", "ask"), QUESTIONS)
@pytest.mark.parametrize("answer", GARBAGE)
def test_garbage_is_refused(program, ask, answer):
    slurm, fake = slurm_of()
    fake.broken[program] = answer
    with pytest.raises(Unreadable, match=program):
        ask(slurm)


TWO = [
    Record(4711, "COMPLETED", 1_700_000_100, 1_700_000_110, 1_700_000_200, "node[1-2]"),
    Record(4712, "FAILED", 1_700_000_100, 1_700_000_110, 1_700_000_300, "node3", name="last"),
]


@pytest.mark.parametrize("ask", [question.values[1] for question in QUESTIONS])
def test_an_answer_that_was_cut_off_is_refused_wherever_it_was_cut(ask):
    jobs = [job._replace(job_id=4711, submitted_at=index) for index, job in enumerate(TWO, 1)]
    fake = FakeSlurm(jobs, jobs)
    whole = ask(Slurm(fake, timeout_s=10))
    assert len(whole) == 2
    for length in range(1, 400):
        slurm = Slurm(Tampered(fake, lambda answer, end=length: answer[:end]), timeout_s=10)
        try:
            assert ask(slurm) in (whole, whole[:1], [])
        except Unreadable:
            continue


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"4711", b"4711_3"),
        (b"4711", b"-4711"),
        (b"4711", b""),
        (b"1700000100", b"2023-11-14T22:15:00"),
        (b"1700000110", b"yesterday"),
        (b"1700000200", b"-1"),
        (b"COMPLETED", b"COMPLETED\x1fCOMPLETED"),
    ],
)
def test_a_job_that_cannot_be_read_spoils_the_answer(old, new):
    slurm = Slurm(Tampered(FakeSlurm(TWO), lambda answer: answer.replace(old, new)), timeout_s=10)
    with pytest.raises(Unreadable, match="squeue printed"):
        slurm.live_jobs()


@pytest.mark.parametrize("field", ["4711", "1700000100", "1700000110", "1700000200"])
def test_a_row_that_cannot_be_read_spoils_the_answer(field):
    fake = FakeSlurm(accounted=TWO)
    slurm = Slurm(Tampered(fake, lambda answer: answer.replace(field.encode(), b"soon")), timeout_s=10)
    with pytest.raises(Unreadable, match="sacct printed a job that cannot be read: 'soon' is no number"):
        slurm.jobs_by_id([4711])


def test_a_field_too_few_is_refused():
    slurm = Slurm(Tampered(FakeSlurm(TWO), lambda answer: answer.replace(b"batch\x1f", b"", 1)), timeout_s=10)
    with pytest.raises(Unreadable, match="squeue printed a record of 9 fields where 10 were asked for"):
        slurm.live_jobs()


def test_a_mark_too_few_is_refused():
    fake = FakeSlurm(accounted=TWO)
    slurm = Slurm(Tampered(fake, lambda answer: answer[:4] + answer[21:]), timeout_s=10)
    with pytest.raises(Unreadable, match="no multiple of the 8 asked for"):
        slurm.jobs_by_id([4711])


def test_what_squeue_calls_the_end_of_a_running_job_is_its_limit():
    slurm, _ = slurm_of(live=[Record(4711, "RUNNING", 100, 110, nodes="node[1-2]", restarts=2)])
    assert slurm.live_jobs() == [
        Run(Identity(4711, 100), "RUNNING", 110, None, "batch", "node[1-2]", "train", 2, exclusive=False)
    ]


def test_an_ended_job_in_squeue_has_its_end():
    slurm, _ = slurm_of(live=[Record(4711, "TIMEOUT", 100, 110, 200, "node1")])
    assert slurm.live_jobs() == [
        Run(Identity(4711, 100), "TIMEOUT", 110, 200, "batch", "node1", "train", 0, exclusive=False)
    ]


@pytest.mark.parametrize(
    ("state", "word"),
    [("CANCELLED by 20003", "CANCELLED"), ("CANCELLED+", "CANCELLED"), ("OUT_OF_MEMORY", "OUT_OF_MEMORY")],
)
def test_accounting_says_who_cancelled_and_that_is_left_out(state, word):
    slurm, _ = slurm_of(accounted=[Record(4711, state, 100, 110, 200, "node1")])
    assert slurm.jobs_by_id([4711]) == [Run(Identity(4711, 100), word, 110, 200, "batch", "node1", "train")]


def test_accounting_has_words_for_nothing():
    slurm, _ = slurm_of(accounted=[Record(4711, "PENDING", 100)])
    assert slurm.jobs_by_id([4711]) == [Run(Identity(4711, 100), "PENDING", None, None, "batch", "", "train")]


def test_records_that_stay_the_same_are_read_once_and_stay_right():
    slurm, fake = slurm_of(live=[Record(1, "RUNNING", 100, 110, nodes="node1"), Record(2, "RUNNING", 100, 110)])
    first = slurm.live_jobs()
    fake.live[0] = fake.live[0]._replace(state="COMPLETED", ended_at=200)
    second = slurm.live_jobs()
    assert second[1] is first[1]
    assert (second[0].word, second[0].ended_at) == ("COMPLETED", 200)
    fake.live.clear()
    assert slurm.live_jobs() == []


@pytest.mark.parametrize("name", NASTY)
def test_a_name_neither_forges_nor_hides_a_job(name):
    jobs = [Record(number, "COMPLETED", 100, 110, 200, "node1", name=name) for number in (1, 2, 3)]
    slurm, _ = slurm_of(live=jobs, accounted=jobs)
    assert [(run.identity.job_id, run.name) for run in slurm.live_jobs()] == [(1, name), (2, name), (3, name)]
    assert [(run.identity.job_id, run.name) for run in slurm.jobs_by_id([1, 2, 3])] == [(1, name), (2, name), (3, name)]


def test_invalid_utf8_in_a_name_spoils_that_name_alone():
    jobs = [Record(1, "RUNNING", 100, 110, name="bad \udcff\udce9"), Record(2, "RUNNING", 100, 110, name="good")]
    slurm, _ = slurm_of(live=jobs, accounted=jobs)
    assert [run.name for run in slurm.live_jobs()] == ["bad \ufffd\ufffd", "good"]
    assert [run.name for run in slurm.jobs_by_id([1, 2])] == ["bad \ufffd\ufffd", "good"]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(
    "\x1e\x1f\n|0123456789abcdef", max_size=60
)


@settings(derandomize=True)
@given(names=st.lists(TEXT, max_size=5))
def test_any_names_come_back_as_they_were(names):
    jobs = [Record(number, "COMPLETED", 100, 110, 200, "node1", name) for number, name in enumerate(names, 1)]
    slurm, _ = slurm_of(live=jobs, accounted=jobs)
    assert [run.name for run in slurm.live_jobs()] == names
    assert [run.name for run in slurm.jobs_by_id(range(1, 6))] == names
    assert [run.identity.job_id for run in slurm.live_jobs()] == [job.job_id for job in jobs]


@settings(derandomize=True)
@given(names=st.lists(st.binary(max_size=30), max_size=4))
def test_any_bytes_in_names_leave_every_other_field_alone(names):
    texts = [name.decode(errors="surrogateescape") for name in names]
    jobs = [Record(number, "COMPLETED", 100, 110, 200, "node1", name) for number, name in enumerate(texts, 1)]
    slurm, _ = slurm_of(live=jobs, accounted=jobs)
    for runs in (slurm.live_jobs(), slurm.jobs_by_id(range(1, 6))):
        assert [(*run.identity, run.nodes) for run in runs] == [(job.job_id, 100, "node1") for job in jobs]
        assert [run.name for run in runs] == [name.decode(errors="replace") for name in names]


def test_a_long_list_of_ids_is_split_under_the_limit_of_an_argument():
    ids = list(range(60_000_000, 60_030_000))
    slurm, fake = slurm_of(accounted=[Record(ids[0], "RUNNING", 100, 110), Record(ids[-1], "RUNNING", 100, 110)])
    assert [run.identity.job_id for run in slurm.jobs_by_id(ids)] == [ids[0], ids[-1]]
    lists = [command[command.index("-j") + 1] for command in fake.commands]
    assert len(lists) == 3
    assert max(map(len, lists)) < 128 * 1024
    assert [int(job_id) for text in lists for job_id in text.split(",")] == ids


def test_no_ids_are_no_question():
    slurm, fake = slurm_of()
    assert slurm.jobs_by_id([]) == []
    assert fake.commands == []


class Recorded:
    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def run(self, command, *, timeout_s, env=None) -> bytes:  # noqa: ARG002
        return self.answer

    def stop(self) -> None: ...


CONFIG = (CAPTURES / "scontrol_show_config.txt").read_bytes()


def test_the_configuration_of_a_real_cluster_is_read():
    expected = SlurmConfig(
        "lab",
        "22.05.8",
        accounting=True,
        min_job_age_s=300,
        private_data=("none",),
        enforced=("associations", "limits", "qos"),
    )
    assert Slurm(Recorded(CONFIG), timeout_s=10).config() == expected


def test_a_cluster_without_accounting_is_told_apart():
    answer = CONFIG.replace(b"accounting_storage/slurmdbd", b"accounting_storage/none")
    assert Slurm(Recorded(answer), timeout_s=10).config().accounting is False


@pytest.mark.parametrize(
    "answer", [*GARBAGE, b"", CONFIG.replace(b"300 sec", b"soon"), CONFIG.replace(b"= lab", b"= ")]
)
def test_a_configuration_that_cannot_be_read_is_refused(answer):
    with pytest.raises(Unreadable, match="scontrol show config"):
        Slurm(Recorded(answer), timeout_s=10).config()


def test_no_configuration_is_no_default():
    fake = FakeSlurm()
    fake.broken["scontrol"] = "Unable to contact slurm controller (connect failure)"
    with pytest.raises(CommandFailed):
        Slurm(fake, timeout_s=10).config()
