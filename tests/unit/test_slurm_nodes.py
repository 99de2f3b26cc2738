"""Nodes and what they say of themselves, behind a runner that answers as Slurm's commands do."""

import json
import os

import pytest
from node_commands import FakeNodes

from cvagent.clients.slurm_nodes import InventoryJob, Place, SlurmNode, SlurmNodes
from cvagent.errors import CommandFailed, SourceError, Unreadable
from cvagent.model import Ask
from cvagent.sources.node_facts import StepInventory, grouped, why_not
from cvagent.sources.node_reports import Reports
from cvagent.sources.slurm_nodes import ClusterNodes
from cvagent.store.outbox import SqlOutbox

DAY_S = 86_400
IDLE = SlurmNode("n", frozenset({"idle"}), 8, 1000, 50, (Place("batch", up=True, default=True),))


class World:
    """A cluster of some nodes and a source that looks at it."""

    def __init__(self, *names: str, inventory=None, **job) -> None:
        self.slurm = FakeNodes(*names)
        self.store = SqlOutbox("sqlite://", "lab")
        self.job = InventoryJob(**job)
        self.inventory = inventory
        self.source = self.restarted()

    def restarted(self) -> ClusterNodes:
        nodes = SlurmNodes(self.slurm, 10)
        inventory = self.inventory or StepInventory(nodes, self.job)
        return ClusterNodes(nodes, inventory, self.store.facts(), DAY_S, 60)

    def look(self, now: int):
        self.slurm.commands.clear()
        return self.source.observe(Ask(now=now, since=0, known={}, cold=False))

    def told(self, now: int) -> list[str]:
        return [name for name, facts in self.look(now).facts.items() if facts]


def test_one_step_for_all():
    world = World("n1", "n2", "n3")
    assert world.told(100) == ["n1", "n2", "n3"]
    (step,) = world.slurm.asked("srun")
    assert {"--job-name=cv-inventory", "--nodes=3", "--nodelist=n[1-3]", "--mem=16"} <= set(step)


def test_few_questions():
    world = World(*(f"n{number}" for number in range(500)))
    world.look(100)
    assert [command[0] for command in world.slurm.commands] == ["scontrol", "sinfo", "squeue", "srun"]
    world.look(160)
    assert [command[0] for command in world.slurm.commands] == ["scontrol", "sinfo"]


def test_settings_reach_srun():
    world = World(
        *["n1"], partition="batch", account="ops", qos="low", reservation="tests", arguments=("-C", "x y"), allow="^e"
    )
    world.look(100)
    (step,) = world.slurm.asked("srun")
    wanted = {"--partition=batch", "--account=ops", "--qos=low", "--reservation=tests", "-C", "x y", "--allow=^e"}
    assert wanted <= set(step)


@pytest.mark.parametrize("program", ["sinfo", "scontrol"])
@pytest.mark.parametrize("broken", ["no answer", b"", b"garbage", b"garbage\n"])
def test_none_no_answer_and_garbage_are_errors(program, broken):
    world = World("n1", "n2")
    world.slurm.broken[program] = broken
    with pytest.raises(SourceError):
        world.look(100)
    assert world.slurm.asked("srun") == []


@pytest.mark.parametrize("program", ["sinfo", "scontrol"])
def test_half_an_answer_is_an_error(program):
    whole = World("n1", "n2").slurm.run(FakeNodes.QUESTIONS[program], timeout_s=1)
    for length in range(1, len(whole)):
        world = World("n1", "n2")
        world.slurm.broken[program] = whole[:length]
        if program == "sinfo" and whole[:length].endswith(b"\n"):
            assert set(world.look(100).facts) == {"n1", "n2"}
        else:
            with pytest.raises(Unreadable):
                world.look(100)


def test_a_node_in_two_partitions_counts_once():
    world = World("n1")
    world.slurm.partitions["debug"] = ["n1"]
    assert world.told(100) == ["n1"]
    assert len(world.slurm.asked("srun")) == 1


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("allocated", "busy"),
        ("idle+drain", "drain"),
        ("mixed+drain", "drain"),
        ("down*", "down not_responding"),
        ("idle*", "not_responding"),
        ("idle+reserved", "reserved"),
        ("idle+maintenance+reserved", "maintenance reserved"),
        ("idle+completing", "completing"),
        ("unknown", "unknown"),
        ("idle+some_day", "some_day"),
    ],
)
def test_what_cannot_take_it_is_left_out_and_costs_the_others_nothing(state, reason):
    world = World("n1", "n2")
    world.slurm.states["n1"] = state
    seen = world.look(100)
    assert [name for name, facts in seen.facts.items() if facts] == ["n2"]
    assert seen.delays == {"n1": (reason, 100)}
    assert world.look(160).delays == {"n1": (reason, 100)}
    assert world.slurm.asked("srun") == []
    world.slurm.states["n1"] = "idle"
    assert world.told(220) == ["n1", "n2"]
    assert world.look(280).delays == {}


