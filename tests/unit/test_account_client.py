"""Slurm's accounts behind a runner that says what it is told to. Real Slurm: tests/slurm/test_accounts.py."""

import pytest

from cvagent.clients.accounts import SlurmAccounts, tres_minutes
from cvagent.clients.sacctmgr_commands import Sacctmgr
from cvagent.errors import CommandFailed, Permanent, Retryable, Unreadable

ASSOC = b"root||||||normal\nroot||root||||normal\nhpc_a|root||cpu=100,mem=2G|5||normal,slow\nhpc_a||alice||||normal\n"
COMMAND = ("sacctmgr", "-i", "add", "account", "name=x")


class Said:
    """A runner that answers by the first words of a command: bytes, or an error to raise; a list is taken in turn."""

    def __init__(self, **answers):
        self.answers = {"assoc": ASSOC, "user": b"alice|hpc_a\nroot|root\n", "cluster": b"lab\n"} | answers
        self.commands = []

    def run(self, command, *, timeout_s, env=None):
        del timeout_s, env
        self.commands.append(tuple(command))
        what = next((word for word in command if word in self.answers), "other")
        answer = self.answers.get(what, b"")
        answer = answer.pop(0) if isinstance(answer, list) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer


def client(**answers):
    runner = Said(**answers)
    return SlurmAccounts(runner, "lab", 5), runner


def failed(stdout=b"", complaint="", exit_code=1, command="sacctmgr"):
    return CommandFailed(command, complaint or "exit code 1, no message", exit_code, stdout, complaint)


def test_the_tree_is_read_in_three_calls():
    slurm, runner = client()
    tree = slurm.tree()
    account = tree.accounts["hpc_a"]
    assert (account.parent, account.users, account.tres_minutes) == ("root", {"alice"}, {"cpu": 100, "mem": 2048})
    assert (account.max_submitted, account.qos, account.default_qos) == (5, {"normal", "slow"}, "")
    assert tree.defaults == {"alice": "hpc_a", "root": "root"}
    assert not tree.shared
    assert tree.accounts_of("alice") == ["hpc_a"]
    assert len(runner.commands) == 3


def test_a_database_of_several_clusters_is_shared():
    assert client(cluster=b"lab\nother\n")[0].tree().shared


@pytest.mark.parametrize("said", [b"", b"hpc_a|root|||||normal\n", b"garbage\n"])
def test_an_answer_without_root_is_not_believed(said):
    with pytest.raises(Unreadable, match="no root account on cluster lab"):
        client(assoc=said)[0].tree()


@pytest.mark.parametrize(
    "said", [ASSOC[:-1], ASSOC + b"x|root||cpu=lots|||normal\n", ASSOC + b"x|root|||many||normal\n"]
)
def test_half_an_answer_or_one_of_another_form_is_not_believed(said):
    with pytest.raises(Unreadable):
        client(assoc=said)[0].tree()


def test_a_command_that_fails_is_no_empty_tree():
    with pytest.raises(CommandFailed):
        client(assoc=failed(complaint="Connection refused"))[0].tree()


def test_an_account_whose_name_forges_records_is_left_out():
    tree = client(assoc=ASSOC + b"a|b|root|||||normal\nn\newline|root\n")[0].tree()
    assert set(tree.accounts) == {"root", "hpc_a"}


@pytest.mark.parametrize(
    "said", [b" Nothing new added.\n", b" Nothing modified\n", b" Nothing deleted\n", b"x already exists\n"]
)
def test_nothing_to_do_is_done(said):
    slurm, runner = client(add=failed(said))
    slurm.run(COMMAND)
    assert runner.commands == [COMMAND]


