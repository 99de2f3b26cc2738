"""The socket proxy of the compose example before a real engine: what gets through, and what does not."""

import json
import re
from contextlib import closing

import docker
import pytest
import requests

from cvagent.clients.docker import Container, DockerRunner
from cvagent.errors import CommandFailed

LIMIT_S = 30
IN_AGENT = """
import json, socket, sys
from http.client import HTTPConnection
def ask(method, path, body):
    connection = HTTPConnection("docker")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect("/run/socket-proxy/docker.sock")
    connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
    return connection.getresponse().status
print(json.dumps([ask(*asked) for asked in json.load(sys.stdin)]))
"""
ASKED = {"Cmd": ["timeout", "-k", "1", "5", "squeue"], "AttachStdout": True, "AttachStderr": True}
NODE = "cvagent-example-node1-1"
KEYS = ("/tmp/munge/key", "/run/cluster/munge.key")  # noqa: S108 - of the container


@pytest.fixture
def runner(example, monkeypatch):
    """What the agents run Slurm's commands with, on the proxy's own socket."""
    volume = json.loads(example.engine.docker("volume", "inspect", "cvagent-example_socket"))[0]["Mountpoint"]
    daemon = example.engine.root_of_namespace
    monkeypatch.setenv("DOCKER_HOST", f"unix://{daemon}{volume}/docker.sock")
    runner = DockerRunner(Container("slurmctld"))
    yield runner
    runner.stop()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["squeue", "-h", "-a"], b""),
        (["sacct", "-nX", "-o", "JobID"], b""),
        (["sinfo", "-h", "-o", "%P"], b"batch"),
        (["scontrol", "show", "hostnames", "node[1-2]"], b"node1\nnode2\n"),
        (["sacctmgr", "-nP", "show", "cluster", "format=cluster"], b"lab\n"),
        (["srun", "-w", "node2", "--job-name=cv-try", "hostname"], b"node2\n"),
        (["sdiag"], b"sdiag output"),
        (["/usr/bin/env", "getent", "passwd", "--", "alice"], b"alice:x:"),
    ],
)
def test_slurms_commands_get_through(runner, command, says):
    assert says in runner.run(command, timeout_s=LIMIT_S)


def test_they_run_as_an_operator_who_cannot_read_munges_key(runner, example):
    assert b"(cvagent)" in runner.run(["srun", "--job-name=cv-try", "id"], timeout_s=LIMIT_S)
    levels = example.slurm("sacctmgr", "-nP", "show", "user", "cvagent", "format=user,adminlevel")
    assert levels == "cvagent|Operator\n"
    with pytest.raises(CommandFailed, match="only permitted by root"):
        runner.run(["srun", "--uid=0", "--job-name=cv-try", "id"], timeout_s=LIMIT_S)
    for key in KEYS:
        for container in ("slurmctld", NODE):
            example.engine.docker("exec", "-u", "root", container, "test", "-s", key)
            refused = example.engine.result("exec", "-u", "cvagent", container, "cat", key)
            assert "Permission denied" in refused.stderr
        with pytest.raises(CommandFailed) as failed:
            runner.run(["srun", "--job-name=cv-try", "cat", key], timeout_s=LIMIT_S)
        assert "Permission denied" in failed.value.complaint


def test_they_may_see_and_end_the_jobs_of_others(runner, example):
    job = example.submit("-N1")
    example.wait_until_running(job)
    assert job.encode() in runner.run(["squeue", "-h", "-a", "-o", "%i"], timeout_s=LIMIT_S).split()
    runner.run(["scancel", job], timeout_s=LIMIT_S)
    assert example.told(job) == ["CANCELLED"]


@pytest.mark.parametrize("command", [["sh", "-c", "id"], ["cat", "/etc/passwd"], ["/bin/squeue"]])
def test_other_commands_are_refused(runner, command):
    with pytest.raises(CommandFailed, match=r"refused \(403\)"):
        runner.run(command, timeout_s=LIMIT_S)


