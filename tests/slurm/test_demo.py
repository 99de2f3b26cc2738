"""`cvagent demo` as a person sees it: its own Slurm, the portal's page, CloudVision's page."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import requests
from slurm_lab import ROOT
from waiting import wait_until


class Demo:
    """A demo that runs. What it prints is in a file: a pipe might fill up."""

    def __init__(self, said: Path) -> None:
        self._said = said
        with said.open("wb") as output:
            # As from a terminal: tests may run where Ctrl-C is ignored.
            command = ["env", "--default-signal=INT,HUP", sys.executable, "-m", "cvagent", "demo", "--nodes", "3"]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        wait_until(lambda: "Ctrl-C" in self.said or self.process.poll() is not None, 60, "its first words")
        lab = next(env["LAB"] for env in map(psutil.Process.environ, self._children()) if "LAB" in env)
        self._folder = Path(lab).parent
        self.portal, self.cloudvision = re.findall(r"http://\S+(?=/)", self.said)[:2]

    @property
    def said(self) -> str:
        return self._said.read_text()

    def left(self) -> list:
        """What there is of it: its folder, and processes that name it."""
        lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
        found = [line for line in lines if str(self._folder) in line]
        return [self._folder, *found] if self._folder.exists() else found

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def market(self):
        """What the portal's page shows."""
        return requests.get(f"{self.portal}/standin/market", timeout=10).json()

    def click(self, resource: str, action: str, limits=()) -> None:
        """What its buttons do."""
        asked = {"resource": resource, "action": action, "limits": dict(limits)}
        requests.post(f"{self.portal}/standin/resource", json=asked, timeout=10).raise_for_status()

    def tenants(self):
        """Name, state and nodes of the tenants on CloudVision's page."""
        rows = requests.get(f"{self.cloudvision}/standin/rows", timeout=10).json()["jobs"]["rows"]
        return [(row["name"], row["state"], row["first"]) for row in rows if row["tenant"]]


@pytest.fixture
def demo(_slurm, tmp_path):
    """A demo with three nodes, of which one is left for a tenant."""
    demo = Demo(tmp_path / "said")
    try:
        yield demo
    finally:
        demo.process.terminate()
        demo.process.wait(30)
        print(demo.said)  # noqa: T201 - pytest shows it beside a failure


def test_what_is_ordered_on_the_page_appears_in_slurm_and_in_cloudvision(demo):
    wait_until(demo.tenants, 60, "the tenant that is ordered at the start")
    (allocation,) = demo.market()["resources"]
    account = allocation["backend_id"]
    assert demo.tenants() == [(account, "RUNNING", ["node3"])]
    demo.click(allocation["uuid"], "change", {"cpu": 777})
    wait_until(lambda: demo.market()["orders"][0]["state"] == "done", 30, "the change done")
    demo.click(allocation["uuid"], "terminate")
    wait_until(lambda: demo.market()["orders"][0]["state"] == "done", 60, "the end done")
    assert demo.tenants() == [(account, "COMPLETED", ["node3"])]
    wait_until(lambda: account in demo.said, 30, "the account on the terminal")
    assert demo.left()
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(30) == 0, demo.said
    assert "everything is cleaned up" in demo.said
    assert demo.left() == []
