"""The portal's orders, carried out in a real slurmdbd."""

import pytest
from tenants import DIALECTS, Killed
from waiting import wait_until

from cvagent.clients.portal_orders import PortalOrders
from cvagent.clients.runner import NativeRunner
from cvagent.standin.portal.objects import Customer, Project


def limits(**counts):
    """What sacctmgr shows of these, beside what the components file gives to everybody."""
    return {"mem": "6000G"} | {name.replace("gpu", "gres/gpu"): str(count) for name, count in counts.items()}


def expected_name(order):
    """The rule, once more: five digits of the allocation's uuid, else of the resource's, and the name."""
    resource = order.resource
    uuid = resource.allocation.uuid if resource.allocation else resource.uuid
    return f"hpc_{uuid[:5]}_{order.attributes['name'].lower()}"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_three_allocations_come_change_and_go(make_tenants, dialect):
    tenants = make_tenants(dialect)
    physics, biology = tenants.physics, tenants.biology
    orders = [
        tenants.order("Bert", physics, cpu=10),
        tenants.order("GPT-2", physics, cpu=1),
        tenants.order("esm", biology, cpu=2),
    ]
    tenants.once()
    tenants.once()  # The older portals make an allocation a moment after its order was seen.
    assert [order.state for order in orders] == ["done"] * 3
    names = [expected_name(order) for order in orders]
    assert [order.resource.backend_id for order in orders] == names
    assert [order.resource.state for order in orders] == ["OK"] * 3
    assert tenants.account(names[0]) == (f"hpc_{physics.uuid}", ["alice", "bob"], limits(cpu=600_000))
    assert tenants.account(names[1]) == (f"hpc_{physics.uuid}", ["alice", "bob"], limits(cpu=60_000))
    assert tenants.account(names[2]) == (f"hpc_{biology.uuid}", ["bob"], limits(cpu=120_000))
    for project in (physics, biology):
        assert tenants.account(f"hpc_{project.uuid}") == (f"hpc_{project.customer.uuid}", [], {})
        assert tenants.account(f"hpc_{project.customer.uuid}") == ("root", [], {})
    if tenants.market.allocates:
        assert {order.resource.allocation.state for order in orders} == {"ok"}
    assert tenants.once().writes == 0

    ordered = ({"cpu": 20, "gres/gpu": 5}, {"cpu": 0.5}, {"gres/gpu": 0})
    changes = [tenants.change(order.resource, **wanted) for order, wanted in zip(orders, ordered, strict=True)]
    tenants.once()
    assert [(change.state, change.resource.state) for change in changes] == [("done", "OK")] * 3
    assert tuple(change.resource.limits for change in changes) == ordered
    shown = [tenants.account(name)[2] for name in names]
    assert shown == [limits(cpu=1_200_000, gpu=300), limits(cpu=30_000), limits(cpu=120_000, gpu=0)]
    if tenants.market.allocates:
        assert {order.resource.allocation.state for order in orders} == {"ok"}
    assert tenants.once().writes == 0

    ends = [tenants.terminate(order.resource) for order in orders]
    tenants.once()
    assert [(order.state, order.resource.state) for order in ends] == [("done", "Terminated")] * 3
    assert tenants.accounts() == sorted(f"hpc_{project.customer.uuid}" for project in (physics, biology))
    assert tenants.once().writes == 0


def test_a_project_stays_until_its_last_allocation_goes(tenants):
    first, second = tenants.order("first"), tenants.order("second")
    tenants.once()
    project = f"hpc_{tenants.physics.uuid}"
    tenants.terminate(first.resource)
    tenants.once()
    assert tenants.account(project) is not None
    tenants.terminate(second.resource)
    tenants.once()
    assert tenants.account(project) is None


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_allocation_whose_end_failed_can_be_changed_and_ended(make_tenants, lab, dialect):
    tenants = make_tenants(dialect)
    order = tenants.order()
    tenants.once()
    tenants.once()  # The older portals make an allocation a moment after its order was seen.
    account = order.resource.backend_id
    lab.slurm("sacctmgr", "-i", "add", "account", "hpc_sub", f"parent={account}")
    for _ in range(2):
        end = tenants.terminate(order.resource)
        tenants.once()
        assert (end.state, order.resource.state) == ("erred", "OK")
        assert "has others below it: hpc_sub" in end.error_message
    change = tenants.change(order.resource, cpu=20)
    tenants.once()
    assert change.state == "done"
    lab.slurm("sacctmgr", "-i", "delete", "account", "where", "name=hpc_sub")
    end = tenants.terminate(order.resource)
    tenants.once()
    assert (end.state, tenants.account(account)) == ("done", None)


