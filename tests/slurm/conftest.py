"""Labs for the tests of this folder. Every test here is marked `slurm`."""

import itertools
from pathlib import Path

import pytest
from slurm_lab import Lab, folder_of_ours, why_not, wipe_leftovers

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
