import pytest
from standin_client import Client

from cvagent.standin import StandIn


@pytest.fixture
def stand_in():
    with StandIn() as running:
        yield running


@pytest.fixture
def client(stand_in):
    made = Client(stand_in)
    yield made
    made.session.close()


@pytest.fixture
def connect():
    """Make clients of other stand-ins."""
    made = []

    def make_client(stand_in, verify=True):
        made.append(Client(stand_in, verify))
        return made[-1]

    yield make_client
    for one in made:
        one.session.close()


@pytest.fixture(scope="module")
def shared_client():
    """A client of one stand-in for all tests of a file that need no fresh one."""
    with StandIn() as running:
        made = Client(running)
        yield made
        made.session.close()
