"""compose.minimal.yaml: the two agents and the socket proxy alone, beside a Slurm in Docker that is there already."""

import os

import pytest
from compose_example import FOLDER
from waiting import wait_until

# What README.md there leaves to the user: where CloudVision and the portal are, here the example's stand-ins.
THEIRS = """
services:
  cvagent-push: &theirs
    environment: {CVAGENT_HOOK_SPOOL: "", CVAGENT_JOB_INTERVAL_S: 1}
    networks: [outside]
    volumes: ["tls:/tls:ro"]
  cvagent-pull: *theirs
networks: {outside: {external: true, name: cvagent-example_outside}}
volumes: {tls: {external: true, name: cvagent-example_tls}}
"""
AGENTS = ("socket-proxy", "cvagent-push", "cvagent-pull")


@pytest.fixture
def minimal(example, tmp_path):
    """Runs `docker compose ...` on the file, which is up, in place of the example's own agents."""
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(THEIRS)
    given = {
        "SLURM_CONTAINER": "slurmctld",
        "DOCKER_SOCKET": str(example.engine.socket),
        "CVAGENT_BUILD_CA": os.environ.get("PIP_CERT", "/dev/null"),
    }

    def compose(*arguments):
        return example.engine.compose("-f", FOLDER / "compose.minimal.yaml", "-f", theirs, *arguments, env=given)

    example.compose("stop", "-t", "10", *AGENTS)
    try:
        compose("up", "--detach")
        yield compose
    finally:
        compose("down", "--volumes", "--timeout", "10")
        example.compose("start", *AGENTS)
        example.healthy(*AGENTS)


def test_it_tells_jobs_and_carries_out_orders(example, minimal):
    job = example.submit("-N2", script="sleep 3")
    order = example.order("minimal", cpu=5)
    assert example.told(job) == ["COMPLETED"]
    assert example.resource("minimal")["backend_id"]
    wait_until(lambda: example.order_state(order) == "done", 60, "the order done")
    for agent in AGENTS[1:]:
        said = minimal("exec", "-T", agent, "python3", "-m", "cvagent", "check")
        assert "FAIL" not in said, said
