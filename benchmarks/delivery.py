"""How fast documents get to a CloudVision, beside a connection for each of them."""

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import NamedTuple

import requests

from benchmarks.measure import Row, at_least, ms, per_second, scratch, seen, started, wait_until
from cvagent.clients.cloudvision import CloudVision
from cvagent.model import Accepted, Entry, JobConfig, State
from cvagent.settings.secret import Secret
from cvagent.sinks.cloudvision_jobs import CloudVisionJobs, document
from cvagent.standin import TOKEN

_PATH = "/api/resources/computejob/v1/JobConfig"
_FEW, _SOME, _MANY = 200, 2000, 10_000
_TIMES = 5
_numbers = count(1)


class Server(NamedTuple):
    """A stand-in that runs."""

    url: str
    ca_file: Path


class Speed(NamedTuple):
    """Documents a second of wall time, and CPU seconds of the client for one."""

    rate: float
    cpu_s: float


@contextmanager
def stand_in(*options: str) -> Iterator[Server]:
    """A stand-in in a process of its own, so that it shares no interpreter lock with the client."""
    with scratch() as folder:
        log = folder / "log"
        command = (sys.executable, "-m", "cvagent", "stand-in", "--port", "0", "--tls", *options)
        with started(*command, log=log, env={"PYTHONUNBUFFERED": "1"}):
            wait_until(lambda: "CA file: " in log.read_text(), 30, "stand-in")
            found = re.search(r"_URL=(\S+)\n(?s:.*)CA file: (\S+)", log.read_text())
            assert found
            yield Server(found[1], Path(found[2]))


def measure() -> Iterator[Row]:
    """See the module."""
    with stand_in("--no-batch") as server, ThreadPoolExecutor(8) as pool:
        # In turn, so that what else the machine does meets each of them.
        turns = [
            (
                speed(_SOME, lambda some: deliver(server, some)),
                speed(_FEW, lambda some: [post(server, one) for one in some]),
                speed(_FEW, lambda some: list(pool.map(partial(post, server), some))),
            )
            for _ in range(_TIMES)
        ]
    single, plain, threads = map(_middle, zip(*turns, strict=True))
    with stand_in() as server:
        batched = _middle([speed(_MANY, lambda some: deliver(server, some)) for _ in range(_TIMES)])
    each = "with a connection for each"
    yield at_least("documents, written singly", per_second(single.rate), per_second(plain.rate, each), 8)
    yield seen("documents, written singly", per_second(single.rate), per_second(threads.rate, f"{each}, 8 threads"))
    yield seen("CPU of the client for a document, written singly", ms(single.cpu_s), ms(plain.cpu_s, each))
    yield at_least("documents, in batches", per_second(batched.rate), per_second(single.rate, "written singly"), 10)


def speed(entries: int, work: Callable[[Sequence[Entry]], object]) -> Speed:
    """How fast it writes so many documents that are new to the server."""
    some = [_entry() for _ in range(entries)]
    began, cpu_began = time.monotonic(), time.process_time()
    work(some)
    return Speed(entries / (time.monotonic() - began), (time.process_time() - cpu_began) / entries)


def _middle(speeds: Sequence[Speed]) -> Speed:
    return Speed(median(one.rate for one in speeds), median(one.cpu_s for one in speeds))


def post(server: Server, entry: Entry) -> None:
    """One document over a connection of its own."""
    requests.post(
        server.url + _PATH,
        json=document(entry.document, "bench"),
        headers={"Authorization": f"Bearer {TOKEN}"},
        verify=str(server.ca_file),
        timeout=10,
    ).raise_for_status()


def deliver(server: Server, entries: Sequence[Entry]) -> None:
    """All of them through the sink, as the agent does."""
    sink = CloudVisionJobs(CloudVision(server.url, Secret(text=TOKEN), server.ca_file), "bench")
    assert all(isinstance(outcome, Accepted) for _, outcome in sink.deliver(entries))
    sink.close()


def _entry() -> Entry:
    number = next(_numbers)
    first = number * 4 % 1000
    nodes = f"node[{first:04}-{first + 3:04}]"
    key = f"{number}@bench"
    return Entry(key, 1, JobConfig(key, number, 100, State.RUNNING, 110, None, f"train-{number % 97}", "batch", nodes))
