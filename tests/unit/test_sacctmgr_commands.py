"""What reaches sacctmgr, and what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvagent.clients.sacctmgr_commands import Sacctmgr, account_name, cancel_jobs, one_line, user_name
from cvagent.errors import Permanent

MAKE = Sacctmgr("lab")
HOSTILE = (
    "root",
    "",
    "a b",
    "a,b",
    "a;b",
    "a\nb",
    "a'b",
    'a"b',
    "a`b",
    "a=b",
    "--option",
    "-i",
    "+a",
    "../x",
    "Alice",
    "naïve",
    "a" * 300,
    "$(id)",
    "a|b",
    "a\x00b",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused_with_a_reason(name):
    for make in (
        lambda: MAKE.add_account(name, "root", ("", "")),
        lambda: (
            MAKE.add_account("x", name or "-", ("", "")) if name != "root" else MAKE.delete_account(name, shared=True)
        ),
        lambda: MAKE.set_limits(name, {"cpu": 1}),
        lambda: MAKE.delete_account(name, shared=False),
        lambda: MAKE.add_users("x", [name], None),
        lambda: MAKE.remove_user("x", name),
        lambda: MAKE.remove_user(name, "alice"),
        lambda: MAKE.set_default("alice", name),
        lambda: cancel_jobs(name),
        lambda: cancel_jobs("x", name or "-"),
    ):
        with pytest.raises(Permanent, match="that cvagent gives to Slurm"):
            make()


@pytest.mark.parametrize("name", ["alice", "alice.smith", "a_b-c", "user01", "_svc", "alice@example.org", "1234"])
def test_an_ordinary_user_name_is_taken(name):
    assert user_name(name) == name


def test_an_account_begins_with_no_operator():
    assert account_name("hpc_0-1_x") == "hpc_0-1_x"
    with pytest.raises(Permanent):
        account_name("-hpc")


@given(st.text(max_size=400))
def test_a_description_is_one_line_without_quotes(text):
    line = one_line(text)
    assert len(line) <= 120
    assert line.isascii()
    assert line.isprintable() or line == ""
    assert not set(line) & set("\"'`\\|\n")
    (said,) = [word for word in MAKE.add_account("x", "root", (text, "y")) if word.startswith("description=")]
    assert said == f"description={line or 'x'}"


@pytest.mark.parametrize("minutes", [-2, 2**62, 10**30])
def test_a_limit_that_slurm_would_take_for_none_is_refused(minutes):
    with pytest.raises(Permanent, match="is no limit"):
        MAKE.set_limits("x", {"cpu": minutes})


@pytest.mark.parametrize("tres", ["cpu=1,mem", "gres/gpu;x", "CPU ", "", "gres/"])
def test_a_tres_that_is_none_is_refused(tres):
    with pytest.raises(Permanent, match="is no TRES"):
        MAKE.set_limits("x", {tres: 1})


def test_every_command_names_the_cluster_and_asks_nobody():
    commands = [
        MAKE.add_account("x", "root", ("X", "x"), {"cpu": 60, "gres/gpu": -1}),
        MAKE.move_account("x", "y"),
        MAKE.set_limits("x", {"cpu": 0}),
        MAKE.set_max_submitted("x", 0),
        MAKE.set_max_submitted("x", None),
        MAKE.add_qos("x", "slow"),
        MAKE.remove_qos("x", "slow"),
        MAKE.add_users("x", ["b", "a"], None),
        MAKE.set_default("a", "x"),
        MAKE.remove_user("x", "a"),
        MAKE.delete_account("x", shared=True),
    ]
    assert all(command[:2] == ("sacctmgr", "-i") for command in commands)
    assert all("cluster=lab" in command for command in commands)
    # Else Slurm would keep an account without any cluster.
    assert MAKE.delete_account("x", shared=False) == ("sacctmgr", "-i", "delete", "account", "where", "name=x")
    assert "GrpTRESMins=cpu=60,gres/gpu=-1" in commands[0]
    assert "name=a,b" in commands[7]
