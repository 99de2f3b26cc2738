"""What pull mode's check says about the agent's own rights, beside a slurmdbd that answers from a table."""

import os

import pytest

from cvagent.cli.check_accounts import check_accounts
from cvagent.clients.slurm import SlurmConfig
from cvagent.settings import Settings

NOBODY_UID = 4_242_424_242
ANSWERS = {"assoc": "root||||||\n", "user": "root|Administrator\n", "cluster": "lab\n", "tres": "cpu|\nmem|\n"}


class Sacctmgr:
    """A `Runner` that knows `sacctmgr show`."""

    def run(self, command, *, timeout_s, env=None):  # noqa: ARG002 - as a Runner is called
        return ANSWERS[command[command.index("show") + 1]].encode()


@pytest.fixture
def findings():
    settings = Settings(
        mode="pull",
        portal_url="https://portal.example.org",
        portal_token="token",
        portal_offering="a" * 32,
    )
    config = SlurmConfig("lab", "22.05.8", True, 300, ("none",), ("limits",))
    return lambda: {one.what: one for one in check_accounts(settings, Sacctmgr(), config)}


def test_a_uid_without_a_name(findings, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY_UID)
    assert findings()["rights"].ok is None
    assert f"uid {NOBODY_UID} has no name on this machine" in findings()["rights"].text
