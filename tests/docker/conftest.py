"""A Docker engine for the tests of this folder. Every test here is marked `docker`."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from compose_example import Example
from docker_engine import BASES, ROOT, Engine, folder_of_ours, why_not

SETUP_LIMIT_S = 400


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.docker)
            # Whatever comes first waits for the images to be made.
            item.add_marker(pytest.mark.timeout(SETUP_LIMIT_S))
    # What runs in the engine, health checks and agents, takes processor time from other tests: it comes last.
    items.sort(key=lambda item: here in item.path.parents)


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


@pytest.fixture(scope="session")
def any_example(engine, request, tmp_path_factory):
    """The compose example: `any_example.up("debian:trixie-slim")`."""
    engine.fetch_base("python:3.11-slim-bookworm")
    engine.fetch_compose()
    if any(item.path.name == "test_compose_releases.py" for item in request.session.items):
        for name in BASES:
            engine.fetch_base(name)
    engine.base("python:3.11-slim-bookworm")
    return Example(engine, tmp_path_factory.mktemp("example"))


@pytest.fixture
def example(any_example):
    """The compose example as it is: with Slurm 22.05."""
    return any_example.up("debian:bookworm-slim")
