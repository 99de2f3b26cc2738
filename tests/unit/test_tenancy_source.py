"""One look at the portal and Slurm for all flows, beside what our own sinks hold."""

import pytest
from tenancy import a_resource, a_tree, an_order

from cvagent.errors import Unreadable
from cvagent.model import Ask
from cvagent.model.orders import Listing, ResourceState
from cvagent.model.tenancy import Failure
from cvagent.sources.tenancy import TenancySource

ASK = Ask(now=100, since=0, known={}, cold=True)
REFUSED = {"order-1": Failure((("sacctmgr",),), "no such thing")}


class Portal:
    """Has nothing."""

    keeps_allocations = False

    def orders(self):
        return Listing(())

    def resources(self, states):
        del states
        return Listing(())


class Beside:
    """Slurm, and what our sinks hold. While Slurm is looked at, it refuses an order's commands."""

    def __init__(self):
        self.looks = 0
        self.refused = {}

    def tree(self):
        self.looks += 1
        self.refused = REFUSED
        return a_tree()

    def failures(self):
        return self.refused

    def shown(self):
        return set()


def test_what_slurm_refuses_during_a_look_counts_from_the_next_look_on():
    beside = Beside()
    source = TenancySource(Portal(), beside, beside, 60)
    assert source.observe(ASK).failures == {}
    # A sink says so after each command.
    source.forget()
    assert source.observe(ASK).failures == REFUSED
    assert beside.looks == 2
    source.observe(ASK)
    assert beside.looks == 2


class Odd(Portal):
    """Has an order for a resource that no list by state holds."""

    def __init__(self, answer):
        self.answer = answer

    def orders(self):
        return Listing((an_order(),))

    def resource(self, uuid):
        assert uuid == an_order().resource_uuid
        if self.answer is Unreadable:
            raise Unreadable("half a resource")
        return self.answer


@pytest.mark.parametrize(
    ("answer", "there"),
    [
        (a_resource(state=None), True),
        (a_resource(state=ResourceState.TERMINATED), False),
        (None, False),
        (Unreadable, False),
    ],
)
def test_what_an_order_is_about_is_asked_for_when_no_list_holds_it(answer, there):
    beside = Beside()
    seen = TenancySource(Odd(answer), beside, beside, 60).observe(ASK)
    assert list(seen.resources.values()) == ([answer] if there else [])
