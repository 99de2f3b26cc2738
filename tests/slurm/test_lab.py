import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from slurm_lab import ROOT, Lab
from waiting import wait_until

# May read the checkout wherever it is.
NOBODY = [
    "setpriv",
    "--reuid=65534",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
]


def test_every_node_has_a_host_name_of_its_own(lab):
    assert {lab.run("hostname", node=f"node{number}").strip() for number in (1, 2, 3, 4)} == {
        *("node1", "node2", "node3", "node4")
    }


def test_a_job_runs_and_slurmdbd_knows_it(lab):
    job = lab.submit("-N2", script="exit 3")
    (run,) = lab.wait_for_end(job)
    assert (run.state, len(run.nodes)) == ("FAILED", 2)
    assert run.submitted_at <= run.started_at <= run.ended_at


def test_srun_and_sbatch_work_from_outside(lab, tmp_path, monkeypatch):
    assert set(lab.slurm("srun", "-N4", "hostname").split()) == {"node1", "node2", "node3", "node4"}
    (tmp_path / "job.sh").write_text("#!/bin/sh\npwd\n")
    monkeypatch.chdir(tmp_path)
    lab.slurm("sbatch", "--wait", "--output=out", "job.sh")
    assert (tmp_path / "out").read_text().strip() == str(tmp_path)


def test_wrappers_pass_exit_codes_streams_and_the_environment(lab):
    unknown = subprocess.run([lab.bin_dir / "squeue", "-j", "999999"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 1
    assert "Invalid job id" in unknown.stderr
    asked = subprocess.run(
        [lab.bin_dir / "sacct", "-n", "-X", "-P", "-S", "now-1minutes", "-o", "Submit"],
        env={**os.environ, "TZ": "UTC", "SLURM_TIME_FORMAT": "year %Y"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout.startswith("year 20") or not asked.stdout
    tree = subprocess.run([lab.bin_dir / "sacctmgr", "-i"], input="quit\n", capture_output=True, text=True, check=False)
    assert tree.returncode == 0


def test_killing_the_process_group_of_a_wrapper_leaves_nothing_behind(make_lab):
    lab = make_lab(nodes=1, message_timeout=60)
    lab.daemon("freeze", "slurmctld")
    caller = subprocess.Popen([lab.bin_dir / "squeue"], start_new_session=True, stderr=subprocess.DEVNULL)
    wait_until(lambda: _processes_of(caller.pid) == ["squeue"], 5)
    os.killpg(caller.pid, signal.SIGKILL)
    assert caller.wait(5) == -signal.SIGKILL
    assert _processes_of(caller.pid) == []


def test_a_daemon_goes_and_comes_back(lab):
    try:
        lab.daemon("stop", "slurmdbd")
        with pytest.raises(AssertionError, match="Connection refused"):
            lab.slurm("sacct", "-n")
    finally:
        lab.daemon("start", "slurmdbd")
    job = lab.submit(script="true")
    assert lab.wait_for_end(job)[0].state == "COMPLETED"


def test_a_requeued_job_has_two_runs(lab):
    job = lab.submit("--requeue", script="sleep 1000")
    lab.wait_for(job, "RUNNING")
    lab.slurm("scontrol", "requeue", job)
    lab.wait_for(job, "PENDING")
    lab.wait_for(job, "RUNNING")
    lab.cancel(job)
    first, second = lab.wait_for_end(job, runs=2)
    assert (first.state, second.state) == ("REQUEUED", "CANCELLED")
    assert first.submitted_at < second.submitted_at


def test_a_dead_node_fails_its_job_and_comes_back(lab):
    job = lab.submit("--no-requeue", "-w", "node4")
    lab.wait_for(job, "RUNNING")
    lab.node("kill", "node4")
    try:
        (run,) = lab.wait_for_end(job)
    finally:
        lab.node("start", "node4")
    assert (run.state, run.nodes) == ("NODE_FAIL", ("node4",))


def test_a_cut_node_lives_on(lab):
    lab.node("cut", "node3")
    try:
        assert lab.run("hostname", node="node3").strip() == "node3"
        assert "DOWN" in lab.run("ip", "-br", "link", "show", "eth0", node="node3")
    finally:
        lab.node("join", "node3")


def test_up_mends_what_a_killed_lab_left(make_lab):
    lab = make_lab(nodes=2)
    job = lab.submit(script="true")
    lab.wait_for_end(job)
    os.kill(int((lab.folder / "run" / "holder.pid").read_text()), signal.SIGKILL)
    lab.start()
    assert lab.truth(job)[0].state == "COMPLETED"


def test_a_lab_without_accounting(make_lab):
    lab = make_lab(nodes=1, accounting=0)
    job = lab.submit(script="true")
    lab.wait_for(job, "COMPLETED")
    assert not (lab.folder / "run" / "slurmdbd.pid").exists()


def test_a_lab_with_nodes_in_one_namespace_and_a_name(make_lab):
    lab = make_lab(nodes=2, mode="multi", cluster="alpha", accounting=0)
    assert set(lab.slurm("srun", "-N2", "printenv", "SLURMD_NODENAME").split()) == {"node1", "node2"}
    assert "alpha" in lab.slurm("scontrol", "show", "config")


def test_a_job_with_too_much_memory_is_out_of_memory(make_lab):
    try:
        lab = make_lab(nodes=1, cgroup=1)
    except AssertionError as refused:
        if "cgroup v1" not in str(refused):
            raise
        pytest.skip(str(refused))
    job = lab.submit("--mem=50", script="head -c 300M /dev/zero | tail")
    assert lab.wait_for_end(job)[0].state == "OUT_OF_MEMORY"


@pytest.mark.usefixtures("_slurm")
def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "letters").touch()
    with pytest.raises(AssertionError, match="holds other things"):
        Lab(tmp_path).start()


def test_a_plain_user_is_told_to_be_root():
    asked = subprocess.run(
        [*NOBODY, sys.executable, ROOT / "lab" / "slurm", "up", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (asked.returncode, asked.stderr) == (1, "lab/slurm: the lab needs root: it makes namespaces of its own\n")


def _processes_of(group):
    """The names of the processes in a process group."""
    names = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
            if rest.split()[2] == str(group):
                names.append(name)
    return names
