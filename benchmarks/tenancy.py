"""What pull mode costs: a round over many allocations in which nothing changed, and how fast the first ones come in.

No team is read in such a round, and no tenant is told: see docs/performance.md.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event
from typing import Any

from benchmarks.measure import Reading, Row, at_least, below, median, ms, own_cpu_s, scratch
from benchmarks.slurm_lab import RealSlurm, real_slurm
from cvagent.api.observer import Board
from cvagent.app import Billing, SystemClock, flows_for, make_sinks, rules_for
from cvagent.app.pull import Pull
from cvagent.clients.runner import Runner
from cvagent.loops import Collector, Courier, Horizon, run_out
from cvagent.ports import Surroundings
from cvagent.settings import Settings
from cvagent.standin.portal import PortalStandIn
from cvagent.standin.portal.objects import Customer, Person, Project
from cvagent.store.outbox import SqlOutbox

ALLOCATIONS = 1000
MEMBERS = 10
# A bare sacctmgr call takes half a second: a thousand allocations would take a quarter of an hour, twice.
IMPORTED = 60
_ROUNDS = 5
_PAGE = 300
_COMPONENTS = "cpu: {limit: 1, measured_unit: k-Hours, unit_factor: 60000, accounting_type: usage}\n"
_CUSTOMER, _PROJECT = f"hpc_{'c' * 32}", f"hpc_{'d' * 32}"
_PEOPLE = [f"user{number}" for number in range(MEMBERS)]


def measure() -> Iterator[Row]:
    """See the module."""
    logging.getLogger("cvagent").setLevel(logging.ERROR)
    with _portal(ALLOCATIONS, settled=True) as (portal, settings):
        runner = _Replay()
        with _agent(settings, runner) as turn:
            # The first round reads the teams, too; those that follow are over before that is due again.
            turn()
            runner.calls, before = 0, _requests(portal)
            cpu_s = median(lambda: own_cpu_s(turn), _ROUNDS)
            calls, requests = runner.calls // _ROUNDS, (_requests(portal) - before) // _ROUNDS
    name = f"round of pull mode over {ALLOCATIONS:,} allocations of {MEMBERS} members, nothing changed"
    pages = -(-ALLOCATIONS // _PAGE)
    yield below(f"CPU of a {name}", ms(cpu_s), ms(3))
    yield Row(f"sacctmgr calls of a {name}", f"{calls}", goal="at most 3", met=calls <= 3)
    yield Row(
        f"portal requests of a {name}", f"{requests}", goal=f"at most {pages} pages and 2", met=requests <= pages + 2
    )
    yield _import()


def _import() -> Row:
    """The first allocations of all, from orders to members, beside bare calls that do as much."""
    with _portal(IMPORTED, settled=False) as (_, settings), real_slurm() as lab:
        runner = _Welcoming(lab)
        with _agent(settings, runner) as turn:
            began = time.monotonic()
            turn()
            rate = IMPORTED / (time.monotonic() - began)
        began = time.monotonic()
        lab.say("sacctmgr", "-i", "add", "account", "bare")
        for number in range(IMPORTED):
            limits = "GrpTRESMins=cpu=60000"
            lab.say("sacctmgr", "-i", "add", "account", f"bare{number}", "parent=bare", limits)
            lab.say("sacctmgr", "-i", "add", "user", f"name={','.join(_PEOPLE)}", f"account=bare{number}")
        bare = IMPORTED / (time.monotonic() - began)
    name = f"first import of {IMPORTED} allocations of {MEMBERS} members, portal and all"
    return at_least(name, _per_minute(rate, "in all"), _per_minute(bare, "with bare sacctmgr calls"), 0.5)


def _per_minute(rate: float, what: str) -> Reading:
    return Reading(rate, f"{rate * 60:.0f} a minute {what}")


class _Replay:
    """A runner that answers as a Slurm in which every allocation stands."""

    def __init__(self) -> None:
        self.calls = 0
        rows = ["root||||||normal", "root||root||||normal", f"{_CUSTOMER}|root|||||normal"]
        rows.append(f"{_PROJECT}|{_CUSTOMER}|||||normal")
        for number in range(ALLOCATIONS):
            rows.append(f"{_account(number)}|{_PROJECT}||cpu=60000|||normal")
            rows += [f"{_account(number)}||{name}||||normal" for name in _PEOPLE]
        users = ["root|root", *(f"{name}|{_account(0)}" for name in _PEOPLE)]
        told = {"assoc": rows, "user": users, "cluster": ["bench"]}
        self._answers = {name: "".join(f"{row}\n" for row in found).encode() for name, found in told.items()}

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> bytes:
        """See Runner."""
        del timeout_s, env
        self.calls += 1
        return self._answers[command[5]]

    def stop(self) -> None: ...


class _Welcoming(RealSlurm):
    """The real one, which knows everybody as a user."""

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> bytes:
        """See Runner."""
        if "getent" in command:
            return "".join(f"{name}:x:{number}:::\n" for number, name in enumerate(_PEOPLE, 20_000)).encode()
        return super().run(command, timeout_s=timeout_s, env=env)


@contextmanager
def _agent(settings: Settings, runner: Runner) -> Iterator[Any]:
    """What one call of makes an agent's rounds and deliveries, until none is a reason to look again."""
    cluster = "lab" if isinstance(runner, RealSlurm) else "bench"
    with ExitStack() as stack:
        outbox = stack.enter_context(closing(SqlOutbox("sqlite://", cluster)))
        billing = Billing(settings)
        stack.callback(billing.portal.close)
        flows = flows_for(settings)
        pull = Pull(settings, cluster, runner, outbox, billing)
        board = Board({flow.name: 0.0 for flow in flows}, {sink: 0.0 for flow in flows for sink in flow.sinks})
        around = Surroundings(outbox, SystemClock(), board, lambda _: None, Event())
        collectors = [
            Collector(flow, pull.source(flow), rules_for(flow.name, settings, cluster), Horizon(0), around)
            for flow in flows
        ]
        couriers = [Courier(sink, 1.0, around) for sink in make_sinks(settings, cluster, flows, billing, pull)]

        def turn() -> None:
            # What is written, or the next interval, makes a new look.
            pull.tenancy.forget()
            assert run_out(collectors, couriers)

        yield turn


