"""Where portal and Slurm differ, and what is proposed: never the end of an account that may be somebody's."""

import shlex

import pytest
from tenancy import (
    ACCOUNT,
    CUSTOMER_ACCOUNT,
    OWNER,
    PROJECT_ACCOUNT,
    a_resource,
    a_tenancy,
    a_tree,
    an_order,
    provided,
)

from cvagent.model.accounts import Account
from cvagent.model.orders import OrderKind, ResourceState
from cvagent.model.tenancy import Members
from cvagent.pull.accounts import AccountRules
from cvagent.pull.drift import DriftRules, find_drift
from cvagent.pull.members import MemberRules


def without_limits(number=1, **fields):
    return a_resource(number, **({"limits": {}} | fields))


OTHER = without_limits(9, owner=OWNER._replace(project_uuid="e" * 32))
OTHER_TREE = (Account(f"hpc_{'e' * 32}", CUSTOMER_ACCOUNT), Account(OTHER.backend_id, f"hpc_{'e' * 32}"))


def found(*accounts, resources=(), orders=(), **fields):
    """By account, what differs and its mend, beside a resource of another project that is as it should be."""
    rules = DriftRules(AccountRules("lab"), MemberRules("lab"), None)
    tree = a_tree(*accounts, *OTHER_TREE, defaults={"bob": ACCOUNT})
    seen = a_tenancy(*orders, resources=(OTHER, *resources), tree=tree, **fields)
    differences = find_drift(Members(seen, {}), None, None, rules)
    return {
        one.what: (one.how, [shlex.join(command) for command in one.mend])
        for one in differences
        if one.how != "its place or its limits differ"
    }


def test_an_account_of_no_resource():
    said = found(*provided("bob", "alice"))
    assert said == {
        ACCOUNT: (
            "the portal has no such allocation",
            [
                f"scancel --account={ACCOUNT}",
                f"sacctmgr -i delete user where name=alice account={ACCOUNT} cluster=lab",
                f"sacctmgr -i delete user where name=bob account={ACCOUNT} cluster=lab",
                f"sacctmgr -i delete account where name={ACCOUNT}",
            ],
        )
    }


@pytest.mark.parametrize("users", [("root",), ("Bob Smith",)])
def test_what_a_person_must_see_to_has_no_mend(users):
    how, mend = found(*provided(*users))[ACCOUNT]
    assert how.startswith("the portal has no such allocation, and ")
    assert mend == []
    how, mend = found(*provided(), Account("sub", ACCOUNT))[ACCOUNT]
    assert (how, mend) == ("the portal has no such allocation, and it has others below it: sub", [])


@pytest.mark.parametrize("state", [*ResourceState, None])
@pytest.mark.parametrize("backend_id", [ACCOUNT.upper(), ""])
def test_nobodys_end_is_proposed_whose_resource_is_there_in_whatever_state(state, backend_id):
    resource = without_limits(state=state, backend_id=backend_id)
    how, mend = found(*provided("alice"), resources=(resource,)).get(ACCOUNT, ("", []))
    assert "no such allocation" not in how
    assert not any("delete" in line for line in mend)


@pytest.mark.parametrize("fields", [{"name": "renamed"}, {"allocation_uuid": None, "uuid": "a0000" + "1" * 27}])
def test_nobodys_end_is_proposed_that_may_be_a_resources_without_a_name(fields):
    assert found(*provided("alice"), resources=(without_limits(backend_id="", **fields),)).keys() <= {ACCOUNT}
    how, _ = found(*provided("alice"), resources=(without_limits(backend_id="", **fields),)).get(ACCOUNT, ("", ()))
    assert "no such allocation" not in how


def test_nobodys_end_is_proposed_that_an_order_is_about():
    for kind in OrderKind:
        assert found(*provided("alice"), orders=(an_order(kind=kind),)) == {}
        assert found(*provided("alice"), orders=(an_order(kind=kind, allocation_uuid=None, backend_id=ACCOUNT),)) == {}


@pytest.mark.parametrize(("keeps", "route"), [(True, "resources"), (False, "provider-resources")])
def test_an_account_whose_name_the_portal_does_not_hold(keeps, route):
    uuid = "a0000" + "1" * 27
    resource = without_limits(uuid=uuid, backend_id="", allocation_uuid=uuid if keeps else None)
    how, (mend,) = found(*provided("alice"), resources=(resource,), keeps_allocations=keeps)[ACCOUNT]
    assert how == "the portal has no backend id for it"
    assert f"/api/marketplace-{route}/{uuid}/set_backend_id/" in mend
    assert f'{{"backend_id": "{ACCOUNT}"}}' in mend
    order = an_order(resource_uuid=uuid)
    assert found(*provided("alice"), resources=(resource,), keeps_allocations=keeps, orders=(order,)) == {}
    assert (
        found(*provided(), resources=(resource, without_limits(3, backend_id=ACCOUNT)), keeps_allocations=keeps) == {}
    )


def test_an_account_of_a_project_without_allocations():
    empty = provided()[:2]
    mend = [f"sacctmgr -i delete account where name={PROJECT_ACCOUNT}"]
    assert found(*empty) == {PROJECT_ACCOUNT: ("its project has no allocation any more", mend)}


@pytest.mark.parametrize(
    "fields",
    [
        {"resources": (without_limits(state=ResourceState.CREATING, backend_id=""),)},
        {"resources": (without_limits(state=None, backend_id=""),)},
        {"orders": (an_order(),)},
        {"problems": ("resource 'x' cannot be read",)},
    ],
)
def test_an_account_of_a_project_that_may_have_allocations_stays(fields):
    assert found(*provided()[:2], **fields) == {}


def test_an_account_of_a_project_with_anything_in_it_stays():
    customer, project, _ = provided()
    assert found(customer, project._replace(users=frozenset({"alice"}))) == {}
    assert found(customer, project, Account("theirs", PROJECT_ACCOUNT)) == {}
    assert found(customer, project._replace(parent="root")) == {}
