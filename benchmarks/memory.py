"""How much memory the agent takes, and whether that grows."""

import re
import subprocess
import sys
from collections.abc import Iterator

import psutil
import requests

from benchmarks.delivery import stand_in
from benchmarks.measure import MIB, ROOT, Reading, Row, at_most, below, mib, pss, scratch, seen, wait_until
from benchmarks.replay import Replay
from benchmarks.rounds import Rounds
from benchmarks.stubs import DAY_S, agent, write_stubs

LIVE, ENDED, FEW_ENDED = 10_000, 100_000, 1000
_ROUND_S = 30
_ACCEPTED = 'deliveries_total{outcome="accepted",sink="cloudvision_jobs"}'
_EARLY, _LATE = 50, 500


def measure() -> Iterator[Row]:
    """See the module."""
    most = Reading(100 * MIB, "100 MiB")
    yield below(f"PSS of an agent, {LIVE:,} live and {ENDED:,} ended jobs", mib(agent_pss(LIVE, ENDED)), most)
    with scratch() as folder:
        kept = agent_pss(LIVE, ENDED, f"sqlite:///{folder}/store.db")
    yield below("the same, with all of them kept in a SQLite file", mib(kept), most)
    yield seen(f"PSS of an agent, {LIVE:,} live and {FEW_ENDED:,} ended jobs", mib(agent_pss(LIVE, FEW_ENDED)))
    yield seen("PSS of an agent, 10 live and 10 ended jobs", mib(agent_pss(10, 10)))
    early, late = map(int, _said("benchmarks.memory").split())
    yield at_most(f"PSS after round {_LATE}, all of them replayed", mib(late), mib(early, f"after {_EARLY}"), 1.05)


def agent_pss(live: int, ended: int, store_url: str = "sqlite://") -> int:
    """Bytes, once all is delivered and three more rounds are done."""
    with scratch() as bin_dir, stand_in() as server:
        write_stubs(bin_dir, live, ended)
        settings = {"job_interval_s": "2", "node_facts": "off", "http_listen": "127.0.0.1:0", "store_url": store_url}
        with agent(sys.executable, server.url, server.ca_file, bin_dir, **settings) as (process, log):
            wait_until(lambda: "status page on" in log.read_text(), 60, "status page")
            url = log.read_text().partition("status page on ")[2].split()[0]
            # Asked as often as people ask; each question takes memory too.
            wait_until(lambda: _metric(url, _ACCEPTED) == live + ended, 240, "end of the delivery", every_s=2)
            done = _rounds(url)
            wait_until(lambda: _rounds(url) > done + 3, 60, "rounds", every_s=2)
            return pss(process)


def drive() -> Iterator[int]:
    """PSS of this process after an early and a late round, with as many jobs ending as fall out of the day."""
    slurm = Replay(LIVE, ENDED, DAY_S)
    rounds = Rounds(slurm)
    for number in range(_LATE + 1):
        rounds.changed_cpu_s(ENDED * _ROUND_S // DAY_S)
        if number in {_EARLY, _LATE}:
            yield pss(psutil.Process())


def _rounds(url: str) -> float:
    return _metric(url, 'rounds_total{flow="jobs",result="done"}')


def _metric(url: str, name: str) -> float:
    found = re.search(
        rf"^cvagent_{re.escape(name)} (\S+)$", requests.get(f"{url}/metrics", timeout=10).text, re.MULTILINE
    )
    return float(found[1]) if found else -1


def _said(module: str) -> str:
    return subprocess.run([sys.executable, "-m", module], cwd=ROOT, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    print(*drive())
