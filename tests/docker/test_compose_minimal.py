"""examples/docker-compose-minimal: the two agents and the socket proxy alone, beside a Slurm that is there already."""

import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest
import requests
from compose_example import COMPONENTS, PAGES
from docker_engine import ROOT
from waiting import wait_until

FOLDER = ROOT / "examples" / "docker-compose-minimal"
AGENT = 65532
OWN = (".env", "compose.override.yaml", "config-components.yaml")
# What README.md there leaves to the user: here Slurm in a folder that is named, and the example's stand-ins.
SHARED = {
    "CVAGENT_SLURM_CONTAINER": "slurmctld",
    "SLURM_USER": "cvagent",
    "CVAGENT_SLURM_BIN_DIR": "/usr/bin",
    "CVAGENT_SLURM_CONF": "/etc/slurm/slurm.conf",
    "CVAGENT_CLOUDVISION_URL": "https://cloudvision:8480",
    "CVAGENT_CLOUDVISION_CA_FILE": "/run/secrets/cloudvision.pem",
    # So that a test need not wait for half a minute.
    "CVAGENT_JOB_INTERVAL_S": "1",
}
PORTAL = {
    "COMPOSE_PROFILES": "portal",
    "CVAGENT_PORTAL_URL": "https://portal:8481",
    "CVAGENT_PORTAL_CA_FILE": "/run/secrets/portal.pem",
    "CVAGENT_PORTAL_OFFERING": "5eab0ca5e5e14f0a9a4d2d3f1f2a6c01",
    "CVAGENT_PORTAL_INTERVAL_S": "5",
}
OVERRIDE = """
services:
  cvagent-push: {networks: [outside]}
  cvagent-pull: {networks: [outside]}
networks: {outside: {external: true, name: cvagent-example_outside}}
"""
EXAMPLES = ("socket-proxy", "cvagent-push", "cvagent-pull")


@pytest.fixture
def minimal(example, tmp_path):
    """Sets it up as README.md says, in place of the example's agents: `with minimal(settings, *tokens) as compose`."""

    @contextmanager
    def minimal(settings, *tokens):
        folder = set_up(example, tmp_path / "minimal", settings, tokens)
        given = {"DOCKER_SOCKET": str(example.engine.socket)}

        def compose(*arguments):
            return example.engine.compose(*arguments, env=given, cwd=folder)

        example.compose("stop", "-t", "10", *EXAMPLES)
        try:
            compose("up", "--detach")
            yield compose
        finally:
            compose("down", "--volumes", "--timeout", "10")
            example.compose("start", *EXAMPLES)
            example.healthy(*EXAMPLES)

    return minimal


def set_up(example, folder, settings, tokens):
    """A copy of the folder with what is a site's own."""
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns(*OWN, "secrets"))
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    (folder / "config-components.yaml").write_text(COMPONENTS)
    (folder / "compose.override.yaml").write_text(OVERRIDE)
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700)
    for name in ("http_token", *tokens):
        (secrets / name).write_text("stand-in-token\n")
    for name in ("cloudvision", "portal"):
        (secrets / f"{name}.pem").write_text(example.compose("exec", "-T", name, "cat", f"/var/lib/cvagent/{name}.pem"))
    for path in (secrets, *secrets.iterdir()):
        os.chown(path, AGENT, AGENT)
    return folder


def assert_well(compose, agent):
    said = compose("exec", "-T", agent, "python3", "-m", "cvagent", "check")
    assert "FAIL" not in said, said


def test_it_tells_jobs_and_carries_out_orders(example, minimal):
    with minimal(SHARED | PORTAL, "cloudvision_token", "portal_token") as compose:
        job = example.submit("-N2", script="sleep 3")
        order = example.order("minimal", cpu=5)
        assert example.told(job) == ["COMPLETED"]
        assert example.resource("minimal")["backend_id"]
        wait_until(lambda: example.order_state(order) == "done", 60, "the order done")
        for agent in ("cvagent-push", "cvagent-pull"):
            assert_well(compose, agent)


def test_without_a_portal_push_alone_runs_and_needs_no_token_of_it(example, minimal, tmp_path):
    def page_with(token):
        header = {"Authorization": f"Bearer {token}"}
        return example.engine.inside(requests.get, PAGES["cvagent-push"], headers=header, timeout=10).status_code

    with minimal(SHARED, "cloudvision_token") as compose:
        job = example.submit("-N1", script="sleep 1")
        assert example.told(job) == ["COMPLETED"]
        assert_well(compose, "cvagent-push")
        assert set(compose("ps", "--services").split()) == {"socket-proxy", "cvagent-push"}
        fresh = tmp_path / "fresh"
        fresh.write_text("other-token\n")
        os.chown(fresh, AGENT, AGENT)
        fresh.replace(tmp_path / "minimal" / "secrets" / "http_token")
        wait_until(lambda: page_with("other-token") == 200, 30, "the secret that was replaced")


def test_what_is_a_sites_own_is_not_for_git(tmp_path):
    shutil.copy(FOLDER / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    own = [*OWN, "secrets/portal_token", "secrets/portal.pem"]
    ignored = subprocess.run(["git", "check-ignore", *own], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ignored.stdout.split() == own


def test_it_starts_no_slurm_and_takes_no_value_of_the_demonstration():
    text = "".join(
        (FOLDER / name).read_text() for name in ("compose.yaml", "env.example", "service-push-env", "service-pull-env")
    )
    for theirs in (
        "slurmd",
        "INTERVAL",
        "5eab0ca5e5e14f0a9a4d2d3f1f2a6c01",
        "stand-in",
        "INVENTORY_ALLOW",
        "HOOK_SPOOL",
    ):
        assert theirs not in text