@pytest.mark.parametrize("told", [True, False])
def test_a_restored_allocation_gets_its_account_and_its_limits_back(tenants, told):
    order = tenants.order("bert", cpu=3)
    tenants.once()
    before = tenants.account(order.resource.backend_id)
    tenants.terminate(order.resource)
    tenants.once()
    assert tenants.account(order.resource.backend_id) is None
    again = tenants.market.restore(order.resource)
    if not told:
        again.limits = None
    tenants.once()
    assert (order.resource.state, tenants.account(order.resource.backend_id)) == ("OK", before)


def test_an_account_goes_with_its_running_job(lab, tenants):
    tenants.sell("cpu: {measured_unit: thousandths of a minute, unit_factor: 0.001, accounting_type: usage}")
    order = tenants.order(cpu=10)
    tenants.once()
    account = order.resource.backend_id
    job = wait_until(lambda: tenants.submitted(account), 20, "a job in the account")
    lab.wait_for(job, "RUNNING")
    wait_until(
        lambda: int(lab.slurm("sacct", "-nXP", f"--jobs={job}", "--format=elapsedraw") or 0) > 1, 20, "two seconds"
    )
    end = tenants.terminate(order.resource)
    wait_until(lambda: tenants.once() and end.state == "done", 60, "the end of the allocation")
    (run,) = lab.wait_for_end(job)
    assert run.state == "CANCELLED"
    assert tenants.account(account) is None
    # The last usage was told after the job had ended: one CPU, in thousandths of minutes.
    (usage,) = tenants.market.usages.values()
    assert usage.users == {"alice": usage.amount}
    assert float(usage.amount) == pytest.approx((run.ended_at - run.started_at) / 60 * 1000, abs=0.01)


def test_the_older_layout_is_kept_when_asked_for(make_tenants):
    tenants = make_tenants(account_layout="flat")
    order = tenants.order()
    tenants.once()
    assert tenants.account(order.resource.backend_id)[0] == "root"
    said = tenants.lab.slurm("sacctmgr", "-nP", "show", "account", order.resource.backend_id, "format=organization")
    assert said == f"hpc_{tenants.physics.uuid}\n"
    tenants.terminate(order.resource)
    tenants.once()
    assert tenants.accounts() == [f"hpc_{tenants.physics.customer.uuid}"]


class Refusing(NativeRunner):
    """sacctmgr fails for whatever names `word`, as it would itself."""

    word = ""

    def run(self, command, *, timeout_s, env=None):
        if any(self.word in argument for argument in command) and "add" in command:
            command = ["sacctmgr", "-i", "add", "account", "name=x", "parent=hpc_nosuch"]
        return super().run(command, timeout_s=timeout_s, env=env)


def test_one_of_five_orders_that_slurm_refuses_errs_and_stops_no_other(lab, tenants):
    orders = [tenants.order(f"run{number}") for number in range(5)]
    runner = Refusing(lab.bin_dir)
    runner.word = "_run3"
    agent = tenants.once(runner=runner)
    assert [order.state for order in orders] == ["done", "done", "done", "erred", "done"]
    assert "Parent account 'hpc_nosuch' doesn't exist" in orders[3].error_message
    assert orders[3].resource.state == "Erred"
    assert (agent.aside, agent.pending) == ([], [])
    assert len(tenants.accounts()) == 2 + 4