@pytest.mark.parametrize("state", ["idle", "mixed", "mixed+planned", "idle+cloud", "idle+dynamic_norm"])
def test_what_can(state):
    world = World("n1")
    world.slurm.states["n1"] = state
    assert world.told(100) == ["n1"]


def test_a_reservation_opens_its_nodes():
    reserved = SlurmNode("n", frozenset({"idle", "reserved"}), 8, 1000, 50, IDLE.places)
    assert why_not(reserved, InventoryJob()) == "reserved"
    assert why_not(reserved, InventoryJob(reservation="tests")) == ""


def test_no_partition_no_step():
    assert "partition" in why_not(IDLE, InventoryJob(partition="gpu"))


def test_as_few_partitions_as_will_do():
    batch, debug, gpu = Place("batch", True, True), Place("debug", True, False), Place("gpu", True, False)
    nodes = {
        "n1": SlurmNode("n1", frozenset({"idle"}), 1, 99, 0, (batch, debug)),
        "n2": SlurmNode("n2", frozenset({"idle"}), 1, 99, 0, (batch,)),
        "n3": SlurmNode("n3", frozenset({"idle"}), 1, 99, 0, (debug, gpu)),
        "n4": SlurmNode("n4", frozenset({"idle"}), 1, 99, 0, (gpu,)),
    }
    assert grouped(nodes, nodes, None) == {"batch": ["n1", "n2"], "gpu": ["n3", "n4"]}
    assert grouped(["n1"], nodes, "debug") == {"debug": ["n1"]}


def test_a_node_that_spoils_the_step_is_found_by_halves():
    world = World(*(f"n{number}" for number in range(8)))
    world.slurm.spoilers = {"n5": "Unable to allocate resources: Requested nodes are busy"}
    seen = world.look(100)
    assert [name for name, facts in seen.facts.items() if not facts] == ["n5"]
    assert "busy" in seen.delays["n5"].reason
    assert len(world.slurm.asked("srun")) == 7


def test_what_fails_for_all_is_tried_once():
    world = World(*(f"n{number}" for number in range(8)))
    world.slurm.spoilers = {"n5": "Unable to allocate resources: Invalid account"}
    world.look(100)
    assert len(world.slurm.asked("srun")) == 1


def test_a_node_asked_in_vain_is_asked_less_and_less():
    world = World("n1")
    world.slurm.spoilers = {"n1": "Requested nodes are busy"}
    asked = [now for now in range(0, 1200, 60) if world.look(now) and world.slurm.asked("srun")]
    assert asked == [0, 60, 180, 420, 900]


def test_nodes_that_answered_count_though_another_failed():
    world = World("n1", "n2")
    world.slurm.mute = {"n2"}
    seen = world.look(100)
    assert [name for name, facts in seen.facts.items() if facts] == ["n1"]
    assert "exit code 1" in seen.delays["n2"].reason


def test_never_two_jobs_at_once():
    world = World("n1")
    world.slurm.jobs = [7]
    assert world.look(100).delays["n1"].reason == "another inventory is under way, job 7"
    assert world.slurm.asked("srun") == world.slurm.asked("scancel") == []
    world.slurm.jobs = []
    assert world.told(160) == ["n1"]


def test_an_overdue_job_is_cancelled_by_its_id():
    world = World("n1", time_s=0)
    world.slurm.jobs = [7]
    world.look(100)
    world.look(160)
    assert world.slurm.asked("scancel") == [["scancel", "7"]]


def test_what_a_failed_step_left_is_cancelled():
    world = World("n1")
    world.slurm.spoilers = {"n1": "did not end within 60 s"}
    world.slurm.leaves = 9
    world.look(100)
    assert world.slurm.asked("scancel") == [["scancel", "9"]]


def test_a_reboot_is_a_reason_to_ask():
    world = World("n1", "n2")
    world.look(100)
    world.slurm.booted["n2"] = 130
    world.look(160)
    assert [step[-1] for step in world.slurm.asked("srun")] == ["--pieces"]
    assert "--nodelist=n2" in world.slurm.asked("srun")[0]


def test_age_is_a_reason_to_ask():
    world = World("n1")
    world.look(100)
    assert (world.look(100 + DAY_S - 1) and world.slurm.asked("srun")) == []
    assert (world.look(100 + DAY_S) and len(world.slurm.asked("srun"))) == 1


