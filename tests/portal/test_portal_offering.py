"""What is sold, from the components file to the offering, in each dialect."""

import pytest

from cvagent.clients.portal_offering import PortalOffering
from cvagent.errors import Permanent, Retryable, SourceError
from cvagent.model.components import Accounting, Component
from cvagent.standin.portal import OFFERING
from cvagent.standin.portal import Component as Sold

CPU = Component("cpu", "CPU", "k-Hours", Accounting.USAGE)
GPU = Component("gres/gpu", "GPU", "Hours", Accounting.LIMIT)


@pytest.fixture
def offering(portal, market):
    market.components.clear()
    return PortalOffering(portal, OFFERING)


def sold(market):
    return {one.type: (one.name, one.measured_unit, one.billing_type) for one in market.components.values()}


BOTH = {"cpu": ("CPU", "k-Hours", "usage"), "gres/gpu": ("GPU", "Hours", "limit")}


def test_what_is_not_sold_yet_is_declared_once(offering, market, stand_in):
    assert len(offering.declare([CPU, GPU])) == 2
    assert sold(market) == BOTH
    asked = stand_in.requests_total
    assert offering.declare([CPU, GPU]) == []
    assert stand_in.requests_total - asked == 1


def test_what_else_is_sold_stays(offering, market):
    market.components["mem"] = Sold("mem", "RAM", "GiB", "usage")
    offering.declare([CPU])
    assert sold(market) == {"mem": ("RAM", "GiB", "usage"), "cpu": BOTH["cpu"]}


def test_what_is_sold_otherwise_is_changed_where_that_can_be(offering, market, dialect):
    market.components["cpu"] = Sold("cpu", "Processors", "hours", "usage")
    offering.declare([CPU])
    changed = BOTH["cpu"] if dialect != "orders" else ("Processors", "hours", "usage")
    assert sold(market) == {"cpu": changed}


def test_there_is_no_such_offering(portal):
    with pytest.raises(SourceError, match=r"no offering f{32} that this token sees"):
        PortalOffering(portal, "f" * 32).declare([CPU])


@pytest.mark.parametrize(("fault", "error"), [("503", SourceError), ("ok*1,503", Retryable), ("ok*1,400", Permanent)])
def test_trouble(offering, market, stand_in, fault, error):
    stand_in.faults(fault)
    with pytest.raises(error):
        offering.declare([CPU])
    assert sold(market) == {}
