"""Labs for the tests of this folder. Every test here is marked `slurm`."""

import itertools
from contextlib import ExitStack
from pathlib import Path

import pytest
from agent import Agent
from slurm_lab import Lab, folder_of_ours, why_not, wipe_leftovers
from tenants import Tenants

from cvagent.standin import StandIn
from cvagent.standin.portal import PortalStandIn

# A requeued job runs again after 7 s instead of 2 minutes, and a dead node is noticed in 15 s instead of 45.
QUICK = {"cred_expire": 5, "slurmd_timeout": 10, "message_timeout": 5}
NUMBERS = itertools.count(1)


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def _slurm():
    reason = why_not()
    if reason:
        pytest.skip(reason)
    wipe_leftovers()


@pytest.fixture(scope="session")
def lab(_slurm):
    """A lab of four nodes for all tests that leave it as they found it."""
    ours = Lab(folder_of_ours(next(NUMBERS)), nodes=4, **QUICK)
    try:
        yield ours.start()
    finally:
        ours.stop()


@pytest.fixture(scope="module")
def lab_of_file(_slurm):
    """A lab of two nodes for the tests of one file alone."""
    ours = Lab(folder_of_ours(next(NUMBERS)), nodes=2, **QUICK)
    try:
        yield ours.start()
    finally:
        ours.stop()


@pytest.fixture(autouse=True)
def _leave_no_job(request):
    """Carol's jobs may outlast a test."""
    yield
    if "lab" in request.fixturenames:
        for user in ("root", "alice"):
            request.getfixturevalue("lab").slurm("scancel", "-u", user)


@pytest.fixture
def make_lab(_slurm):
    """Makes labs for one test alone: `make_lab(nodes=2, accounting=0)`."""
    made = []

    def make(**settings) -> Lab:
        made.append(Lab(folder_of_ours(next(NUMBERS)), **{**QUICK, **settings}))
        return made[-1].start()

    try:
        yield make
    finally:
        for ours in made:
            ours.stop()


@pytest.fixture
def stand_in():
    """A CloudVision for one test. What a correct agent never causes fails the test."""
    with StandIn() as ours:
        yield ours
        assert ours.violations == []


@pytest.fixture
def make_agent(tmp_path):
    """Makes agents for one test: `make_agent(lab, stand_in, store="file", job_interval_s=2).start()`."""
    with ExitStack() as made:

        def make(lab: Lab, stand_in: StandIn, **settings) -> Agent:
            agent = Agent(tmp_path / f"agent-{next(NUMBERS)}", lab, stand_in, **settings)
            made.callback(agent.close)
            return agent

        yield make


@pytest.fixture
def make_tenants(lab, tmp_path):
    """Makes a portal of a dialect, in front of the lab: `make_tenants("waldur")`. No account of theirs stays."""
    with ExitStack() as made:

        def make(dialect="waldur", **settings) -> Tenants:
            portal = made.enter_context(PortalStandIn(dialect))
            tenants = Tenants(lab, portal, tmp_path, **settings)
            made.callback(tenants.wipe)
            return tenants

        yield make


@pytest.fixture
def tenants(make_tenants):
    """Today's portal in front of the lab."""
    return make_tenants()
