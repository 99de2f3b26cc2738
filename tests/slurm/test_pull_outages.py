"""Pull mode while something is down or talks nonsense: nothing wrong is written, and all is right when it is back."""

from functools import partial

import pytest
from tenants import Tenants

from cvagent.app import billing
from cvagent.clients.portal import Portal
from cvagent.clients.runner import NativeRunner
from cvagent.standin.portal import PortalStandIn


@pytest.fixture
def busy(tenants):
    """An allocation that stands, one to come, and one to go."""
    standing, going = tenants.order("standing"), tenants.order("going")
    tenants.once()
    going = tenants.terminate(going.resource)
    return tenants, standing, tenants.order("coming"), going


@pytest.mark.parametrize(
    "faults", ["500*99", "garbage*99", "reset*99", "ok*1,500*99", "ok*1,garbage*99", "403*99", "401*99"]
)
def test_a_portal_in_trouble_changes_nothing(busy, faults):
    tenants, standing, coming, going = busy
    before = tenants.accounts()
    tenants.portal.faults(faults)
    agent = tenants.once()
    assert agent.observer.skipped
    assert tenants.accounts() == before
    tenants.portal.faults("")
    tenants.once()
    assert [order.state for order in (standing, coming, going)] == ["done"] * 3
    assert tenants.account(standing.resource.backend_id)[1] == ["alice", "bob"]
    assert len(tenants.accounts()) == 4


def test_a_portal_that_is_down_or_loses_what_it_is_told(busy):
    tenants, standing, coming, going = busy
    before = tenants.accounts()
    tenants.portal.down()
    assert tenants.once().observer.skipped
    assert tenants.accounts() == before
    tenants.portal.up()
    # What is written arrives, and the answer is lost on the way.
    tenants.portal.faults("ok*2,lost*1")
    tenants.once()
    tenants.portal.faults("")
    tenants.once()
    assert [order.state for order in (standing, coming, going)] == ["done"] * 3
    assert tenants.account(coming.resource.backend_id)[1] == ["alice", "bob"]


@pytest.mark.parametrize("faults", ["hang*99", "ok*2,hang*99"])
def test_a_portal_that_hangs_is_not_waited_for(busy, monkeypatch, faults):
    tenants, standing, coming, going = busy
    before = set(tenants.accounts())
    monkeypatch.setattr(billing, "Portal", partial(Portal, timeout_s=0.5))
    tenants.portal.faults(faults)
    agent = tenants.once()
    assert agent.observer.skipped or agent.pending
    assert before - {going.resource.backend_id} <= set(tenants.accounts())
    assert {order.state for order in (coming, going)} <= {"pending-provider", "executing", "done"}
    tenants.portal.faults("")
    tenants.once()
    assert [order.state for order in (standing, coming, going)] == ["done"] * 3
    assert tenants.account(coming.resource.backend_id)[1] == ["alice", "bob"]
    assert len(tenants.accounts()) == 4


def test_an_order_list_without_orders_changes_nothing(busy):
    tenants, standing, coming, going = busy
    orders, tenants.market.orders = tenants.market.orders, {}
    resources, tenants.market.resources = tenants.market.resources, {}
    before = tenants.accounts()
    assert tenants.once().writes == 0
    assert tenants.accounts() == before
    tenants.market.orders, tenants.market.resources = orders, resources
    tenants.once()
    assert [order.state for order in (standing, coming, going)] == ["done"] * 3


class Breaking(NativeRunner):
    """Slurm's database goes away when the first change is to be made."""

    lab = None

    def run(self, command, *, timeout_s, env=None):
        if "add" in command or "delete" in command:
            self.lab.daemon("stop", "slurmdbd")
        return super().run(command, timeout_s=timeout_s, env=env)


def test_a_slurm_outage_sets_no_allocation_erred(make_lab, tmp_path):
    lab = make_lab(nodes=1)
    with PortalStandIn() as portal:
        tenants = Tenants(lab, portal, tmp_path, slurm_timeout_s=5)
        standing = tenants.order("standing")
        tenants.once()
        orders = [tenants.terminate(standing.resource), tenants.order("coming")]
        lab.daemon("stop", "slurmdbd")
        assert tenants.once().observer.skipped
        lab.daemon("start", "slurmdbd")
        runner = Breaking(lab.bin_dir)
        runner.lab = lab
        agent = tenants.once(runner=runner)
        assert (len(agent.pending), agent.aside) == (2, [])
        lab.daemon("start", "slurmdbd")
        lab.daemon("freeze", "slurmdbd")
        assert tenants.once().observer.skipped
        lab.daemon("thaw", "slurmdbd")
        assert [order.state for order in orders] == ["executing"] * 2
        assert not any(order.error_message for order in tenants.market.orders.values())
        tenants.once()
        assert [order.state for order in orders] == ["done"] * 2
        assert len(tenants.accounts()) == 3
