"""A Docker engine for the tests of this folder. Every test here is marked `docker`."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from docker_engine import ROOT, Engine, folder_of_ours, why_not

SETUP_LIMIT_S = 400


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.docker)
            # Whatever comes first waits for the images to be made.
            item.add_marker(pytest.mark.timeout(SETUP_LIMIT_S))


@pytest.fixture(scope="session")
def engine():
    """The engine of this test session."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with ExitStack() as ending:
        yield Engine(folder_of_ours(ending), ending).start()


@pytest.fixture(scope="session")
def image(engine):
    """The name of the image that the Dockerfile makes."""
    engine.base("python:3.11-slim-bookworm")
    return engine.build(ROOT, "cvagent")