def test_nothing_to_do_with_a_complaint_is_a_refusal_in_slurms_own_words():
    slurm, runner = client(add=failed(b" Nothing new added.\n", "This account 'x' doesn't exist. Contact your admin"))
    with pytest.raises(Permanent, match=r"^sacctmgr: This account 'x' doesn't exist. Contact your admin$"):
        slurm.run(COMMAND)
    # It was believed only after slurmdbd had answered and refused again.
    assert [command[:4] for command in runner.commands] == [
        COMMAND[:4],
        ("sacctmgr", "-n", "-P", "-r"),
        COMMAND[:4],
    ]


def test_a_refusal_while_slurmdbd_is_down_is_none():
    down = failed(complaint="Some new words for no connection")
    with pytest.raises(Retryable) as raised:
        client(add=down, cluster=down)[0].run(COMMAND)
    assert raised.value.everything


def test_a_refusal_that_is_gone_the_second_time_is_none():
    client(add=[failed(complaint="Connection refused"), b"added"])[0].run(COMMAND)


@pytest.mark.parametrize(
    ("error", "everything"),
    [
        (failed(complaint="did not end within 5 s", exit_code=None), False),
        (failed(complaint="was ended by signal 9", exit_code=137), False),
        (failed(complaint="mkhomedir_helper: Permission denied", command="env"), False),
        (failed(complaint="Access/permission denied", command="scancel"), False),
        (failed(complaint="Problem adding accounts: Access/permission denied"), True),
        (failed(complaint="Error with request: Job(s) active, cancel job(s) before remove JobID = 12"), False),
        (failed(complaint="Unable to contact slurm controller", command="scancel"), False),
    ],
)
def test_what_may_succeed_later(error, everything):
    with pytest.raises(Retryable) as raised:
        client(add=error)[0].run(COMMAND)
    assert raised.value.everything is everything


@pytest.mark.parametrize("exit_code", [None, 137])
def test_a_command_that_is_cut_off_while_slurmdbd_is_down_holds_up_everything(exit_code):
    hanging = failed(complaint="did not end within 5 s", exit_code=exit_code)
    slurm, runner = client(add=hanging, cluster=hanging)
    with pytest.raises(Retryable) as raised:
        slurm.run(COMMAND)
    assert raised.value.everything
    assert len(runner.commands) == 2


def test_more_names_than_one_argument_holds_come_in_parts():
    names = [f"user{number:06d}" for number in range(12_000)]
    slurm, runner = client()
    slurm.run(Sacctmgr("lab").add_users("hpc_a", names, None))
    assert max(len(word) for command in runner.commands for word in command) < 128 * 1024
    assert [name for command in runner.commands for name in command[4].removeprefix("name=").split(",")] == names
    assert {command[:4] + command[5:] for command in runner.commands} == {
        ("sacctmgr", "-i", "add", "user", "account=hpc_a", "cluster=lab")
    }


def test_who_left_the_machine_can_still_leave_an_account():
    gone = failed(complaint="error: Invalid user name: dora", command="scancel")
    client(scancel=gone)[0].run(("scancel", "--account=x", "--user=dora"))


def test_limits_of_memory_are_read_with_their_unit():
    assert tres_minutes("mem=100000G") == {"mem": 102_400_000}
    assert tres_minutes("mem=1500M,cpu=3") == {"mem": 1500, "cpu": 3}
    assert tres_minutes("mem=1.50G") == {"mem": 1536}
    assert tres_minutes("gres/gpu:a100=2") == {"gres/gpu:a100": 2}
    assert tres_minutes("") == {}


def test_only_users_that_the_machine_knows_are_known():
    said = b"alice:x:20001:20001::/home/alice:/bin/sh\nadmin:x:0:0::/root:/bin/sh\nbob:x:20002:20002::/:/bin/sh\n"
    slurm, _ = client(getent=failed(said, exit_code=2, command="env"))
    # A number is looked up as a uid, and gets an answer with another name.
    assert slurm.known_users(frozenset({"alice", "admin", "20002", "nosuch"})) == {"alice"}
    with pytest.raises(CommandFailed):
        client(getent=failed(exit_code=1, command="env"))[0].known_users(frozenset({"alice"}))
