"""What `cvagent drift` asks the portal, and the mend that it proposes for it."""

import subprocess

import pytest
from tenancy import a_tenancy, a_tree

from cvagent.model import Ask
from cvagent.model.accounts import Account
from cvagent.pull.accounts import AccountRules
from cvagent.pull.drift import DriftRules, find_drift
from cvagent.pull.members import MemberRules
from cvagent.sources.members import MemberSource

ASK = Ask(now=100, since=0, known={}, cold=False)
RULES = DriftRules(AccountRules("lab"), MemberRules("lab"), None)


class Around:
    """What a flow would have read of the portal, which is nothing, and a cluster with some accounts."""

    fresh_s = 0.0

    def __init__(self, orders, *accounts):
        self._seen = a_tenancy(
            tree=a_tree(*(Account(name, "root") for name in accounts)), keeps_allocations=orders.keeps_allocations
        )

    def observe(self, ask):
        del ask
        return self._seen

    def known_users(self, names):
        return names


@pytest.fixture
def look(orders):
    """The observation of `cvagent drift`, with these accounts."""

    def look(*accounts):
        around = Around(orders, *accounts)
        return MemberSource(around, orders, around, "offering", 0).observe_all(ASK)

    return look


def test_a_resource_in_whatever_state_is_seen_unless_it_is_terminated(look, allocate):
    resources = [allocate(f"a{number}") for number in range(4)]
    resources[1].state, resources[2].state, resources[3].state = "Erred", "Melting", "Terminated"
    seen = look("hpc_a0", "hpc_0abcd_stray")
    there = {uuid: one.state.value if one.state else None for uuid, one in seen.tenancy.resources.items()}
    assert there == {resources[0].uuid: "OK", resources[1].uuid: "Erred", resources[2].uuid: None}


def test_an_account_of_a_resource_in_an_unknown_state_is_left_alone(look, allocate):
    allocate().state = "Melting"
    allocate(backend_id="hpc_0abcd_bert").state = "Melting"
    stray = {one.what for one in find_drift(look("hpc_0abcd_bert", "hpc_0abcd_stray"), None, None, RULES)}
    assert stray == {"hpc_0abcd_stray"}


def test_the_mend_writes_the_backend_id(look, allocate, stand_in, tmp_path):
    resource = allocate(backend_id="")
    uuid = resource.allocation.uuid if resource.allocation else resource.uuid
    (drift,) = find_drift(look(f"hpc_{uuid[:5]}_training"), None, None, RULES)
    (mend,) = drift.mend
    (tmp_path / "token").write_text(stand_in.token)
    environ = {"CVAGENT_PORTAL_URL": f"{stand_in.url}/", "CVAGENT_PORTAL_TOKEN_FILE": str(tmp_path / "token")}
    environ |= {"PATH": "/usr/bin:/bin", "NO_PROXY": "*"}
    subprocess.run(mend, env=environ, check=True, capture_output=True, timeout=20)
    assert resource.backend_id == f"hpc_{uuid[:5]}_training"
    assert "the portal has no backend id for it" not in {one.how for one in find_drift(look(), None, None, RULES)}
