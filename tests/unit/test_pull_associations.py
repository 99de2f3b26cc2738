"""Whom a portal that keeps Slurm allocations is told of, and how."""

import pytest
from tenancy import ACCOUNT, a_resource, a_tenancy, a_tree, an_order, provided

from cvagent.errors import Permanent, Unreadable
from cvagent.model import Accepted, Change, Deferred, Entry, Known, Refused
from cvagent.model.errands import Associated, OrderAnswer, Verdict
from cvagent.model.orders import Association, Listing, ResourceState
from cvagent.pull.accounts import AccountRules
from cvagent.pull.associations import plan_associations
from cvagent.sinks.portal_associations import PortalAssociations

RESOURCE = a_resource()
TOLD = Associated(RESOURCE.uuid, RESOURCE.allocation_uuid, ACCOUNT, ("alice", "bob"))


def planned(*known, resource=RESOURCE, users=("bob", "alice", "root"), **fields):
    seen = a_tenancy(resources=(resource,), tree=a_tree(*provided(*users)), **fields)
    return plan_associations(seen, {told.key: Known(told) for told in known}, AccountRules("lab"))


def test_the_users_of_an_account_are_told_once():
    assert planned().changes == [Change(None, TOLD, "new")]
    plan = planned(TOLD)
    assert (plan.changes, plan.unchanged) == ([], 1)


def test_who_came_and_who_went():
    after = Associated(TOLD.key, TOLD.allocation, ACCOUNT, ("alice",))
    assert planned(TOLD, users=("alice",)).changes == [Change(TOLD, after, "changed")]
    assert str(after) == f"{ACCOUNT}: alice"


@pytest.mark.parametrize(
    "fields",
    [
        {"allocation_uuid": None},
        {"backend_id": ""},
        {"backend_id": "root"},
        {"backend_id": "hpc_not_there"},
        {"state": ResourceState.CREATING},
        {"state": ResourceState.TERMINATING},
        {"state": None},
    ],
)
def test_what_says_nothing_of_users(fields):
    assert planned(resource=a_resource(**fields)).changes == []


def test_a_portal_without_allocations_is_told_nothing():
    assert planned(keeps_allocations=False).changes == []


class Portal:
    """Believes in these users."""

    def __init__(self, *users, error=None):
        self.users = set(users)
        self.error = error
        self.told = []

    def associations(self, allocation):
        if isinstance(self.error, Unreadable):
            raise self.error
        assert allocation == TOLD.allocation
        return Listing(tuple(Association("0" * 32, user) for user in sorted(self.users)))

    def associate(self, resource, user):
        if self.error:
            raise self.error
        self.told.append((resource, "+", user))

    def dissociate(self, resource, user):
        self.told.append((resource, "-", user))


def outcome_of(portal, document=TOLD):
    (found,) = PortalAssociations(portal, lambda: None).deliver([Entry(document.key, 1, document)])
    return found[1]


def test_only_what_differs_is_told():
    portal = Portal("bob", "carol")
    assert outcome_of(portal) == Accepted()
    assert portal.told == [(TOLD.key, "+", "alice"), (TOLD.key, "-", "carol")]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(Unreadable("half a list"), Deferred("half a list")), (Permanent("400: who?"), Refused("400: who?"))],
)
def test_a_portal_that_does_not_take_it(error, outcome):
    portal = Portal("carol", error=error)
    assert outcome_of(portal) == outcome
    assert portal.told == []


def test_another_kind_of_document_is_refused():
    assert outcome_of(Portal(), OrderAnswer("o", Verdict.APPROVE, an_order().name)) == Refused(
        "o says nothing of an allocation's users"
    )
