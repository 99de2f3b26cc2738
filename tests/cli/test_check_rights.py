"""What check says about the agent's own rights, beside a slurmdbd that answers from a table."""

import os
import pwd

import pytest

from cvagent.cli.check_accounts import check_accounts
from cvagent.cli.check_rights import check_rights
from cvagent.clients.slurm import SlurmConfig
from cvagent.errors import CommandFailed
from cvagent.settings import Settings

NAMELESS = 4_242_424_242
SOMEBODY = next(entry for entry in pwd.getpwall() if entry.pw_uid)
CONFIG = SlurmConfig("lab", "22.05.8", accounting=True, min_job_age_s=300, private_data=("none",), enforced=("limits",))
# As sacctmgr of Slurm 22.05 prints it; the first half is slurm.conf's.
CONFIGURATION = """Configuration data as of 2026-11-28T09:30:05
PrivateData            = none
SlurmUserId            = root(0)

SlurmDBD configuration:
PrivateData            = {private}
SlurmUser              = {user}
"""


class Sacctmgr:
    """A `Runner` that knows `sacctmgr show`."""

    def __init__(self, private="none", level="None", user="root(0)"):
        self.answers = {
            "assoc": "root||||||\n",
            "user": f"root|Administrator\n{SOMEBODY.pw_name}|{level}\n",
            "cluster": "lab\n",
            "tres": "cpu|\nmem|\n",
            "configuration": CONFIGURATION.format(private=private, user=user),
        }

    def run(self, command, *, timeout_s, env=None):  # noqa: ARG002 - as a Runner is called
        what = command[command.index("show") + 1]
        if what not in self.answers:
            raise CommandFailed("sacctmgr", "Connection refused", 1)
        return self.answers[what].encode()


@pytest.fixture(autouse=True)
def agent(monkeypatch):
    """Let the agent run as this uid."""
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY.pw_uid)
    return lambda uid: monkeypatch.setattr(os, "geteuid", lambda: uid)


def pull():
    return Settings(
        mode="pull", portal_url="https://portal.example.org", portal_token="token", portal_offering="a" * 32
    )


def rights(check, slurmdbd):
    return [(one.ok, one.text) for one in check(pull(), slurmdbd, CONFIG) if one.what == "rights"]


def test_who_may_change_accounts(agent):
    assert rights(check_accounts, Sacctmgr(level="Operator")) == []
    [(good, text)] = rights(check_accounts, Sacctmgr())
    assert (good, text.split()[0]) == (False, SOMEBODY.pw_name)
    agent(NAMELESS)
    [(good, text)] = rights(check_accounts, Sacctmgr())
    assert good is None
    assert text.startswith(f"uid {NAMELESS} has no name on this machine")


@pytest.mark.parametrize(
    "answers",
    [
        {"private": "none"},
        {"private": "users,accounts"},
        {"private": "jobs", "level": "Operator"},
        {"private": "users,jobs", "level": "Administrator"},
        {"private": "jobs", "user": f"somebody({SOMEBODY.pw_uid})"},
    ],
)
def test_who_sees_all_jobs(answers):
    assert rights(check_rights, Sacctmgr(**answers)) == []


def test_root_sees_all_jobs_and_is_not_asked_about(agent):
    agent(0)
    assert rights(check_rights, Sacctmgr(private="jobs")) == []


def test_jobs_that_slurmdbd_hides(agent):
    [(good, text)] = rights(check_rights, Sacctmgr(private="users,jobs"))
    assert good is False
    assert text.startswith("PrivateData=jobs in slurmdbd.conf: sacct shows this user its own jobs alone; as an admin")
    agent(NAMELESS)
    [(good, text)] = rights(check_rights, Sacctmgr(private="jobs"))
    assert (good, f"uid {NAMELESS}" in text) == (None, True)


def test_a_slurmdbd_that_does_not_say():
    silent = Sacctmgr()
    del silent.answers["configuration"]
    [(good, text)] = rights(check_rights, silent)
    assert (good, "no telling" in text) == (None, True)