def killer(step):
    """A runner and a portal of an agent that is killed after so many steps: commands that change, and requests."""
    left = [step]

    def take():
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    def taking(write):
        def wrapped(self, *arguments):
            write(self, *arguments)
            take()

        return wrapped

    class Runner(NativeRunner):
        def run(self, command, *, timeout_s, env=None):
            said = super().run(command, timeout_s=timeout_s, env=env)
            if "show" not in command and "getent" not in command:
                take()
            return said

    orders = ("approve", "set_backend_id", "set_allocation_state", "set_done", "set_erred")
    writes = (*orders, "associate", "dissociate")
    portal = type("Portal", (PortalOrders,), {name: taking(getattr(PortalOrders, name)) for name in writes})
    return Runner, portal


def is_killed(tenants, step, *, looks=1):
    """Whether an agent does not outlive so many steps."""
    runner, portal = killer(step)
    try:
        for _ in range(looks):
            tenants.once(runner=runner(tenants.lab.bin_dir), portal=portal)
    except Killed:
        return True
    return False


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("dialect", "looks", "steps"), [("order-items", 2, 9), ("orders", 2, 10), ("waldur", 1, 8)])
def test_an_agent_that_is_killed_after_any_step_of_a_create_is_followed_rightly(make_tenants, dialect, looks, steps):
    tenants = make_tenants(dialect)
    orders = []
    killed = True
    while killed:
        project = Project(f"Weather {len(orders)}", Customer("Institute of Physics"), tenants.people[:2])
        orders.append(tenants.order("bert", tenants.market.add_project(project)))
        killed = is_killed(tenants, len(orders) - 1, looks=looks)
        for _ in range(looks):  # The older portals make an allocation a moment after its order was seen.
            tenants.once()
    for order in orders:
        project, resource = order.resource.project, order.resource
        assert (order.state, resource.state, resource.backend_id) == ("done", "OK", expected_name(order))
        assert tenants.account(f"hpc_{project.uuid}") == (f"hpc_{project.customer.uuid}", [], {})
        there = tenants.account(resource.backend_id)
        assert there == (f"hpc_{project.uuid}", ["alice", "bob"], limits(cpu=600_000))
        if resource.allocation:
            assert (resource.allocation.state, sorted(resource.allocation.members)) == ("ok", ["alice", "bob"])
    assert len(tenants.accounts()) == 3 * len(orders)
    assert tenants.once().writes == 0
    # Customer, project, account, members; approve (but a person does in the oldest), backend id, allocation, done; two
    # associations where there are allocations; and one that was not killed.
    assert len(orders) == steps + 1


@pytest.mark.parametrize("dialect", ["order-items", "orders"])
def test_an_agent_that_is_killed_after_any_step_of_a_change_of_the_team_is_followed_rightly(make_tenants, dialect):
    tenants = make_tenants(dialect, absent_rounds=1)
    order = tenants.order()
    tenants.once()
    tenants.once()  # The older portals make an allocation a moment after its order was seen.
    alice, bob, carol = tenants.people
    tenants.market.add_project(Project("Others", Customer("Institute of Physics"), [carol]))
    killed, step = True, 0
    while killed:
        tenants.physics.team[:] = [alice, bob if step % 2 else carol]
        killed = is_killed(tenants, step)
        tenants.once()
        names = sorted(person.cluster_username for person in tenants.physics.team)
        assert tenants.account(order.resource.backend_id)[1] == names
        assert sorted(order.resource.allocation.members) == names
        step += 1
    # One comes in; the other's jobs end, and their membership; one association each; and one that was not killed.
    assert step == 6


@pytest.mark.parametrize("step", range(6))
def test_an_agent_that_is_killed_after_any_step_of_a_termination_is_followed_by_one_that_ends_it(tenants, step):
    order = tenants.order()
    tenants.once()
    end = tenants.terminate(order.resource)
    is_killed(tenants, step)
    tenants.once()
    assert (end.state, order.resource.state) == ("done", "Terminated")
    assert tenants.accounts() == [f"hpc_{tenants.physics.customer.uuid}"]


