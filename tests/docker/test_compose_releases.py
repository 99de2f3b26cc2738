"""The same push test against three releases of Slurm: the oldest that is still met, today's, and the newest."""

import pytest
from waiting import wait_until

RELEASES = {
    "debian:bookworm-slim": ("22.05", "22.06"),
    "debian:trixie-slim": ("24.11", "24.12"),
    "debian:sid-slim": ("25", "9"),
}
TASKS = 3


@pytest.fixture(params=RELEASES, ids=["bookworm", "trixie", "sid"], scope="module")
def example(any_example, request):
    return any_example.up(request.param)


def test_jobs_of_every_kind_reach_cloudvision(example, request):
    oldest, too_new = RELEASES[request.node.callspec.params["example"]]
    assert oldest <= example.slurm("sinfo", "--version").split()[1] < too_new
    skipped = example.rounds("skipped")
    running = example.submit("-N2")
    assert example.wait_until_running(running)["nodes"] == {"values": ["node1", "node2"]}
    example.slurm("scancel", running)
    failed = example.submit("-N1", script="exit 3")
    array = example.submit("-N1", f"--array=1-{TASKS}", script="sleep 1; exit $((SLURM_ARRAY_TASK_ID - 1))")
    done = example.submit("-N2", script="sleep 2")
    assert example.told(running, failed, done) == ["CANCELLED", "FAILED", "COMPLETED"]
    # slurmdbd hears of the tasks one by one: before that an array may look whole with one of them.
    wait_until(lambda: len(example.truth(array)) == TASKS, 60, "the end of all tasks")
    assert sorted(example.told(array)) == ["COMPLETED", "FAILED", "FAILED"]
    assert example.rounds("skipped") == skipped


def test_nodes_and_accounts_too(example):
    wait_until(lambda: example.nodes().keys() == {"node1", "node2"}, 60, "two nodes")
    if not any(order["name"] == "release" for order in example.market()["orders"]):
        example.order("release", cpu=10)
    account = example.resource("release")["backend_id"]

    def limits() -> str:
        return example.slurm("sacctmgr", "-nP", "show", "assoc", f"account={account}", "user=", "format=grptresmins")

    wait_until(lambda: "cpu=960000" in limits(), 60, "the account's limits")
