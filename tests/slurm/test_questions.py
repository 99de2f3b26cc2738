"""What the agent costs slurmctld."""

import re

import pytest

ROUNDS = 6


@pytest.mark.timeout(120)
def test_two_lists_a_round_at_most_and_nothing_per_job(lab, make_agent, stand_in):
    agent = make_agent(lab, stand_in).start()
    agent.settle()
    before, rounds = questions(lab), agent.rounds()
    script = "sleep $((SLURM_ARRAY_TASK_ID % 5))"
    array = lab.submit("--array=1-20", script=script)
    agent.settle(rounds=ROUNDS)
    after, rounds = questions(lab), agent.rounds() - rounds
    asked = {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
    lists = sum(count for name, count in asked.items() if name in {"REQUEST_JOB_INFO", "REQUEST_PARTITION_INFO"})
    assert rounds >= ROUNDS
    assert rounds - 1 <= asked["REQUEST_JOB_INFO"]
    assert lists <= 2 * (rounds + 1)
    assert "REQUEST_JOB_INFO_SINGLE" not in asked
    assert {name for name in asked if name.startswith("REQUEST_") and "INFO" in name} <= {
        *("REQUEST_JOB_INFO", "REQUEST_PARTITION_INFO", "REQUEST_STATS_INFO")
    }
    assert agent.told(array, runs=20) == ["COMPLETED"] * 20


def questions(lab):
    """How often slurmctld was asked each question since it began, by anybody."""
    said = lab.slurm("sdiag").partition("statistics by message type")[2].partition("statistics by user")[0]
    return {name: int(count) for name, count in re.findall(r"(\w+)\s+\(\s*\d+\) count:(\d+)", said)}
