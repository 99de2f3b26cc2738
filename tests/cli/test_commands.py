import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

STOP_LIMIT_S = 10
MEND = "did you mean CVAGENT_JOB_INTERVAL_S?"


def test_help_lists_every_command_in_order(cvagent):
    shown = cvagent("--help").stdout
    commands = re.findall(r"^  (\S+)  +\S", shown[shown.index("Commands:") :], re.MULTILINE)
    assert commands[:4] == ["run", "plan", "check", "drift"]
    assert commands[-1] == "demo"
    assert {"backfill", "outbox", "cost", "stand-in"} <= set(commands)
    assert "..." not in shown[shown.index("Commands:") :], "no line is cut"
    assert "..." not in shown[shown.index("Commands:") :], "no line is cut"


def test_once_sends_what_plan_shows_and_then_nothing_is_left(cvagent, stand_in):
    planned = cvagent("plan", "--json")
    assert planned.exit_code == 0
    keys = {change["key"] for change in json.loads(planned.stdout)["jobs"]["changes"]}
    assert cvagent("run", "--once").exit_code == 0
    assert keys
    assert keys <= stand_in.jobs.keys()
    again = json.loads(cvagent("plan", "jobs", "--json").stdout)["jobs"]["changes"]
    assert {change["why"] for change in again} <= {"new", "ended"}, "the recording goes on, but nothing is sent twice"


def test_plan_of_an_unknown_flow_is_wrong_usage(cvagent):
    told = cvagent("plan", "nodez")
    assert told.exit_code == 2
    assert "'nodez' is no flow of mode push: jobs" in told.output


def test_plan_without_an_agent_says_what_it_compares_with(cvagent):
    told = cvagent("plan", CVAGENT_STORE_URL=None)
    assert told.exit_code == 0
    assert "no agent answers on http://127.0.0.1:1" in told.stderr
    assert "+ 1@lab" in told.stdout


def test_once_fails_when_cloudvision_is_down(cvagent, stand_in):
    stand_in.down()
    told = cvagent("run", "--once")
    assert told.exit_code == 1
    waiting = cvagent("outbox", "list")
    assert "1@lab" in waiting.stdout
    assert "pending" in waiting.stdout
    stand_in.up()
    assert cvagent("run", "--once").exit_code == 0
    assert "nothing is pending or set aside" in cvagent("outbox", "list").stdout


def test_what_is_refused_is_set_aside_until_a_person_acts(cvagent, stand_in):
    stand_in.faults("400@^1@lab$")
    assert cvagent("run", "--once").exit_code == 1
    listed = [json.loads(line) for line in cvagent("outbox", "list", "--json").stdout.splitlines()]
    assert [(entry["key"], entry["status"]) for entry in listed] == [("1@lab", "set_aside")]
    stand_in.faults("")
    assert "1@lab" not in stand_in.jobs
    assert cvagent("outbox", "retry", "1@lab").stdout.startswith("1 entry due again")
    assert cvagent("run", "--once").exit_code == 0
    assert "1@lab" in stand_in.jobs


def test_drop_forgets(cvagent, stand_in):
    stand_in.faults("400@^1@lab$")
    cvagent("run", "--once")
    assert cvagent("outbox", "drop", "1@lab").exit_code == 0
    assert cvagent("outbox", "drop", "1@lab").exit_code == 1


@pytest.mark.parametrize("words", [("outbox", "retry"), ("outbox", "drop", "--all", "1@lab"), ("run", "--force")])
def test_wrong_usage(cvagent, words):
    assert cvagent(*words).exit_code == 2


def test_a_store_in_memory_cannot_be_mended_from_outside(cvagent):
    told = cvagent("outbox", "retry", "--all", CVAGENT_STORE_URL=None)
    assert told.exit_code == 1
    assert "CVAGENT_STORE_URL" in told.stderr


def test_resend_sends_again_and_names_what_is_unknown(cvagent, stand_in):
    cvagent("run", "--once")
    before = len(stand_in.history)
    told = cvagent("resend", "1", "987654")
    assert told.exit_code == 1
    assert "job 987654: Slurm does not know it" in told.stderr
    assert [write.key for write in stand_in.history[before:]][:1] == ["1@lab"]
    assert cvagent("resend", "1").exit_code == 0