@contextmanager
def _portal(allocations: int, *, settled: bool) -> Iterator[tuple[Connection, Settings]]:
    """A stand-in in a process of its own with so many allocations, or orders for them; and what an agent is set to."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, allocations, settled))
    process.start()
    try:
        url, token, offering = ours.recv()
        with scratch() as folder:
            yield ours, _settings(url, token, offering, folder)
    finally:
        ours.send("end")
        process.join()


def _settings(url: str, token: str, offering: str, folder: Path) -> Settings:
    (folder / "components.yaml").write_text(_COMPONENTS)
    return Settings(
        cloudvision_url="https://cvp",
        cloudvision_token="none",  # noqa: S106
        mode="pull",
        portal_url=url,
        portal_token=token,
        portal_offering=offering,
        components_file=folder / "components.yaml",
        tenant_nodes="",
    )


def _requests(portal: Connection) -> int:
    portal.send("count")
    return int(portal.recv())


def _serve(pipe: Connection, allocations: int, settled: bool) -> None:
    """The portal's process: answers "count", and ends at anything else."""
    with PortalStandIn() as stand_in:
        market = stand_in.market
        people = [Person(name, name, name) for name in _PEOPLE]
        project = market.add_project(Project("many", Customer("many", "c" * 32), people, "d" * 32))
        for number in range(allocations):
            order = market.create(project, f"a{number}", {})
            if settled:
                order.state, order.resource.state, order.resource.backend_id = "done", "OK", _account(number)
        pipe.send((stand_in.url, stand_in.token, market.offering))
        while pipe.recv() == "count":
            pipe.send(market.requests_total)


def _account(number: int) -> str:
    return f"hpc_a{number:04x}_a{number}"
