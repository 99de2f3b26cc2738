"""The image that the Dockerfile makes: small, bare, and content without any right."""

import json
import subprocess
from importlib.metadata import version

import pytest
from docker_engine import ROOT
from waiting import wait_until

MOST_BYTES = 150_000_000
BARE = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
NOBODY = "65532"
SETTINGS = {
    "CVAGENT_CLOUDVISION_URL": "https://cvp.example.org",
    "CVAGENT_CLOUDVISION_TOKEN": "token",
    "CVAGENT_PORTAL_URL": "https://portal.example.org",
    "CVAGENT_PORTAL_TOKEN": "token",
    "CVAGENT_PORTAL_OFFERING": "5eab0ca5e5e14f0a9a4d2d3f1f2a6c01",
    "CVAGENT_CLUSTER": "lab",
    "CVAGENT_SLURM_DEPLOYMENT": "docker",
    "CVAGENT_SLURM_CONTAINER": "slurmctld",
}
IN_IMAGE = """
import importlib.metadata, json, pkgutil, shutil, sysconfig
print(json.dumps({
    "packages": {each.name.lower().replace("_", "-"): each.version for each in importlib.metadata.distributions()},
    "modules": [each.name for each in pkgutil.iter_modules([sysconfig.get_path("purelib")])],
    "tools": [name for name in ("gcc", "cc", "make", "git") if shutil.which(name)],
}))
"""


@pytest.fixture
def bare(engine, image):
    """Starts a container of the image without any right: `bare("stand-in", CVAGENT_MODE="pull")`; its id."""
    begun = []

    def start(*command, **settings):
        given = [f"--env={name}={value}" for name, value in (SETTINGS | settings).items()]
        sold = f"--volume={ROOT}/config-components.yaml:/config-components.yaml:ro"
        begun.append(engine.docker("run", "-d", *BARE, "--health-interval=1s", sold, *given, image, *command).strip())
        return begun[-1]

    yield start
    for container in begun:
        print(engine.result("logs", container).stderr[-3000:])  # noqa: T201 - pytest shows it beside a failure
        engine.docker("rm", "-f", container)


def inspected(engine, name):
    return json.loads(engine.docker("inspect", name))[0]


def health(engine, container):
    return inspected(engine, container)["State"]["Health"]["Status"]


def test_it_is_small(engine, image):
    base = inspected(engine, engine.base("python:3.11-slim-bookworm"))["Size"]
    assert inspected(engine, image)["Size"] - base < MOST_BYTES


def test_its_labels_say_what_it_is(engine, image):
    labels = inspected(engine, image)["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == version("cvagent")
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_it_holds_what_the_lock_says_and_no_tools(engine, image):
    found = json.loads(engine.docker("run", "--rm", "--entrypoint=/opt/cvagent/bin/python3", image, "-c", IN_IMAGE))
    lines = (ROOT / "requirements" / "run.txt").read_text().splitlines()
    locked = dict(line.split()[0].split("==") for line in lines if "==" in line)
    packages = found["packages"]
    assert packages.pop("cvagent") == version("cvagent")
    assert {name: locked.get(name.replace(".", "-")) for name in packages} == packages
    assert found["tools"] == []
    assert not {"pip", "setuptools", "pkg_resources", "_distutils_hack"} & set(found["modules"])
    left = engine.docker("run", "--rm", "--user=0", "--entrypoint=sh", image, "-c", "ls -A /opt/cvagent/bin /root /tmp")
    assert "pip" not in left
    assert ".cache" not in left


def test_what_is_told_of_its_contents_is_what_it_holds(engine, image, tmp_path):
    subprocess.run(["make", "sbom", f"DIST={tmp_path}"], cwd=ROOT, check=True, capture_output=True)
    told = json.loads((tmp_path / "cvagent.cdx.json").read_text())
    found = json.loads(engine.docker("run", "--rm", "--entrypoint=/opt/cvagent/bin/python3", image, "-c", IN_IMAGE))
    named = {each["name"].lower().replace("_", "-"): each["version"] for each in told["components"]}
    assert named | {"cvagent": told["metadata"]["component"]["version"]} == found["packages"]


@pytest.mark.parametrize(("mode", "listen"), [("push", "127.0.0.1:9410"), ("pull", "127.0.0.1:9500"), ("both", "off")])
def test_a_mode_is_healthy_without_any_right(engine, bare, mode, listen):
    container = bare(CVAGENT_MODE=mode, CVAGENT_HTTP_LISTEN=listen, HTTP_PROXY="http://proxy.invalid:3128")
    wait_until(lambda: health(engine, container) == "healthy", 30, "healthy")
    status = dict(line.split(":", 1) for line in engine.docker("exec", container, "cat", "/proc/1/status").splitlines())
    assert status["Uid"].split() == [NOBODY] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    wait_until(lambda: f": {mode}, cluster lab" in engine.result("logs", container).stderr, 30, "its first line")
    engine.docker("stop", "-t", "10", container)
    assert inspected(engine, container)["State"]["ExitCode"] == 0


def test_an_agent_that_hangs_is_not_healthy(engine, bare):
    container = bare(CVAGENT_MODE="push")
    wait_until(lambda: health(engine, container) == "healthy", 30, "healthy")
    engine.docker("kill", "--signal=STOP", container)
    wait_until(lambda: health(engine, container) == "unhealthy", 60, "unhealthy")


@pytest.mark.parametrize(
    ("command", "says"), [("stand-in", "A CloudVision stand-in"), ("stand-in-portal", "A portal stand-in of")]
)
def test_the_same_image_plays_the_other_side(engine, bare, command, says):
    container = bare(command)
    wait_until(lambda: says in engine.docker("logs", container), 30, says)
    wait_until(lambda: health(engine, container) == "healthy", 30, "healthy")
    engine.docker("stop", "-t", "10", container)
    assert inspected(engine, container)["State"]["ExitCode"] == 0