def test_other_requests_are_refused(example):
    """From within the push agent's container."""
    ours, other = (json.loads(example.engine.docker("inspect", name))[0]["Id"] for name in ("slurmctld", NODE))
    before = example.engine.docker("ps", "-aq", "--no-trunc")
    asked = [
        ("POST", "/v1.41/containers/slurmctld/exec", ASKED),
        ("POST", "/v1.41/containers/create?name=x", {"Image": "cvagent", "HostConfig": {"Binds": ["/:/host"]}}),
        ("POST", f"/v1.41/containers/{NODE}/exec", ASKED),
        ("POST", f"/v1.41/containers/{other}/exec", ASKED),
        ("POST", f"/v1.41/containers/{other[:12]}/exec", ASKED),
        ("POST", f"/v1.41/containers/slurmctld%2f..%2f{NODE}/exec", ASKED),
        ("POST", f"/v1.41/containers/slurmctld/../{NODE}/exec", ASKED),
        ("POST", f"/v1.41/containers/slurmctld/%2e%2e/{NODE}/exec", ASKED),
        ("POST", f"/v1.41/containers//{NODE}/exec", ASKED),
        ("POST", "/v1.41/containers/slurmctld/exec", ASKED | {"Privileged": True}),
        ("POST", "/v1.41/containers/slurmctld/exec", ASKED | {"pRiViLeGeD": True}),
        ("POST", "/v1.41/containers/slurmctld/exec", ASKED | {"User": "root"}),
        ("POST", "/v1.41/containers/slurmctld/exec", ASKED | {"Cmd": ["sh"]}),
        ("POST", "/v1.41/containers/slurmctld/stop", {}),
        ("POST", "/v1.41/containers/slurmctld/update", {}),
        ("GET", "/v1.41/containers/slurmctld/archive?path=/run/cluster", None),
        ("GET", "/v1.41/containers/json", None),
        ("POST", "/v1.41/volumes/create", {"Name": "x"}),
        ("POST", "/v1.41/images/create?fromImage=x", {}),
        ("POST", "/v1.41/build", {}),
        ("GET", "/v1.41/secrets", None),
        ("POST", f"/v1.41/exec/{ours}/start", {"Detach": False}),
    ]
    said = example.compose("exec", "-T", "cvagent-push", "python3", "-c", IN_AGENT, input=json.dumps(asked))
    made, *refused = json.loads(said)
    assert made == 201
    assert set(refused) == {403}, list(zip(refused, asked[1:], strict=True))
    assert example.engine.docker("ps", "-aq", "--no-trunc") == before


def test_an_exec_that_someone_else_made_is_not_started(example):
    with closing(docker.APIClient(base_url=f"unix://{example.engine.socket}", version="auto")) as engine:
        made = engine.exec_create(NODE, ["touch", "/srv/theirs"])["Id"]
        asked = [
            ("POST", f"/v1.41/exec/{made}/start", {"Detach": False}),
            ("POST", f"/v1.41/exec/{made}/start", {}),
            ("GET", f"/v1.41/exec/{made}/json", None),
            ("POST", f"/v1.41/exec/{made}/resize?h=1&w=1", {}),
        ]
        said = example.compose("exec", "-T", "cvagent-push", "python3", "-c", IN_AGENT, input=json.dumps(asked))
        assert set(json.loads(said)) == {403}
        assert example.engine.result("exec", NODE, "test", "-e", "/srv/theirs").returncode == 1
        # It is one that could be started.
        engine.exec_start(made)
        assert example.engine.result("exec", NODE, "test", "-e", "/srv/theirs").returncode == 0


def test_the_agents_hold_no_right_of_their_own(example):
    for agent in ("cvagent-push", "cvagent-pull", "socket-proxy"):
        shown = json.loads(example.engine.docker("inspect", f"cvagent-example-{agent}-1"))[0]
        host = shown["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
        assert host["SecurityOpt"] == ["no-new-privileges"]
        sockets = [mount["Source"] for mount in shown["Mounts"] if mount["Destination"] == "/var/run/docker.sock"]
        assert bool(sockets) is (agent == "socket-proxy")
    assert "none" in shown["NetworkSettings"]["Networks"]


def test_the_pages_are_on_loopback_and_ask_for_the_token(example):
    ask = example.engine.inside
    assert ask(requests.get, "http://127.0.0.1:9410/healthz", timeout=10).status_code == 200
    assert ask(requests.get, "http://127.0.0.1:9410/", timeout=10).status_code == 401
    token = {"Authorization": "Bearer change-me"}
    assert ask(requests.get, "http://127.0.0.1:9411/", headers=token, timeout=10).status_code == 200
    published = re.findall(r"(\S+):\d+->", example.engine.docker("ps", "--format", "{{.Ports}}"))
    assert set(published) == {"127.0.0.1"}
