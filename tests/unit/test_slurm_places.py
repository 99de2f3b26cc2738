"""Which nodes belong to which account, from what Slurm prints."""

import pytest

from cvagent.clients.slurm_places import SlurmPlaces
from cvagent.errors import CommandFailed, Unreadable

RESERVATIONS = (
    b"ReservationName=t1 StartTime=x Nodes=node[1-2] NodeCnt=2 Users=(null) Accounts=proj-a,B State=ACTIVE X=\n"
    b"ReservationName=later Nodes=node3 Accounts=proj-a State=INACTIVE X=\n"
    b"ReservationName=others Nodes=node4 Accounts=-proj-a State=ACTIVE X=\n"
    b"ReservationName=cores Nodes=(null) Accounts=proj-c State=ACTIVE X=\n"
)
PARTITIONS = (
    b"PartitionName=batch AllowGroups=ALL AllowAccounts=ALL Nodes=node[1-4] State=UP\n"
    b"PartitionName=own AllowGroups=ALL AllowAccounts=proj-a Nodes=node[1-2] State=UP\n"
    b"PartitionName=two AllowGroups=ALL AllowAccounts=proj-a,proj-b Nodes=node3 State=UP\n"
)


class Says:
    def __init__(self, answer):
        self.answer = answer

    def run(self, command, *, timeout_s, env=None):
        del command, timeout_s, env
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def places(answer):
    return SlurmPlaces(Says(answer), 5)


def test_active_reservations_by_account():
    assert places(RESERVATIONS).reservations() == {"proj-a": ["node[1-2]"], "b": ["node[1-2]"]}


def test_partitions_of_one_account_alone():
    assert places(PARTITIONS).partitions() == {"proj-a": ["node[1-2]"]}


def test_running_jobs_by_account():
    said = b"proj-a\x1enode1\x1e\nPROJ-A\x1enode2\x1e\nproj-b\x1e\x1e\n"
    assert places(said).jobs() == {"proj-a": ["node1", "node2"]}


def test_none_is_none():
    assert places(b"No reservations in the system\n").reservations() == {}
    assert places(b"").jobs() == {}


@pytest.mark.parametrize("question", ["reservations", "partitions", "jobs"])
def test_garbage_and_no_answer_are_no_empty_answer(question):
    with pytest.raises(Unreadable):
        getattr(places(b"slurm_load: zero bytes\n"), question)()
    with pytest.raises(CommandFailed):
        getattr(places(CommandFailed("scontrol", "down", 1)), question)()
