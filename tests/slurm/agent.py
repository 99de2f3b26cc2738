"""The agent as it is run: `python -m cvagent`, a process of its own, its settings in the environment."""

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import requests
from prometheus_client.parser import text_string_to_metric_families
from slurm_lab import ROOT, RUNNING_STATES, Lab
from waiting import wait_until

from cvagent.standin import StandIn

SINK = "cloudvision_jobs"
START_LIMIT_S = 30
STOP_LIMIT_S = 10
COMMAND_LIMIT_S = 60

# Slurm's words for an end, and CloudVision's.
ENDS = {
    "COMPLETED": "JOB_STATE_COMPLETED",
    "CANCELLED": "JOB_STATE_CANCELLED",
    "REQUEUED": "JOB_STATE_CANCELLED",
} | dict.fromkeys(("FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT", "PREEMPTED"), "JOB_STATE_FAILED")
FIELDS = ("JobIDRaw", "Submit", "State", "Start", "End", "Partition", "NodeList", "JobName")


class Agent:
    """One agent, which may be started and stopped again and again. Killed at the end of a `with`.

    Args:
        folder: Its own: token, log, env file and, where it has one, the file store.
        store: `memory` or `file`.
        settings: Without their `CVAGENT_`, in lower case: `job_interval_s=2`.

    Attributes:
        began_at: When it was started last, by the monotonic clock.
    """

    def __init__(self, folder: Path, lab: Lab, stand_in: StandIn, *, store: str = "memory", **settings) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.lab = lab
        self.stand_in = stand_in
        self.folder = folder
        self.token_file = folder / "token"
        self.env_file = folder / "env"
        self._log = folder / "log"
        self._read_from = 0
        self._process: subprocess.Popen | None = None
        self.began_at = 0.0
        self.write_token(stand_in.token)
        self.env_file.touch()
        given = {
            "cloudvision_url": stand_in.url,
            "cloudvision_token_file": self.token_file,
            "slurm_bin_dir": lab.bin_dir,
            "job_interval_s": 1,
            "node_facts": "off",
            "http_listen": "127.0.0.1:0",
            "env_file": self.env_file,
            "store_url": "sqlite://" if store == "memory" else f"sqlite:///{folder}/store.db",
        } | settings
        self.settings = {f"CVAGENT_{name.upper()}": str(value) for name, value in given.items()}

    def __enter__(self):
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Kills it if it runs."""
        if self._process and self._process.poll() is None:
            self.kill()
        if self._log.exists():
            print(self._log.read_text()[-8000:])  # noqa: T201 - pytest shows it beside a failure

    def write_token(self, token: str) -> None:
        """Replaces its token, in one step as an operator should."""
        fresh = self.folder / "token.new"
        fresh.touch(0o600)
        fresh.write_text(f"{token}\n")
        fresh.rename(self.token_file)

    def begin(self) -> "Agent":
        """Starts it and comes back at once."""
        self.began_at = time.monotonic()
        self._read_from = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cvagent"],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def start(self) -> "Agent":
        """Starts it and waits until it serves its pages."""
        return self.begin().wait_until_up()

    def wait_until_up(self) -> "Agent":
        """Waits until it serves its pages."""
        wait_until(lambda: "status page on" in self.log() or self._process.poll() is not None, START_LIMIT_S)
        assert self._process.poll() is None, self.log()
        return self

    def stop(self) -> int:
        """SIGTERM; the exit code. TimeoutExpired when it does not end in time."""
        self._process.terminate()
        return self._process.wait(STOP_LIMIT_S)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def reload(self) -> None:
        """SIGHUP."""
        self._process.send_signal(signal.SIGHUP)

    def log(self) -> str:
        """What it said since it was started last."""
        with self._log.open("rb") as log:
            log.seek(self._read_from)
            return log.read().decode()

    def command(self, *arguments: str) -> subprocess.CompletedProcess:
        """Runs `cvagent ...` with the settings of this agent, beside it."""
        running = self._process and self._process.poll() is None
        page = {"CVAGENT_HTTP_LISTEN": self.url.removeprefix("http://")} if running else {}
        return subprocess.run(
            [sys.executable, "-m", "cvagent", *arguments],
            cwd=self.folder,
            env=self._environment() | page,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )

    @property
    def url(self) -> str:
        """Where its pages are."""
        return self.log().partition("status page on ")[2].partition("\n")[0]

    def readyz(self) -> tuple[int, dict]:
        """Status and body of /readyz."""
        answer = requests.get(f"{self.url}/readyz", timeout=5)
        return answer.status_code, answer.json()

    def metric(self, name: str, **labels: str) -> float:
        """A metric's value."""
        text = requests.get(f"{self.url}/metrics", timeout=5).text
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return next(sample.value for sample in samples if (sample.name, sample.labels) == (name, labels))

    def rounds(self, result: str = "done") -> int:
        """How many rounds were done, or skipped."""
        return int(self.metric("cvagent_rounds_total", flow="jobs", result=result))

    def memory(self) -> int:
        """Its resident set in bytes."""
        return psutil.Process(self._process.pid).memory_info().rss

    def pending(self) -> int:
        """How many documents wait."""
        return int(self.metric("cvagent_outbox_pending", sink=SINK))

    def settle(self, rounds: int = 2) -> None:
        """See `settle`."""
        settle(self, rounds=rounds)

    def told(self, *jobs: str, runs: int = 1) -> list[str]:
        """Waits for the end of jobs, of so many runs of each, and for two rounds more; then see `holds`."""
        for job in jobs:
            self.lab.wait_for_end(job, runs=runs)
        self.settle()
        return self.holds(*jobs)

    def holds(self, *jobs: str) -> list[str]:
        """Holds CloudVision against slurmdbd, and returns the state of each run in the order of keys."""
        wanted = documents(self.lab, *jobs)
        told = told_of(self.stand_in, *jobs, *wanted)
        wrong = {key: (told.get(key), wanted.get(key)) for key in told | wanted if told.get(key) != wanted.get(key)}
        assert not wrong, f"what CloudVision holds, and what it should: {wrong}"
        return [document["state"].removeprefix("JOB_STATE_") for document in wanted.values()]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CVAGENT_", "SLURM"))}
        return kept | {"PYTHONPATH": str(ROOT)} | self.settings