def test_a_restart_asks_no_node_again():
    world = World("n1")
    world.look(100)
    world.source = world.restarted()
    assert world.told(160) == ["n1"]
    assert world.slurm.asked("srun") == []


def test_what_another_process_put_into_the_store_is_seen():
    world = World("n1")
    world.slurm.states["n1"] = "down"
    world.look(100)
    world.store.facts().keep({"n1": b'{"schema":1,"hostname":"n1","collected_at":1}'}, 130)
    assert world.told(160) == ["n1"]


def test_a_line_of_another_release_in_the_store_is_as_none():
    world = World("n1")
    world.store.facts().keep({"n1": b'{"schema":99}'}, 50)
    assert world.told(100) == ["n1"]


@pytest.mark.parametrize("line", [b"{}", b'{"schema":1,"hostname":"n1","node":"n2","collected_at":1}', b"\xff"])
def test_a_node_that_says_what_cannot_be_believed(line):
    world = World("n1")
    world.slurm.lines["n1"] = line
    seen = world.look(100)
    assert seen.facts == {"n1": None}
    assert "no readable inventory" in seen.delays["n1"].reason


def test_a_vf_in_another_namespace_keeps_its_name_and_mac():
    vf = {"name": "ens0f0v0", "mac": "94:6d:ae:00:01:00", "pci": "0000:18:00.1", "kind": "vf"}
    world = World("n1")
    for now, port in ((100, vf), (200_000, vf | {"name": None, "mac": None, "state": "elsewhere"})):
        world.slurm.lines["n1"] = json.dumps(world.slurm.facts("n1") | {"interfaces": [port]}).encode()
        (interface,) = world.look(now).facts["n1"].interfaces
        assert (interface.name, interface.mac) == ("ens0f0v0", "94:6d:ae:00:01:00")
    assert interface.state == "elsewhere"


def test_what_a_node_said_goes_a_day_after_the_node():
    world = World("n1", "n2")
    world.look(100)
    world.slurm.remove("n2")
    world.look(200)
    assert set(world.store.facts().after(0)) == {"n1", "n2"}
    world.look(101 + DAY_S)
    assert set(world.store.facts().after(0)) == {"n1"}


def test_asked_by_name_though_nothing_is_due():
    world = World("n1", "n2")
    world.look(100)
    world.slurm.commands.clear()
    assert world.source.ask_now(["n2"], 160).delays == {}
    assert "--nodelist=n2" in world.slurm.asked("srun")[0]
    with pytest.raises(SourceError, match="n9"):
        world.source.ask_now(["n9"], 160)


class TestReports:
    @pytest.fixture
    def world(self, tmp_path):
        return World("n1", "n2", inventory=Reports(tmp_path))

    def test_a_report_is_taken_once_and_news_at_once(self, world, tmp_path):
        assert world.look(100).delays["n1"].reason == "has left no report"
        report = tmp_path / "n1.json"
        report.write_text(json.dumps(world.slurm.facts("n1")))
        assert world.told(160) == ["n1"]
        assert world.store.facts().after(0)["n1"][1] == 160
        world.look(220)
        assert world.store.facts().after(0)["n1"][1] == 160
        report.write_text(json.dumps(world.slurm.facts("n1") | {"collected_at": 5}))
        os.utime(report, ns=(1, 1))
        assert world.look(280).facts["n1"].collected_at == 5

    def test_nobody_speaks_for_another(self, world, tmp_path):
        (tmp_path / "n2.json").write_text(json.dumps(world.slurm.facts("n1")))
        (tmp_path / "n9.json").write_text(json.dumps(world.slurm.facts("n9")))
        assert world.told(100) == []

    def test_only_plain_files_of_a_bounded_size(self, world, tmp_path):
        (tmp_path / "n1.json").symlink_to("/etc/passwd")
        os.mkfifo(tmp_path / "n2.json")
        seen = world.look(100)
        assert seen.facts == {"n1": None, "n2": None}
        assert all("cannot be read" in delay.reason for delay in seen.delays.values())
        (tmp_path / "n1.json").unlink()
        with (tmp_path / "n1.json").open("wb") as big:
            big.truncate(5 << 20)
        assert "4 MiB" in world.look(160).delays["n1"].reason

    def test_no_folder(self, world, tmp_path):
        tmp_path.rmdir()
        assert "CVAGENT_NODE_REPORT_DIR" in world.look(100).delays["n1"].reason


def test_an_srun_that_cannot_be_started_is_said():
    world = World("n1")
    world.slurm.broken["srun"] = "not found"
    assert "not found" in world.look(100).delays["n1"].reason


def test_a_command_that_fails_has_its_output():
    assert CommandFailed("srun", "killed", 1, b"half").stdout == b"half"
