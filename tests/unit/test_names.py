"""What accounts are called."""

import re

from hypothesis import given
from hypothesis import strategies as st

from cvagent.clients.sacctmgr_commands import account_name
from cvagent.pull.names import NameRules, allocation_account, customer_account, project_account

UUIDS = st.text("0123456789abcdefABCDEF", min_size=32, max_size=32)
PREFIXES = st.text("abcXYZ09_-", max_size=8).filter(lambda text: not text.startswith("-"))
RULES = st.builds(NameRules, PREFIXES, PREFIXES, PREFIXES, st.integers(8, 200))


def spelled_out(uuid, name, rules):
    """The rule, letter by letter."""
    allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
    kept = [letter for letter in rules.allocation_prefix + uuid[:5] + "_" + name if letter in allowed]
    return "".join(kept[: rules.max_len]).lower()


@given(UUIDS, st.text(max_size=400), RULES)
def test_an_allocation_is_called_by_the_rule(uuid, name, rules):
    account = allocation_account(uuid, name, rules)
    assert account == spelled_out(uuid, name, rules)
    assert len(account) <= rules.max_len


@given(UUIDS, st.text(max_size=400), st.integers(8, 200))
def test_whatever_a_tenant_writes_slurm_takes_the_name(uuid, name, max_len):
    account = allocation_account(uuid, name, NameRules(max_len=max_len))
    assert re.fullmatch(r"[a-z0-9_-]+", account)
    assert account_name(account) == account


@given(UUIDS, RULES)
def test_customers_and_projects_are_called_by_their_uuid(uuid, rules):
    assert customer_account(uuid, rules) == rules.customer_prefix.lower() + uuid.lower()
    assert project_account(uuid, rules) == rules.project_prefix.lower() + uuid.lower()


def test_names_that_clusters_have():
    uuid = "9a1b2c3d4e5f60718293a4b5c6d7e8f9"
    rules = NameRules()
    assert customer_account(uuid, rules) == "hpc_9a1b2c3d4e5f60718293a4b5c6d7e8f9"
    assert allocation_account(uuid, "Protein Folding", rules) == "hpc_9a1b2_proteinfolding"
    assert allocation_account(uuid, "A-very_long.name (2026), third try of the year", rules) == (
        "hpc_9a1b2_a-very_longname2026third"
    )
    assert allocation_account(uuid, "", rules) == "hpc_9a1b2_"
    assert allocation_account(uuid, "../x", rules) == "hpc_9a1b2_x"
