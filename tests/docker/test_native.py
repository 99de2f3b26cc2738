"""The packages, the single file and systemd's units, on machines as they come from Debian."""

import hashlib
import json
import os
import re
import runpy
import subprocess
import sys
import time
from contextlib import closing, contextmanager

import pytest
from docker_engine import ROOT
from native import DATABASE, RECIPE, RULED, SLURM_CONF, SLURMDBD_CONF, SYSTEMD, Machine
from waiting import wait_until

from cvagent import __version__

pytestmark = pytest.mark.timeout(400)

# The one of Debian's bookworm: a build for all takes three times as long.
PYTHONS = ("3.11",)
# What systemd-analyze calls exposure: 0 is none, 10 is all. Times ten.
MOST_EXPOSED = 14
BASE = "debian:bookworm-slim"
DYNAMIC_UIDS = range(61184, 65520)
STOP_LIMIT_S = 10
START_LIMIT_S = 30
# A start under way still fails, and ten seconds after that comes the next.
RESTART_LIMIT_S = 60
# With the settings below the agent calls it a hang after 71 s.
HANG_LIMIT_S = 100
PUSH_ENV = """
CVAGENT_CLOUDVISION_URL=http://127.0.0.1:8480
CVAGENT_JOB_INTERVAL_S=1
CVAGENT_NODE_INTERVAL_S=1
CVAGENT_NODE_FACTS=report
CVAGENT_STORE_URL=sqlite:////var/lib/cvagent-push/store.db
"""
PULL_ENV = """
CVAGENT_CLOUDVISION_URL=http://127.0.0.1:8480
CVAGENT_PORTAL_URL=http://127.0.0.1:8481
CVAGENT_PORTAL_OFFERING=5eab0ca5e5e14f0a9a4d2d3f1f2a6c01
CVAGENT_PORTAL_INTERVAL_S=5
CVAGENT_COMPONENTS_FILE=/etc/cvagent/config-components.yaml
CVAGENT_STORE_URL=sqlite:////var/lib/cvagent-pull/store.db
CVAGENT_HTTP_LISTEN=127.0.0.1:9411
CVAGENT_NODE_FACTS=off
"""
REPORTS = """
[Service]
LoadCredential=node_report_token:/etc/cvagent/node_report_token
Environment=CVAGENT_NODE_REPORT_TOKEN_FILE=%d/node_report_token
"""
PORTAL = "http://127.0.0.1:8481/standin"
# Another of the same unit: one that is to hang.
HANGS = """
[Service]
StateDirectory=
# With a name it comes up while another test has slurmctld stopped.
Environment=CVAGENT_CLUSTER=lab
Environment=CVAGENT_STORE_URL=sqlite:// CVAGENT_HTTP_LISTEN=off CVAGENT_NODE_FACTS=off
Environment=CVAGENT_SLURM_TIMEOUT_S=1 CVAGENT_INVENTORY_TIME_S=5 CVAGENT_CLOUDVISION_TOKEN_FILE=/run/hang/token
ExecStartPre=+sh -c 'umask 022; mkdir -p /run/hang; echo stand-in-token >/run/hang/new'
ExecStartPre=+mv -f /run/hang/new /run/hang/token
WatchdogSec=2
RestartSec=1
"""