HOSTILE = (
    'O\'Reilly "quoted" `id`',
    "two\nlines",
    "--option",
    "-i; scancel -u root",
    "a,b,c",
    "Prot\u00e9ine \U0001f9ec",
    "x" * 300,
    "root",
    "../x",
    "$(touch /tmp/owned)",
    "",
    "parent=root cluster=lab",
)


def test_hostile_names_are_nothing_but_names(tenants):
    tenants.physics.name = 'Weather\'; drop table "x"\n--parent=root'
    tenants.physics.customer.name = "\U0001f4a5" * 400
    orders = [tenants.order(name) for name in HOSTILE]
    tenants.once()
    assert [order.state for order in orders] == ["done"] * len(orders)
    names = [order.resource.backend_id for order in orders]
    assert len(set(names)) == len(names)
    assert all(tenants.account(name)[0] == f"hpc_{tenants.physics.uuid}" for name in names)
    assert all(len(name) <= 34 and name.startswith("hpc_") for name in names)
    assert len(tenants.accounts()) == 2 + len(names)


def test_hostile_users_are_refused_with_a_reason(tenants):
    for number, name in enumerate(("root", "--option", "a,b", "x;id", "al\nice", "../x", "0", "u" * 300)):
        person = tenants.people[2].__class__(f"person{number}", "Somebody", name)
        tenants.physics.team.append(person)
        tenants.market.add_project(tenants.physics)
    order = tenants.order()
    agent = tenants.once()
    assert tenants.account(order.resource.backend_id)[1] == ["alice", "bob"]
    problems = {problem for plan in agent.observer.rounds for problem in plan.problems}
    assert sum("is no user name" in problem for problem in problems) == 7


def test_unknown_states_among_good_ones_spoil_nothing(tenants):
    left, changed = tenants.order("left"), tenants.order("changed")
    tenants.once()
    before = tenants.account(left.resource.backend_id)
    odd, good = tenants.order("odd"), tenants.order("good")
    odd.state, left.resource.state = "on-its-way", "Melting"
    change = tenants.change(changed.resource, cpu=20)
    tenants.market.approve(change)
    changed.resource.state = "Freezing"
    tenants.once()
    assert [order.state for order in (odd, good, change)] == ["on-its-way", "done", "done"]
    assert tenants.account(changed.resource.backend_id)[2] == limits(cpu=1_200_000)
    assert (left.resource.state, tenants.account(left.resource.backend_id)) == ("Melting", before)
    assert (odd.resource.backend_id, tenants.account(expected_name(odd))) == ("", None)
    # A resource in an unknown state may be an allocation of the project yet.
    end = tenants.terminate(good.resource)
    tenants.once()
    assert (end.state, tenants.account(left.resource.backend_id)) == ("done", before)


def test_of_orders_that_would_share_an_account_one_gets_it_and_all_can_be_ended(tenants):
    orders = [tenants.order("bert") for _ in range(3)]
    for number, order in enumerate(orders[1:], 1):
        del tenants.market.resources[order.resource.uuid]
        order.resource.uuid = orders[0].resource.uuid[:5] + f"{number:027x}"
        tenants.market.resources[order.resource.uuid] = order.resource
    tenants.once()
    first, *others = sorted(orders, key=lambda order: order.uuid)
    assert [first.state, *(order.state for order in others)] == ["done", "erred", "erred"]
    assert all("order it under another name" in order.error_message for order in others)
    end = tenants.terminate(others[0].resource)
    tenants.once()
    assert (end.state, tenants.account(first.resource.backend_id)[1]) == ("done", ["alice", "bob"])


def test_odd_orders_among_good_ones_spoil_nothing(tenants):
    good = tenants.order("good")
    odd = [tenants.order(f"odd{number}") for number in range(4)]
    odd[0].type, odd[1].limits, odd[2].attributes, odd[3].state = "Explode", {"cpu": "lots"}, None, "executing"
    odd[3].limits = {"cpu": None, "never/heard": 3}
    tenants.once()
    assert good.state == "done"
    assert odd[0].state == "pending-provider"
    assert odd[3].state == "erred"
    assert "no component never/heard" in odd[3].error_message
    assert tenants.account(good.resource.backend_id) is not None
