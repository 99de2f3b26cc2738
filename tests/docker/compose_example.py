"""The compose example while it runs: its Slurm, its stand-ins, its agents."""

import datetime as dt
import json
import os
from collections import defaultdict
from pathlib import Path

import requests
from agent import ENDS
from docker_engine import ROOT, Engine
from prometheus_client.parser import text_string_to_metric_families
from slurm_lab import RUNNING_STATES
from waiting import wait_until

FOLDER = ROOT / "examples" / "docker-compose"
UP_LIMIT_S = 300
# How often it looks, as a test should not wait for half a minute; and what is sold.
QUICK = """
services:
  cvagent-push:
    environment: {{CVAGENT_JOB_INTERVAL_S: 1, CVAGENT_NODE_INTERVAL_S: 5, CVAGENT_SLURM_TIMEOUT_S: 4}}
    healthcheck: {{interval: 2s}}
    volumes: &sold ["{components}:/config-components.yaml:ro"]
  cvagent-pull:
    environment: {{CVAGENT_PORTAL_INTERVAL_S: 5, CVAGENT_SLURM_TIMEOUT_S: 4}}
    healthcheck: {{interval: 2s}}
    volumes: *sold
"""
# A unit so small that the jobs of a test use many. The limit is that of config-components.yaml: 960,000 minutes.
UNIT_MINUTES = 0.1
COMPONENTS = f"""
cpu: {{limit: 9600000, unit_factor: {UNIT_MINUTES}, measured_unit: Units, accounting_type: usage, label: CPU}}
"""
PAGES = {"cvagent-push": "http://127.0.0.1:9410", "cvagent-pull": "http://127.0.0.1:9411"}
STAND_INS = {"cloudvision": "https://127.0.0.1:8480", "portal": "https://127.0.0.1:8481"}
SBATCH = ("sbatch", "--parsable", "--output=/dev/null", "--chdir=/tmp")