def test_backfill_sends_what_ended(cvagent, stand_in):
    told = cvagent("backfill", "--since", "1h")
    assert told.exit_code == 0
    assert re.search(r"(\d+) of \1 documents sent", told.stdout)
    assert {job["state"] for job in stand_in.jobs.values()} >= {"JOB_STATE_COMPLETED", "JOB_STATE_RUNNING"}


@pytest.mark.parametrize("since", ["yesterday", "2026-13-01", "7w"])
def test_backfill_wants_a_time(cvagent, since):
    told = cvagent("backfill", "--since", since)
    assert told.exit_code == 2
    assert since in told.output


def test_check_is_all_well(cvagent):
    told = cvagent("check")
    assert told.exit_code == 0, told.stdout
    assert "FAIL" not in told.stdout
    assert "clock        agrees with CloudVision's" in told.stdout


def test_check_names_what_is_wrong_and_the_mend(cvagent, tmp_path):
    told = cvagent("check", CVAGENT_CLOUDVISION_TOKEN="wrong-token", CVAGENT_SLURM_BIN_DIR=str(tmp_path))
    assert told.exit_code == 1
    failed = [line for line in told.stdout.splitlines() if line.startswith("FAIL")]
    assert [line.split()[1] for line in failed] == ["squeue", "sacct", "scontrol", "slurmctld", "CloudVision"]
    assert "CVAGENT_SLURM_BIN_DIR" in failed[0]
    assert "the token is refused" in failed[-1]
    assert "wrong-token" not in told.stdout


def test_wrong_settings_stop_the_start(cvagent):
    told = cvagent("run", CVAGENT_JOB_INTERVALS="3", CVAGENT_CLOUDVISION_TOKEN="distinctive secret")
    assert told.exit_code == 2
    assert MEND in told.stderr
    assert "distinctive" not in told.output


def test_pull_has_nothing_to_run_yet(cvagent):
    told = cvagent("run", CVAGENT_MODE="pull")
    assert told.exit_code == 2
    assert "CVAGENT_MODE=pull" in told.stderr


@pytest.fixture
def taken():
    """An address on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def slurm_away(folder):
    """A folder with Slurm's commands, of which none reaches slurmctld."""
    for name in ("squeue", "sacct", "scontrol", "sinfo"):
        command = folder / name
        command.write_text("#!/bin/sh\necho 'error: Unable to contact slurm controller' >&2; exit 1\n")
        command.chmod(0o755)
    return str(folder)