def built(folder):
    """A build, with the Pythons of these tests."""
    program = [sys.executable, ROOT / "package" / "build.py", folder, *PYTHONS]
    env = os.environ | {"SOURCE_DATE_EPOCH": "1772362800"}
    done = subprocess.run(program, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def packages(engine, tmp_path_factory):
    """The folder with what `make package` builds."""
    engine.fetch_base(BASE)
    return built(tmp_path_factory.mktemp("packages"))


@pytest.fixture
def bare(engine, packages):
    """A machine with Python and no more."""
    with closing(Machine(engine, engine.base(BASE), packages)) as machine:
        yield machine


@pytest.fixture(scope="module")
def head(engine, packages):
    """A head node under systemd with a Slurm of its own, our packages, and a stand-in CloudVision and portal."""
    engine.base(BASE)
    engine.docker("build", "-q", "-t", "head", "-", input=RECIPE, limit_s=300)
    with closing(Machine(engine, "head", packages, *RULED, command=SYSTEMD)) as machine:
        wait_until(lambda: machine.result("systemctl is-system-running").stdout.strip() == "running", START_LIMIT_S)
        machine.write("/etc/slurm/slurm.conf", SLURM_CONF)
        machine.sh("install -d -o slurm /var/lib/slurm/slurmctld /var/lib/slurm/slurmd")
        machine.write("/etc/slurm/slurmdbd.conf", SLURMDBD_CONF)
        machine.sh(
            f"chmod 600 /etc/slurm/slurmdbd.conf && chown slurm /etc/slurm/slurmdbd.conf && mariadb -e '{DATABASE}'"
        )
        machine.sh("systemctl restart munge slurmdbd && dpkg -i /packages/*.deb")
        wait_until(lambda: machine.result("sacctmgr -i add cluster lab").returncode == 0, START_LIMIT_S, "slurmdbd")
        machine.sh("systemctl restart slurmctld slurmd")
        for name in ("stand-in", "stand-in-portal"):
            machine.write(f"/run/systemd/system/{name}.service", f"[Service]\nExecStart=cvagent {name}\n")
        for token in ("cloudvision_token", "portal_token", "node_report_token"):
            machine.write(f"/etc/cvagent/{token}", "stand-in-token\n", "600")
        machine.write("/etc/cvagent/header", "Authorization: Bearer stand-in-token\n", "600")
        machine.write("/etc/cvagent/push.env", PUSH_ENV)
        machine.write("/etc/cvagent/pull.env", PULL_ENV)
        machine.write("/etc/cvagent/node-report.env", "CVAGENT_NODE_REPORT_URL=http://127.0.0.1:9410/nodes/report\n")
        machine.write("/etc/systemd/system/cvagent-push.service.d/reports.conf", REPORTS)
        machine.sh("cp /usr/lib/systemd/system/cvagent-push.service /run/systemd/system/cvagent-hang.service")
        machine.write("/run/systemd/system/cvagent-hang.service.d/hang.conf", HANGS)
        machine.sh("systemctl daemon-reload && systemctl start stand-in stand-in-portal")
        wait_until(lambda: machine.result("sinfo -h -t idle -o %n").stdout == "head\n", START_LIMIT_S, "an idle node")
        wait_until(lambda: machine.result("curl -fs http://127.0.0.1:8480/").returncode == 0, START_LIMIT_S)
        hang(machine)
        yield machine


def hang(machine):
    """Has a service hang from now on: reading its token never ends. While systemd waits, other tests go on."""
    machine.sh("systemctl start cvagent-hang")
    told(machine, submitted(machine))
    machine.sh("mkfifo -m 644 /run/hang/pipe && mv /run/hang/pipe /run/hang/token")
    submitted(machine)


def submitted(machine):
    """The key of a job that Slurm was given."""
    job_id = machine.sh("sbatch --parsable -o /dev/null --wrap 'sleep 1'")
    return f"{job_id}@lab"


def told(machine, key):
    """What CloudVision was told of a job, once it was told of its end."""
    return wait_until(lambda: "endTime" in (job := machine.held().get(key, {})) and job, START_LIMIT_S, key)


@pytest.fixture
def push(head):
    """cvagent-push, started for one test."""
    head.sh("systemctl start cvagent-push")
    yield "cvagent-push"
    head.sh("systemctl stop cvagent-push")


@contextmanager
def without_slurmctld(machine):
    machine.sh("systemctl stop slurmctld")
    try:
        yield
    finally:
        machine.sh("systemctl start slurmctld")


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def everything(machine):
    """Every file and folder of a machine, but what dpkg keeps for itself."""
    ours = "-path /proc -o -path /sys -o -path /dev -o -path /packages -o -path /var/lib/dpkg -o -path /var/log"
    return set(machine.sh(f"find / \\( {ours} -o -path /var/cache -o -path /tmp \\) -prune -o -print").splitlines())


def test_a_service_tells_slurms_jobs_and_reads_its_token_by_loadcredential(head, push):
    key = submitted(head)
    assert told(head, key)["state"] == "JOB_STATE_COMPLETED"
    assert head.property(push, "ActiveState") == "active"
    main = head.property(push, "MainPID")
    environment, uid = head.sh(f"tr '\\0' '\\n' </proc/{main}/environ"), head.sh(f"stat -c %u /proc/{main}")
    assert int(uid) in DYNAMIC_UIDS
    assert "stand-in-token" not in environment
    assert f"CREDENTIALS_DIRECTORY=/run/credentials/{push}.service" in environment


def test_a_service_stops_in_time_and_says_so(head, push):
    began = time.monotonic()
    head.sh(f"systemctl stop {push}")
    assert time.monotonic() - began < STOP_LIMIT_S
    assert head.property(push, "Result") == "success"


def test_a_reload_takes_over_new_settings(head, push):
    head.sh("echo CVAGENT_LOG_LEVEL=debug >>/etc/cvagent/push.env")
    head.sh(f"systemctl reload {push}")
    said = f"journalctl -o cat -u {push}"
    wait_until(lambda: "SIGHUP: filters" in head.sh(said), START_LIMIT_S)


def test_wrong_settings_are_said_once_and_not_tried_again(head):
    head.write("/run/systemd/system/cvagent-push.service.d/wrong.conf", "[Service]\nEnvironment=CVAGENT_MODE=pusch\n")
    failed = head.result("systemctl daemon-reload && systemctl start cvagent-push")
    head.sh("rm /run/systemd/system/cvagent-push.service.d/wrong.conf && systemctl daemon-reload")
    assert failed.returncode == 1
    assert head.property("cvagent-push", "ActiveState") == "failed"
    assert head.property("cvagent-push", "ExecMainStatus") == "2"
    assert "CVAGENT_MODE='pusch': must be 'push'" in head.sh("journalctl -o cat -u cvagent-push")


def test_a_service_that_is_upgraded_without_slurmctld_comes_up_by_itself_once_it_answers(head, push):
    with without_slurmctld(head):
        head.sh("sh /var/lib/dpkg/info/cvagent.postinst configure")
        wait_until(lambda: head.property(push, "SubState") == "auto-restart", START_LIMIT_S)
        assert head.property(push, "ExecMainStatus") == "1"
        assert "Slurm does not tell its ClusterName: scontrol: " in head.sh(f"journalctl -o cat -u {push}")
    wait_until(lambda: head.property(push, "ActiveState") == "active", RESTART_LIMIT_S)
    told(head, submitted(head))


def test_a_node_reports_by_its_timers_service(head, push):
    wait_until(lambda: head.result("curl -fs http://127.0.0.1:9410/readyz").returncode == 0, START_LIMIT_S)
    head.sh("systemctl start cvagent-node-report")
    assert head.property("cvagent-node-report", "Result") == "success"
    told = f"journalctl -o cat -u {push}"
    wait_until(lambda: "nodes: head" in head.sh(told), START_LIMIT_S, "what its report lacks: hardware")
    head.sh("systemctl start cvagent-node-report.timer")
    assert "cvagent-node-report.timer" in head.sh("systemctl list-timers --all")


def test_pull_carries_out_an_order_as_slurms_user_with_both_tokens(head):
    project = json.loads(head.sh(f"curl -fsS {PORTAL}/market"))["projects"][0]["uuid"]
    order = json.dumps({"project": project, "name": "bert", "limits": {"cpu": 1}})
    head.sh("systemctl start cvagent-pull")
    main = head.property("cvagent-pull", "MainPID")
    assert head.sh(f"stat -c %U /proc/{main}") == "slurm"
    assert head.sh("ls /run/credentials/cvagent-pull.service") == "cloudvision_token\nportal_token"
    head.sh(f"curl -fsS -H 'Content-Type: application/json' -d '{order}' {PORTAL}/order")
    shown = "sacctmgr -nP show account format=account"
    wait_until(lambda: "_bert" in head.sh(shown), START_LIMIT_S, "the account")
    head.sh("systemctl stop cvagent-pull")


@pytest.mark.parametrize(
    "unit", ["cvagent-push.service", "cvagent-pull.service", "cvagent-node-report.service", "cvagent-node-report.timer"]
)
def test_a_unit_has_no_fault_and_shows_little(head, unit):
    path = f"/usr/lib/systemd/system/{unit}"
    done = head.result(f"systemd-analyze verify --man=no {path}")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    if unit.endswith(".service"):
        head.sh(f"systemd-analyze security --offline=true --threshold={MOST_EXPOSED} {path}")


def test_the_debian_packages_run_and_leave_nothing(bare):
    before = everything(bare)
    bare.sh("dpkg --force-depends -i /packages/*.deb")
    assert bare.sh("cvagent --version") == f"cvagent, version {__version__}"
    for token in ("cloudvision_token", "portal_token", "http_token", "node_report_token"):
        bare.write(f"/etc/cvagent/{token}", "token\n", "600")
    done = bare.result("cvagent --env-file /etc/cvagent/push.env check")
    assert done.returncode == 1
    assert re.search(r"^FAIL +settings +CVAGENT_CLOUDVISION_URL: is required", done.stdout, re.MULTILINE)
    given = "CVAGENT_CLOUDVISION_URL=https://127.0.0.1:1 CVAGENT_CLOUDVISION_TOKEN_FILE=/etc/cvagent/cloudvision_token"
    done = bare.result(f"{given} cvagent check")
    assert done.returncode == 1
    for lacking in ("squeue", "CloudVision"):
        assert re.search(rf"^FAIL +{lacking} ", done.stdout, re.MULTILINE), done.stdout
    assert "squeue: not found in the folders of PATH" in done.stdout
    bare.write("/etc/cvagent/header", "token\n", "600")
    bare.sh("dpkg --remove cvagent cvagent-node-report")
    assert bare.sh("ls -A /usr/lib/cvagent 2>/dev/null || echo gone") == "gone"
    assert "push.env" in bare.sh("ls /etc/cvagent")
    bare.sh("dpkg --purge cvagent cvagent-node-report")
    assert everything(bare) - before == set()


def test_the_single_file_runs_all_of_it(bare):
    single = f"/packages/cvagent-{__version__}-*.pyz"
    assert bare.sh(f"{single} --version") == f"cvagent, version {__version__}"
    done = bare.result(f"{single} check")
    assert (done.returncode, "CVAGENT_CLOUDVISION_URL: is required" in done.stdout) == (1, True)
    said = bare.sh(f"{single} demo --recorded --for 3")
    assert re.search(r"CloudVision holds [1-9]\d* jobs", said), said


def test_the_single_file_says_which_python_it_needs(tmp_path):
    site = tmp_path / "site-packages"
    (site / "pydantic_core").mkdir(parents=True)
    for python in ("398", "399"):
        (site / "pydantic_core" / f"_pydantic_core.cpython-{python}-x86_64-linux-gnu.so").touch()
    with pytest.raises(SystemExit, match=r"needs Python 3\.98 to 3\.99"):
        runpy.run_path(str(ROOT / "package" / "single.py"), {"site_packages": str(site)})


def test_a_second_build_gives_the_same_bytes(packages, tmp_path):
    first = digests(packages)
    assert len(first) == 5
    assert digests(built(tmp_path / "again")) == first


def test_systemd_restarts_a_service_whose_delivery_hangs(head):
    wait_until(lambda: head.property("cvagent-hang", "NRestarts") == "1", HANG_LIMIT_S)
    assert "Watchdog timeout" in head.sh("journalctl -o cat -u cvagent-hang")
    told(head, submitted(head))
    assert head.property("cvagent-hang", "NRestarts") == "1"