def settle(*agents: Agent, rounds: int = 2, limit_s: float = 30) -> None:
    """Waits for so many rounds of each that began after now, and then until what they decided was delivered."""
    enough = {agent: agent.rounds() + 1 + rounds for agent in agents}  # one may be under way
    for agent in agents:
        wait_until(lambda one=agent: one.rounds() >= enough[one], limit_s, "rounds that are done")
    for agent in agents:
        wait_until(lambda one=agent: one.pending() == 0, limit_s, "an empty outbox")


def told_of(stand_in: StandIn, *jobs: str) -> dict[str, dict]:
    """What CloudVision holds about jobs, all runs of each, by key. A job is named by its id or by a key."""
    wanted = {_job_id(job) for job in jobs}
    return {key: document for key, document in stand_in.jobs.items() if _job_id(key) in wanted}


def documents(lab: Lab, *jobs: str) -> dict[str, dict]:
    """What CloudVision is to hold about jobs, by key: a document for each run that slurmdbd knows to have had nodes."""
    said = lab.slurm("sacct", "-n", "-X", "-D", "-P", "-j", ",".join(jobs), "-o", ",".join(FIELDS))
    rows = sorted((line.split("|", 7) for line in said.splitlines()), key=lambda row: (int(row[0]), int(row[1])))
    runs: dict[str, int] = {}
    found = {}
    for job_id, _submitted, state, started, ended, partition, nodes, name in rows:
        # Without a partition it is what slurmdbd makes up from a step whose job it has not heard of yet.
        if not partition:
            continue
        runs[job_id] = nth = runs.get(job_id, -1) + 1
        if nodes == "None assigned":
            continue
        key = f"{job_id}.{nth}@lab" if nth else f"{job_id}@lab"
        word = state.partition(" ")[0]
        found[key] = {
            "key": {"id": key},
            "name": f"{name}@{partition}",
            "state": "JOB_STATE_RUNNING" if word in RUNNING_STATES else ENDS[word],
            "start_time": utc(started),
            "location": "lab",
            "nodes": {"values": lab.slurm("scontrol", "show", "hostnames", nodes).split()},
        } | ({} if word in RUNNING_STATES else {"end_time": utc(ended)})
    return found


def writes(stand_in: StandIn, key: str) -> list[dict]:
    """Every document that was written under a key, in order."""
    return [write.document for write in stand_in.history if write.key == key]


def repeated(stand_in: StandIn) -> list[str]:
    """The keys under which the same document was written twice in a row, once for each time."""
    last: dict[str, dict] = {}
    found = []
    for write in stand_in.history:
        if last.get(write.key) == write.document:
            found.append(write.key)
        last[write.key] = write.document
    return found


def _job_id(key: str) -> str:
    return key.partition("@")[0].partition(".")[0]


def utc(epoch: str) -> str:
    """Slurm's epoch seconds as CloudVision writes them."""
    return dt.datetime.fromtimestamp(int(epoch), dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