@pytest.fixture
def start(settings, tmp_path):
    """Starts the agent as systemd does, and returns what came of it."""

    def call(**changes: str) -> subprocess.CompletedProcess:
        program = [sys.executable, "-m", "cvagent"]
        env = os.environ | settings | changes
        return subprocess.run(program, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    return call


class TestWhatIsDownAtTheStartIsNoWrongSetting:
    """Whoever started the agent tries again after exit code 1, and not after 2."""

    def test_slurmctld(self, start, tmp_path):
        told = start(CVAGENT_SLURM_BIN_DIR=slurm_away(tmp_path))
        unnamed = "Error: CVAGENT_CLUSTER is not set and Slurm does not tell its ClusterName: scontrol: "
        assert (told.returncode, unnamed in told.stderr) == (1, True), told.stderr
        assert "Unable to contact slurm controller" in told.stderr

    def test_docker(self, start, tmp_path):
        docker = {"CVAGENT_SLURM_DEPLOYMENT": "docker", "CVAGENT_SLURM_CONTAINER": "slurmctld"}
        told = start(DOCKER_HOST=f"unix://{tmp_path}/none", CVAGENT_SLURM_BIN_DIR="", **docker)
        assert (told.returncode, "no Docker engine at unix://" in told.stderr) == (1, True), told.stderr

    def test_postgresql(self, start):
        told = start(CVAGENT_STORE_URL="postgresql://me@127.0.0.1:1/x")
        assert (told.returncode, "(CVAGENT_STORE_URL)" in told.stderr) == (1, True), told.stderr

    def test_address_of_the_pages(self, start, tmp_path, taken):
        """As Slurm need not answer when the cluster has a name, it gets as far as that."""
        away = slurm_away(tmp_path)
        told = start(CVAGENT_CLUSTER="lab", CVAGENT_SLURM_BIN_DIR=away, CVAGENT_HTTP_LISTEN=taken)
        said = f"Error: CVAGENT_HTTP_LISTEN: cannot listen on {taken}: another program listens there"
        assert (told.returncode, said in told.stderr) == (1, True), told.stderr


def test_a_start_that_waits_for_slurm_hears_of_sigterm_as_a_containers_first_process(settings, tmp_path):
    asked = tmp_path / "asked"
    os.mkfifo(asked)
    command = tmp_path / "scontrol"
    command.write_text(f"#!/bin/sh\necho >{asked}; exec sleep 60\n")
    command.chmod(0o755)
    # The kernel keeps a signal from a first process that has no handler for it.
    program = ["sh", "-c", "trap '' TERM; exec \"$@\"", "sh", sys.executable, "-m", "cvagent"]
    env = os.environ | settings | {"CVAGENT_SLURM_BIN_DIR": str(tmp_path)}
    with subprocess.Popen(program, env=env, cwd=tmp_path) as agent:
        asked.read_bytes()
        agent.terminate()
        assert agent.wait(STOP_LIMIT_S) == 0


def test_a_wrong_fault_names_what_is_allowed(cvagent):
    told = cvagent("stand-in", "--fault", "sneeze*3")
    assert told.exit_code == 2
    assert "sneeze" in told.output


def test_the_recorded_demo_ends_by_itself_and_leaves_nothing(tmp_path):
    folder = Path("/var/tmp")  # noqa: S108 - where the demo keeps its own, with a name nobody else has
    left = set(folder.glob("cvagent-demo-*"))
    demo = [sys.executable, "-m", "cvagent", "demo", "--recorded", "--for", "5"]
    shown = subprocess.run(demo, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "Replaying a recorded cluster" in shown
    assert "there is no tenant portal" in shown
    assert "1@lab" in shown
    assert set(folder.glob("cvagent-demo-*")) <= left


def test_explain_tells_what_cloudvision_was_told(cvagent):
    cvagent("run", "--once")
    told = cvagent("explain", "job", "1")
    assert told.exit_code == 0
    assert told.stdout.startswith("1@lab  ")
    assert "CloudVision  accepted this at 20" in told.stdout
    [story] = json.loads(cvagent("explain", "job", "1", "--json").stdout)
    assert (story["key"], story["told_by"], story["cloudvision"]["status"]) == ("1@lab", "nodes", "accepted")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("job", "987654"), 1, "job 987654: CloudVision was told nothing of it"),
        (("job", "987654", "--json"), 1, "job 987654: CloudVision was told nothing of it"),
        (("job", "train"), 2, "'train' is not a valid integer"),
        (("node", "nosuch\x1b[2J"), 1, "node nosuch\ufffd[2J: it has told nothing"),
        (("mac", "02:00:00:00:00:01"), 1, "02:00:00:00:00:01: no node told of an interface with this MAC"),
        (("mac", "node1"), 2, "'node1' is no MAC"),
        (("mac", "02:00:00:00:00:01", "--at", "yesterday"), 2, "'yesterday' is no time"),
        (("mac", "02:00:00:00:00:01", "--at", "9d"), 1, "the store forgets a job 24 h after its end"),
    ],
)
def test_explain_says_what_is_not_known(cvagent, words, code, said):
    told = cvagent("explain", *words)
    assert (told.exit_code, told.stdout) == (code, "")
    assert said in told.stderr


def test_explain_needs_the_agent_when_the_store_is_in_its_memory(cvagent):
    told = cvagent("explain", "job", "1", CVAGENT_STORE_URL=None)
    assert told.exit_code == 1
    assert "no agent answers" in told.stderr
