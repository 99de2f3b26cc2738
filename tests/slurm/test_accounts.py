"""Slurm's accounts, read and changed in a real slurmdbd."""

import pytest
from waiting import wait_until

from cvagent.clients.accounts import SlurmAccounts
from cvagent.clients.runner import NativeRunner
from cvagent.clients.sacctmgr_commands import Sacctmgr, cancel_jobs
from cvagent.errors import CommandFailed, Permanent, Retryable

MAKE = Sacctmgr("lab")


@pytest.fixture
def slurm(lab):
    """The lab's accounts; those that begin with t_ are gone afterwards."""
    ours = SlurmAccounts(NativeRunner(lab.bin_dir), "lab", 20)
    yield ours
    tree = ours.tree()
    for name, account in tree.accounts.items():
        if name.startswith("t_"):
            for user in account.users:
                lab.slurm("sacctmgr", "-i", "delete", "user", "where", f"name={user}", f"account={name}", check=False)
            lab.slurm("sacctmgr", "-i", "delete", "account", "where", f"name={name}", check=False)
    lab.slurm("sacctmgr", "-i", "delete", "qos", "where", "name=t_slow,t_fast", check=False)


def test_what_is_written_is_shown(lab, slurm):
    limits = {"cpu": 960_000_000, "mem": 102_400_000, "gres/gpu": 60}
    for command in (
        MAKE.add_account("t_customer", "root", ('Zo\u00eb\'s "big" | group\n', "t_customer")),
        MAKE.add_account("t_bert", "t_customer", ("", ""), limits),
        MAKE.add_users("t_bert", ["alice", "bob"], None),
        MAKE.set_limits("t_bert", {"gres/gpu": -1, "mem": 1_234_567}),
        MAKE.set_max_submitted("t_bert", 0),
    ):
        slurm.run(command)
        # Once more does no harm.
        slurm.run(command)
    account = slurm.tree().accounts["t_bert"]
    assert (account.parent, account.users, account.max_submitted) == ("t_customer", {"alice", "bob"}, 0)
    assert account.tres_minutes == {"cpu": 960_000_000, "mem": 1_234_567}
    said = lab.slurm("sacctmgr", "-nP", "show", "account", "t_customer", "format=description,organization")
    assert said == "zoe s big group|t_customer\n"
    slurm.run(MAKE.set_max_submitted("t_bert", None))
    slurm.run(MAKE.move_account("t_bert", "root"))
    account = slurm.tree().accounts["t_bert"]
    assert (account.parent, account.max_submitted) == ("root", None)


def test_a_qos_comes_and_goes_and_the_others_stay(lab, slurm):
    lab.slurm("sacctmgr", "-i", "add", "qos", "t_slow,t_fast", check=False)
    slurm.run(MAKE.add_account("t_bert", "root", ("", "")))
    lab.slurm("sacctmgr", "-i", "modify", "account", "where", "name=t_bert", "set", "qos=normal,t_fast")
    for _ in range(2):
        slurm.run(MAKE.add_qos("t_bert", "t_slow"))
    account = slurm.tree().accounts["t_bert"]
    assert (account.qos, account.default_qos) == ({"normal", "t_fast", "t_slow"}, "t_slow")
    for _ in range(2):
        slurm.run(MAKE.remove_qos("t_bert", "t_slow"))
    account = slurm.tree().accounts["t_bert"]
    assert (account.qos, account.default_qos) == ({"normal", "t_fast"}, "")


def test_what_is_gone_is_gone_from_the_database(lab, slurm):
    slurm.run(MAKE.add_account("t_bert", "root", ("", "")))
    slurm.run(MAKE.add_users("t_bert", ["alice"], None))
    for command in (MAKE.remove_user("t_bert", "alice"), MAKE.delete_account("t_bert", shared=False)):
        slurm.run(command)
        slurm.run(command)
    assert "t_bert" not in slurm.tree().accounts
    assert "t_bert" not in lab.slurm("sacctmgr", "-nP", "show", "account", "format=account").split()


def test_a_user_with_a_job_leaves_when_it_is_cancelled(lab, slurm):
    slurm.run(MAKE.add_account("t_bert", "root", ("", "")))
    slurm.run(MAKE.add_users("t_bert", ["alice"], None))
    # slurmctld hears of an association a moment later.
    job = wait_until(lambda: _submitted(lab, "t_bert"), 20, "a job in the new account")
    lab.wait_for(job, "RUNNING")
    with pytest.raises(Retryable, match="jobs are still active"):
        slurm.run(MAKE.remove_user("t_bert", "alice"))
    slurm.run(cancel_jobs("t_bert", "alice"))
    slurm.run(cancel_jobs("t_bert"))
    lab.wait_for_end(job)
    slurm.run(MAKE.remove_user("t_bert", "alice"))
    assert slurm.tree().accounts["t_bert"].users == frozenset()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (MAKE.add_users("t_nosuch", ["alice"], None), "This account 't_nosuch' doesn't exist"),
        (MAKE.add_account("t_x", "t_nosuch", ("", "")), "Parent account 't_nosuch' doesn't exist"),
        (MAKE.set_limits("proj-a", {"gres/nosuch": 5}), "no TRES known by type gres/nosuch"),
        (MAKE.add_qos("proj-a", "t_nosuch"), "You gave a bad qos 't_nosuch'"),
    ],
)
def test_a_refusal_comes_in_slurms_own_words(slurm, command, words):
    with pytest.raises(Permanent, match=words):
        slurm.run(command)


def test_while_slurmdbd_is_down_nothing_is_refused(make_lab):
    lab = make_lab(nodes=1)
    ours = SlurmAccounts(NativeRunner(lab.bin_dir), "lab", 3)
    for action, name in (("stop", "slurmdbd"), ("freeze", "slurmdbd"), ("stop", "mariadbd")):
        lab.daemon(action, name)
        with pytest.raises(Retryable) as raised:
            ours.run(MAKE.add_account("t_bert", "root", ("", "")))
        assert raised.value.everything
        with pytest.raises(CommandFailed):
            ours.tree()
        lab.daemon("thaw" if action == "freeze" else "start", name)
    ours.run(MAKE.add_account("t_bert", "root", ("", "")))
    assert "t_bert" in ours.tree().accounts


def _submitted(lab, account):
    """The id of a job of alice's; empty while slurmctld does not know that she may."""
    try:
        return lab.submit("-A", account)
    except AssertionError:
        return ""
