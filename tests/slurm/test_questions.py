"""What the agent costs slurmctld."""

import re
import time
from threading import Event

import pytest
from fakes import FakeClock, FakeObserver
from waiting import wait_until

from cvagent.app.build import make_jobs, make_rules, make_runner
from cvagent.flows import FLOWS
from cvagent.loops import Collector, Horizon
from cvagent.ports import Surroundings
from cvagent.settings import Settings
from cvagent.store.outbox import SqlOutbox

ROUNDS = 6
LISTS = {"REQUEST_JOB_INFO", "REQUEST_PARTITION_INFO"}
HOUR_S, INTERVAL_S = 3600, 30
RUNNING = 1000


@pytest.mark.timeout(120)
def test_two_lists_a_round_at_most_and_nothing_per_job(lab, make_agent, stand_in):
    agent = make_agent(lab, stand_in).start()
    agent.settle()
    before, rounds = questions(lab), agent.rounds()
    script = "sleep $((SLURM_ARRAY_TASK_ID % 5))"
    array = lab.submit("--array=1-20", script=script)
    agent.settle(rounds=ROUNDS)
    after, rounds = questions(lab), agent.rounds() - rounds
    asked = more(before, after)
    lists = sum(count for name, count in asked.items() if name in LISTS)
    assert rounds >= ROUNDS
    assert rounds - 1 <= asked["REQUEST_JOB_INFO"]
    assert lists <= 2 * (rounds + 1)
    assert "REQUEST_JOB_INFO_SINGLE" not in asked
    assert {name for name in asked if name.startswith("REQUEST_") and "INFO" in name} <= {
        *("REQUEST_JOB_INFO", "REQUEST_PARTITION_INFO", "REQUEST_STATS_INFO")
    }
    assert agent.told(array, runs=20) == ["COMPLETED"] * 20


@pytest.mark.timeout(240)
def test_an_hour_of_rounds_over_a_thousand_running_jobs(make_lab):
    lab = make_lab(nodes=2, cpus=RUNNING // 2)
    # A thousand hooks would take their time.
    lab.run("sed", "-i", "/^\\(Pro\\|Epi\\)log/d", str(lab.folder / "etc" / "slurm.conf"))
    lab.slurm("scontrol", "reconfigure")
    allocate = f"seq {RUNNING} | xargs -P 100 -I% salloc --no-shell -Q -A proj-a -n1 --mem=1"
    lab.run("sh", "-c", allocate, user="alice")
    wait_until(lambda: len(lab.slurm("squeue", "-h", "-t", "R", "-o", "%i").split()) == RUNNING, 60)
    settings = Settings(slurm_bin_dir=lab.bin_dir, node_facts="off")
    # The hour before this one, in as many rounds as it would have had.
    clock, observer = FakeClock(time.time() - HOUR_S), FakeObserver()
    outbox = SqlOutbox("sqlite://", "lab")
    around = Surroundings(outbox, clock, observer, lambda _name: None, Event())
    source = make_jobs(settings, make_runner(settings), outbox.facts())
    collector = Collector(FLOWS[0], source, make_rules(settings, "lab"), Horizon(86_400), around)
    assert len(collector.round().changes) == RUNNING
    before = questions(lab)
    for _ in range(HOUR_S // INTERVAL_S):
        clock.forward(INTERVAL_S)
        assert collector.round().unchanged == RUNNING
    asked = more(before, questions(lab))
    outbox.close()
    assert sum(asked.get(name, 0) for name in LISTS) <= 2 * HOUR_S // INTERVAL_S
    assert asked["REQUEST_JOB_INFO"] == HOUR_S // INTERVAL_S
    assert not {name for name in asked if name.startswith("REQUEST_JOB") and name not in LISTS}


def more(before, after):
    """What was asked between the two, and how often."""
    return {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}


def questions(lab):
    """How often slurmctld was asked each question since it began, by anybody."""
    said = lab.slurm("sdiag").partition("statistics by message type")[2].partition("statistics by user")[0]
    return {name: int(count) for name, count in re.findall(r"(\w+)\s+\(\s*\d+\) count:(\d+)", said)}