class Example:
    """The compose project. One at a time, with the Slurm of one of Debian's releases."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self._folder = folder
        self._quick = folder / "quick.yaml"
        components = folder / "components.yaml"
        components.write_text(COMPONENTS)
        self._quick.write_text(QUICK.format(components=components))
        self._base = ""

    def up(self, base: str) -> "Example":
        """Starts it with the Slurm of that base image, unless it runs already."""
        if base != self._base:
            self.engine.base(base)
            if self._base:
                self.compose("down", "--volumes", "--timeout", "1")
            self._base = base
            self.compose("build", limit_s=UP_LIMIT_S)
            self.compose("up", "--detach", limit_s=UP_LIMIT_S)
            for name in STAND_INS:
                authority = self.compose("exec", "-T", name, "cat", f"/var/lib/cvagent/{name}.pem")
                (self._folder / name).write_text(authority)
            self.healthy("cvagent-push", "cvagent-pull")
        return self

    def compose(self, *arguments: object, **more) -> str:
        """Runs `docker compose ...` on it."""
        given = {
            "SLURM_BASE": self._base,
            "HEALTH_INTERVAL": "2s",
            "DOCKER_SOCKET": str(self.engine.socket),
            "CVAGENT_BUILD_CA": os.environ.get("PIP_CERT", "/dev/null"),
        }
        files = ("-f", FOLDER / "compose.yaml", "-f", self._quick)
        return self.engine.compose(*files, *arguments, env=given, **more)

    def slurm(self, *command: str, user: str = "slurm", check: bool = True) -> str:
        """Runs a command in slurmctld's container, and returns what it printed."""
        return self.engine.docker("exec", "-u", user, "-e", "TZ=UTC", "slurmctld", *command, check=check)

    def submit(self, *options: str, script: str = "sleep 300", user: str = "alice") -> str:
        """Submits a batch job of one shell line, and returns its id; empty when Slurm does not take it."""
        said = self.slurm(*SBATCH, *options, f"--wrap={script}", user=user, check=False)
        return said.strip().partition(";")[0]

    def truth(self, job: str) -> dict[str, dict[str, object]]:
        """What CloudVision should hold of a job that has ended, by key, from sacct; empty before that."""
        fields = "JobIDRaw,State,Start,End,NodeList,JobName,Partition"
        rows = [line.split("|") for line in self.slurm("sacct", "-nXDP", "-j", job, "-o", fields).splitlines()]
        # Without a partition it is what slurmdbd makes up from a step whose job it has not heard of yet.
        if any(row[1] in RUNNING_STATES or "Unknown" in row[2:4] or not row[6] for row in rows):
            return {}
        return {f"{row[0]}@lab": self._document(row) for row in rows}

    def used(self, account: str) -> dict[str, float]:
        """What sacct says that each user's jobs in an account used, in sold units of cpu."""
        asked = ("sacct", "-nXDPa", "--noconvert", "-A", account, "-S", "now-1hour", "-o", "User,CPUTimeRAW")
        used: dict[str, float] = defaultdict(float)
        for user, cpu_seconds in (line.split("|") for line in self.slurm(*asked).splitlines()):
            used[user] += int(cpu_seconds) / 60 / UNIT_MINUTES
        return used

    def _document(self, row: list[str]) -> dict[str, object]:
        job, state, start, end, nodes, name, partition = row
        return {
            "key": {"id": f"{job}@lab"},
            "name": f"{name}@{partition}",
            "state": ENDS[state.partition(" ")[0]],
            "start_time": f"{dt.datetime.fromisoformat(start):%Y-%m-%dT%H:%M:%SZ}",
            "end_time": f"{dt.datetime.fromisoformat(end):%Y-%m-%dT%H:%M:%SZ}",
            "location": "lab",
            "nodes": {"values": self.slurm("scontrol", "show", "hostnames", nodes).split()},
        }

    def told(self, *jobs: str) -> list[str]:
        """Waits until CloudVision holds what sacct says of these jobs, and nothing else of them; their states."""
        for job in jobs:
            wait_until(lambda job=job: self.truth(job), 60, f"the end of job {job}")
        wanted = {key: document for job in jobs for key, document in self.truth(job).items()}
        wait_until(lambda: wanted.items() <= self.cloudvision().items(), 40, f"{wanted}, {self.cloudvision()}")
        return [str(document["state"]).removeprefix("JOB_STATE_") for document in wanted.values()]

    def cloudvision(self) -> dict[str, dict]:
        """The jobs that CloudVision holds, by key. What no correct agent causes must not have happened."""
        state = self._get("cloudvision", "state")
        assert state["violations"] == []
        return state["jobs"]

    def wait_until_running(self, job: str) -> dict:
        """Waits until CloudVision shows a job as running, and returns what it holds."""
        key = f"{job}@lab"
        wait_until(lambda: self.cloudvision().get(key, {}).get("state") == "JOB_STATE_RUNNING", 60, f"{key} running")
        return self.cloudvision()[key]

    def nodes(self) -> dict[str, dict]:
        """The nodes that CloudVision holds."""
        return self._get("cloudvision", "state")["nodes"]

    def market(self) -> dict:
        """All that the portal's page shows."""
        market = self._get("portal", "market")
        assert market["violations"] == []
        return market

    def order(self, name: str, **limits: float) -> dict:
        """A tenant of the first project orders an allocation; the order."""
        project = self.market()["projects"][0]["uuid"]
        answer = self.engine.inside(
            requests.post,
            f"{STAND_INS['portal']}/standin/order",
            json={"project": project, "name": name, "limits": limits},
            verify=self._folder / "portal",
            timeout=10,
        )
        assert answer.status_code == 200, answer.text
        return next(order for order in self.market()["orders"] if order["name"] == name)

    def order_state(self, order: dict) -> str:
        """What the portal calls an order's state now: `done`."""
        return next(one["state"] for one in self.market()["orders"] if one["uuid"] == order["uuid"])

    def resource(self, name: str) -> dict:
        """An allocation, once the portal knows its account."""

        def known() -> dict | None:
            return next((one for one in self.market()["resources"] if one["name"] == name and one["backend_id"]), None)

        return wait_until(known, 60, f"the account of {name}")

    def billed(self, name: str) -> tuple[float, dict[str, float]]:
        """What the portal was told that an allocation used of cpu: in total, and by user. Nothing yet: 0."""
        (resource,) = (one for one in self.market()["resources"] if one["name"] == name)
        told = [usage for key, usage in resource["usages"].items() if key.startswith("cpu ")]
        assert len(told) <= 1, told
        if not told:
            return 0, {}
        return float(told[0]["total"]), {user: float(amount) for user, amount in told[0]["users"].items()}

    def rounds(self, result: str, flow: str = "jobs", agent: str = "cvagent-push") -> int:
        """How many rounds were done, or skipped."""
        text = self.engine.inside(requests.get, f"{PAGES[agent]}/metrics", timeout=10).text
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        wanted = ("cvagent_rounds_total", {"flow": flow, "result": result})
        return int(next(sample.value for sample in samples if (sample.name, sample.labels) == wanted))

    def wait_for_rounds(self, result: str, more: int = 2, flow: str = "jobs", agent: str = "cvagent-push") -> None:
        """Waits for so many rounds more."""
        before = self.rounds(result, flow, agent)
        wait_until(lambda: self.rounds(result, flow, agent) >= before + more, 60, f"{more} rounds of {flow} {result}")

    def healthy(self, *services: str) -> None:
        """Waits until services say that they are well."""

        def well() -> bool:
            lines = self.compose("ps", "--format", "json").splitlines()
            found = {shown["Service"]: shown["Health"] for shown in map(json.loads, lines)}
            return all(found.get(service) == "healthy" for service in services)

        wait_until(well, 90, f"{services} healthy")

    def _get(self, stand_in: str, what: str) -> dict:
        url = f"{STAND_INS[stand_in]}/standin/{what}"
        return self.engine.inside(requests.get, url, verify=self._folder / stand_in, timeout=10).json()
