"""slurmctld's container and the way to it fail: rounds are skipped and counted, and nothing wrong is told."""

import json
from contextlib import contextmanager

import pytest
from waiting import wait_until

CONTAINER = "slurmctld"
LIMIT_S = 4
# Of the timeout command, and of a busy machine.
GRACE_S = 3
# What Docker gives a container by itself.
STOP_S = 10


@contextmanager
def stopped(example):
    example.engine.docker("stop", "-t", "1", CONTAINER)
    try:
        yield
    finally:
        example.engine.docker("start", CONTAINER)


@contextmanager
def without_socket(example):
    example.compose("stop", "-t", "1", "socket-proxy")
    try:
        yield
    finally:
        example.compose("start", "socket-proxy")


@contextmanager
def paused(example):
    """With no exec under way: this engine never gets a container going again whose exec was just to start."""
    with without_socket(example):
        wait_until(lambda: "timeout" not in example.engine.docker("top", CONTAINER), 30, "the last command to end")
        probed = _last_probe(example)
        wait_until(lambda: _last_probe(example) != probed, 30, "a probe to end")
        example.engine.docker("pause", CONTAINER)
    try:
        yield
    finally:
        example.engine.docker("unpause", CONTAINER)


@contextmanager
def killed_in_the_middle_of_an_exec(example):
    """squeue hangs on a slurmctld that is frozen, until the container goes."""
    example.engine.docker("kill", "--signal=STOP", CONTAINER)
    wait_until(lambda: "squeue" in example.engine.docker("top", CONTAINER), 30, "a squeue under way")
    example.engine.docker("kill", CONTAINER)
    try:
        yield
    finally:
        example.engine.docker("start", CONTAINER)


@contextmanager
def replaced(example):
    before = example.engine.docker("inspect", "--format={{.Id}}", CONTAINER)
    example.engine.docker("rm", "-f", CONTAINER)
    try:
        yield
    finally:
        example.compose("up", "--detach", "--no-deps", CONTAINER)
    assert example.engine.docker("inspect", "--format={{.Id}}", CONTAINER) != before


@contextmanager
def frozen(example):
    example.engine.docker("kill", "--signal=STOP", CONTAINER)
    try:
        yield
    finally:
        example.engine.docker("kill", "--signal=CONT", CONTAINER)


@pytest.mark.parametrize("trouble", [stopped, paused, killed_in_the_middle_of_an_exec, replaced, without_socket])
def test_rounds_are_skipped_and_nothing_wrong_is_told(example, trouble):
    running = example.submit("-N2", "--no-requeue")
    before = example.wait_until_running(running)
    wait_until(lambda: _is_saved(example, running), 30, "the job in slurmctld's state")
    with trouble(example):
        order = example.order(f"in-{trouble.__name__[:7]}", cpu=1)
        example.wait_for_rounds("skipped")
        example.wait_for_rounds("skipped", 1, "accounts", "cvagent-pull")
        assert example.cloudvision()[f"{running}@lab"] == before
        assert example.order_state(order) in {"pending-provider", "executing"}
    example.healthy(CONTAINER)
    example.wait_for_rounds("done")
    assert example.cloudvision()[f"{running}@lab"] == before
    example.slurm("scancel", running)
    assert example.told(running) == ["CANCELLED"]
    wait_until(lambda: example.order_state(order) == "done", 60, "the order done")


def test_a_command_that_hangs_ends_by_our_own_limit_and_leaves_no_process(example):
    with frozen(example):
        example.wait_for_rounds("skipped")
        said = example.compose("logs", "--no-log-prefix", "--tail=200", "cvagent-push")
        assert "did not end within 4 s (CVAGENT_SLURM_TIMEOUT_S)" in said
        running = example.engine.docker("top", CONTAINER, "-eo", "pid,etimes,args").splitlines()[1:]
        ages = [int(line.split()[1]) for line in running if "squeue" in line]
        assert all(age <= LIMIT_S + GRACE_S for age in ages), running
    example.wait_for_rounds("done")


@contextmanager
def silent_proxy(example):
    """It takes connections and answers none. The agent runs in the end, whatever was done to it."""
    example.compose("kill", "--signal=STOP", "socket-proxy")
    try:
        yield
    finally:
        example.compose("kill", "--signal=CONT", "socket-proxy")
        example.compose("start", "cvagent-push")


def test_an_agent_stops_in_time_while_the_proxy_answers_nobody(example):
    with silent_proxy(example):
        example.wait_for_rounds("skipped")
        assert "does not answer" in example.compose("logs", "--no-log-prefix", "--tail=200", "cvagent-push")
        example.compose("stop", "-t", STOP_S, "cvagent-push")
        shown = example.compose("ps", "--all", "--format", "{{.ExitCode}}", "cvagent-push")
    example.healthy("socket-proxy", "cvagent-push")
    example.wait_for_rounds("done")
    assert shown.strip() == "0"


def _last_probe(example) -> str:
    shown = json.loads(example.engine.docker("inspect", "--format={{json .State.Health}}", CONTAINER))
    return shown["Log"][-1]["End"]


def _is_saved(example, job) -> bool:
    """What slurmctld was told seconds before it is killed, it forgets."""
    example.slurm("scontrol", "update", f"JobId={job}", f"Comment=saved-{job}")
    state = "/var/lib/slurm/state/job_state"
    return bool(example.slurm("grep", "-l", f"saved-{job}", state, check=False))
