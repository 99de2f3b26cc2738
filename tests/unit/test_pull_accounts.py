"""What an order asks of Slurm, command by command."""

import re
import shlex
from decimal import Decimal

import pytest
from msgspec.structs import replace
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

from cvagent.errors import Permanent
from cvagent.model import Known
from cvagent.model.accounts import Account
from cvagent.model.components import Accounting, Component
from cvagent.model.errands import Commands, OrderAnswer, Verdict
from cvagent.model.orders import OrderKind, OrderState
from cvagent.model.tenancy import Failure
from cvagent.pull.accounts import AccountRules, commands_for, plan_accounts
from cvagent.pull.orders import plan_order_states

SOLD = (
    Component("mem", "RAM", "GiB", Accounting.USAGE, Decimal(1), Decimal(1024)),
    Component("cpu", "CPU", "k-Hours", Accounting.LIMIT, Decimal(99), Decimal(60_000)),
    Component("node", "Nodes", "Hours", Accounting.USAGE, None, Decimal(60)),
)
RULES = AccountRules("lab", components={sold.tres: sold for sold in SOLD})
TERMINATE = an_order(kind=OrderKind.TERMINATE, backend_id=ACCOUNT)


def lines(order, observed, rules=RULES):
    """Its commands as a shell would take them, without what all have in common."""
    return [
        shlex.join(command).replace("sacctmgr -i ", "").replace("cluster=lab", "").replace("  ", " ").strip()
        for command in commands_for(order, observed, rules)
    ]


def refused(order, tree=None):
    """What Slurm refused of all that an order needed."""
    return {order.uuid: Failure(commands_for(order, a_tenancy(order, tree=tree), RULES), "sacctmgr: no such thing")}


def answers(*orders, rules=RULES, **fields):
    """What the portal would hear, by order."""
    plan = plan_order_states(a_tenancy(*orders, **fields), {}, rules)
    return {change.after.key: change.after for change in plan.changes}


def test_a_new_allocation_gets_its_customer_project_and_account():
    assert lines(an_order(), a_tenancy(an_order())) == [
        (
            f"add account name={CUSTOMER_ACCOUNT} parent=root 'description=Institute of Physics' "
            f"organization={CUSTOMER_ACCOUNT}"
        ),
        (
            f"add account name={PROJECT_ACCOUNT} parent={CUSTOMER_ACCOUNT} 'description=Protein folding' "
            f"organization={CUSTOMER_ACCOUNT}"
        ),
        (
            f"add account name={ACCOUNT} parent={PROJECT_ACCOUNT} description=bert organization={PROJECT_ACCOUNT} "
            "GrpTRESMins=cpu=600000,mem=1024"
        ),
    ]


@pytest.mark.parametrize("shown", [0, 1, 2])
def test_what_slurm_shows_already_is_not_made_again(shown):
    order = an_order()
    whole, rest = lines(order, a_tenancy(order)), lines(order, a_tenancy(order, tree=a_tree(*provided()[:shown])))
    assert rest == whole[shown:]


@pytest.mark.parametrize("kind", [OrderKind.CREATE, OrderKind.UPDATE, OrderKind.RESTORE])
def test_nothing_is_left_to_do_once_slurm_shows_it(kind):
    order = an_order(kind=kind)
    assert commands_for(order, a_tenancy(order, tree=a_tree(*provided())), RULES) == ()


def test_the_older_layout_leaves_allocations_under_root():
    order, rules = an_order(), AccountRules("lab", nested=False)
    order = an_order(limits={})
    assert lines(order, a_tenancy(order), rules)[2] == (
        f"add account name={ACCOUNT} parent=root description=bert organization={PROJECT_ACCOUNT}"
    )


def test_an_update_changes_the_limits_that_differ_and_no_others():
    order = an_order(kind=OrderKind.UPDATE, limits={"cpu": Decimal("0.5")})
    assert lines(order, a_tenancy(order, tree=a_tree(*provided()))) == [
        f"modify account where name={ACCOUNT} set GrpTRESMins=cpu=30000"
    ]
    boundless = an_order(kind=OrderKind.UPDATE, limits={"cpu": Decimal(-1)})
    assert lines(boundless, a_tenancy(boundless, tree=a_tree(*provided()))) == [
        f"modify account where name={ACCOUNT} set GrpTRESMins=cpu=-1"
    ]


def test_a_restored_allocation_has_the_limits_that_it_had():
    order = an_order(kind=OrderKind.RESTORE, limits={})
    observed = a_tenancy(order, resources=(a_resource(limits={"cpu": Decimal(3)}),))
    assert lines(order, observed)[2].endswith("GrpTRESMins=cpu=180000,mem=1024")
    other = an_order(kind=OrderKind.RESTORE, limits={"cpu": Decimal(4)})
    assert lines(other, observed)[2].endswith("GrpTRESMins=cpu=240000,mem=1024")


def test_an_account_that_was_moved_is_moved_back():
    order = an_order()
    customer, project, account = provided()
    moved = a_tree(customer, project._replace(parent="root"), account._replace(parent="root"))
    assert lines(order, a_tenancy(order, tree=moved)) == [
        f"modify account where name={PROJECT_ACCOUNT} set parent={CUSTOMER_ACCOUNT}",
        f"modify account where name={ACCOUNT} set parent={PROJECT_ACCOUNT}",
    ]


def test_an_account_keeps_the_name_that_the_portal_holds():
    renamed = an_order(kind=OrderKind.UPDATE, name="another name", resource_uuid=a_resource().uuid)
    observed = a_tenancy(renamed, tree=a_tree(*provided()), resources=(a_resource(backend_id=ACCOUNT.upper()),))
    assert commands_for(renamed, observed, RULES) == ()


def test_an_order_waits_for_the_portal_to_make_the_allocation():
    order = an_order(allocation_uuid=None)
    assert commands_for(order, a_tenancy(order), RULES) is None
    assert answers(order) == {}
    assert plan_accounts(a_tenancy(order), {}, RULES).changes == []
    # Where it makes none, the resource's uuid stands for it.
    assert "hpc_00000_bert" in lines(order, a_tenancy(order, keeps_allocations=False))[2]


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (an_order(limits={"gres/gpu": Decimal(1)}), "no component gres/gpu in the components file"),
        (an_order(limits={"cpu": Decimal(-5)}), "-5 is no limit"),
        (an_order(limits={"cpu": Decimal(10) ** 30}), "is no limit"),
        (an_order(limits={"cpu": Decimal(2) ** 61}), "is no limit"),
        (an_order(limits={"cpu": Decimal("1e5000")}), r"1E\+5000 is no limit"),
        (an_order(limits={"cpu": Decimal("9" * 5000)}), "9999 is no limit"),
        (an_order(limits={"cpu": Decimal("1e999999")}), r"1E\+999999 is no limit"),
        (an_order(limits={"cpu": Decimal("-1e999999")}), r"-1E\+999999 is no limit"),
        (an_order(limits={"cpu": Decimal("Infinity")}), "Infinity is no limit"),
        (an_order(limits={"cpu": Decimal("NaN")}), "NaN is no limit"),
        (an_order(backend_id="root"), "is no account name"),
        (an_order(backend_id="../x"), "is no account name"),
        (an_order(backend_id="-i; rm"), "is no account name"),
        (an_order(backend_id="x" * 300), "is no account name"),
    ],
)
def test_what_cannot_be_carried_out_errs_with_the_reason_and_stops_no_other(order, reason):
    good = an_order(2)
    with pytest.raises(Permanent, match=reason):
        commands_for(order, a_tenancy(order), RULES)
    plan = plan_accounts(a_tenancy(order, good), {}, RULES)
    assert [change.after.key for change in plan.changes] == [good.uuid]
    answer = answers(order, good)[order.uuid]
    assert answer.verdict is Verdict.ERRED
    assert re.search(reason, answer.reason)


def test_another_resources_account_is_not_taken():
    order = an_order()
    rival = a_resource(7, backend_id=ACCOUNT)
    with pytest.raises(Permanent, match="belongs to another resource"):
        commands_for(order, a_tenancy(order, resources=(rival,)), RULES)


def a_collision(*kinds):
    """Orders for allocations of one name whose uuids begin alike, none of which has an account yet."""
    return [an_order(n, kind, allocation_uuid="a0000" + f"{n:027x}") for n, kind in enumerate(kinds, 1)]


def test_of_two_new_allocations_that_would_share_an_account_the_first_gets_it():
    first, second = a_collision(OrderKind.CREATE, OrderKind.CREATE)
    for observed in (a_tenancy(first, second), a_tenancy(second, first)):
        assert len(lines(first, observed)) == 3
        with pytest.raises(Permanent, match=f"another order of this name gets the account {ACCOUNT}: order it under"):
            commands_for(second, observed, RULES)
    said = answers(second, first, tree=a_tree(*provided()))
    assert [said[one.uuid].verdict for one in (first, second)] == [Verdict.DONE, Verdict.ERRED]


def test_one_that_does_not_execute_or_has_its_account_gets_none_of_another():
    first, second = a_collision(OrderKind.CREATE, OrderKind.UPDATE)
    waiting = replace(first, state=OrderState.PENDING_PROVIDER)
    assert len(lines(second, a_tenancy(waiting, second))) == 3
    holder = a_resource(2, backend_id=ACCOUNT)
    observed = a_tenancy(first, second, resources=(holder,), tree=a_tree(*provided()))
    assert commands_for(second, observed, RULES) == ()
    with pytest.raises(Permanent, match="belongs to another resource"):
        commands_for(first, observed, RULES)


@pytest.mark.parametrize("fields", [{"resources": (a_resource(2, backend_id=ACCOUNT),)}, {}])
def test_the_end_of_one_that_got_no_account_takes_the_others_not_along(fields):
    end, other = a_collision(OrderKind.TERMINATE, OrderKind.CREATE)
    observed = a_tenancy(end, other, tree=a_tree(*provided("alice")), **fields)
    assert commands_for(end, observed, RULES) == ()


def test_root_in_an_account_is_for_a_person_to_take_out():
    reason = f"root is a user of the account {ACCOUNT}.* sacctmgr -i delete user where name=root account={ACCOUNT} cl"
    with pytest.raises(Permanent, match=reason):
        commands_for(TERMINATE, a_tenancy(TERMINATE, tree=a_tree(*provided("alice", "root"))), RULES)


def test_a_termination_cancels_and_removes_and_deletes_the_last_project_too():
    tree = a_tree(*provided("alice", "bob"), Account("other", "root", frozenset({"bob"})), defaults={"bob": ACCOUNT})
    assert lines(TERMINATE, a_tenancy(TERMINATE, tree=tree)) == [
        f"scancel --account={ACCOUNT}",
        f"delete user where name=alice account={ACCOUNT}",
        "modify user where name=bob set DefaultAccount=other",
        f"delete user where name=bob account={ACCOUNT}",
        f"delete account where name={ACCOUNT}",
        f"delete account where name={PROJECT_ACCOUNT}",
    ]


def test_a_default_is_never_root_nor_what_no_command_could_name():
    others = (Account(name, "root", frozenset({"bob"})) for name in ("root", "a b", "-x", "other"))
    tree = a_tree(*provided("bob"), *others, defaults={"bob": ACCOUNT})
    assert "modify user where name=bob set DefaultAccount=other" in lines(TERMINATE, a_tenancy(TERMINATE, tree=tree))


def test_a_default_is_no_account_that_ends_too_unless_there_is_no_other():
    names = ("hpc_a0001_bert", "other", "preferred")
    others = [Account(name, "root", frozenset({"bob"})) for name in names]
    both = (TERMINATE, an_order(2, OrderKind.TERMINATE, backend_id=names[0].upper()))

    def default(accounts, rules=RULES):
        observed = a_tenancy(*both, tree=a_tree(*provided("bob"), *accounts, defaults={"bob": ACCOUNT}))
        return lines(TERMINATE, observed, rules)[1].rpartition("=")[2]

    assert default(others[:2]) == "other"
    assert default(others[:1]) == names[0]
    assert default(others, replace(RULES, default_account="preferred")) == "preferred"
    assert default(others, replace(RULES, default_account=names[0])) == "other"


def test_an_account_that_was_there_in_anothers_place_is_not_taken():
    there = a_tree(*provided()[:2], Account("theirs", "root"), Account(ACCOUNT, "theirs", frozenset({"eve"})))
    with pytest.raises(Permanent, match=f"there is an account {ACCOUNT} below theirs already"):
        commands_for(an_order(), a_tenancy(an_order(), tree=there), RULES)


def test_a_termination_waits_while_the_name_of_its_account_cannot_be_read():
    order = an_order(kind=OrderKind.TERMINATE, name="renamed")
    tree = a_tree(*provided("alice"))
    assert answers(order, tree=tree, problems=("resource 'x': its state is 7",)) == {}
    assert answers(order, tree=tree, resources=(a_resource(),)) == {}


def test_a_shared_database_keeps_the_account_for_other_clusters():
    tree = a_tree(*provided(), shared=True)
    (*_, last) = commands_for(TERMINATE, a_tenancy(TERMINATE, tree=tree), RULES)
    assert "cluster=lab" in last


def test_a_termination_goes_on_after_every_step():
    gone = a_tree(*provided()[:2])
    assert lines(TERMINATE, a_tenancy(TERMINATE, tree=gone)) == [f"delete account where name={PROJECT_ACCOUNT}"]
    assert commands_for(TERMINATE, a_tenancy(TERMINATE, tree=a_tree(provided()[0])), RULES) == ()


@pytest.mark.parametrize(
    "others",
    [
        {"tree": a_tree(*provided()[:2], Account("hpc_a0001_x", PROJECT_ACCOUNT))},
        {"resources": (a_resource(2),)},
        {"problems": ("resource 'x' cannot be read",)},
        {"tree": a_tree(provided()[0], Account(PROJECT_ACCOUNT, CUSTOMER_ACCOUNT, frozenset({"alice"})))},
    ],
)
def test_a_project_that_is_or_may_be_used_stays(others):
    observed = a_tenancy(TERMINATE, **({"tree": a_tree(*provided()[:2])} | others))
    assert commands_for(TERMINATE, observed, RULES) == ()


def test_a_project_stays_for_an_allocation_that_is_on_its_way():
    observed = a_tenancy(TERMINATE, an_order(2), tree=a_tree(*provided()[:2]))
    assert commands_for(TERMINATE, observed, RULES) == ()


def test_two_that_leave_together_take_their_project_along():
    second = an_order(2, kind=OrderKind.TERMINATE)
    resources = (a_resource(), a_resource(2))
    both = a_tenancy(TERMINATE, second, tree=a_tree(*provided()[:2]), resources=resources)
    assert lines(TERMINATE, both) == lines(second, both) == [f"delete account where name={PROJECT_ACCOUNT}"]


def test_an_account_elsewhere_or_with_others_below_it_is_not_deleted():
    customer, project, account = provided()
    elsewhere = a_tree(customer, project, account._replace(parent="theirs"))
    with pytest.raises(Permanent, match="is below theirs"):
        commands_for(TERMINATE, a_tenancy(TERMINATE, tree=elsewhere), RULES)
    above = a_tree(customer, project, account, Account("sub", ACCOUNT))
    with pytest.raises(Permanent, match="has others below it: sub"):
        commands_for(TERMINATE, a_tenancy(TERMINATE, tree=above), RULES)


def test_an_allocation_that_never_was_is_terminated_at_once():
    order = an_order(kind=OrderKind.TERMINATE, allocation_uuid=None)
    assert commands_for(order, a_tenancy(order), RULES) == ()


def test_only_executing_orders_are_carried_out():
    orders = [an_order(number, state=state) for number, state in enumerate(OrderState, 1)]
    plan = plan_accounts(a_tenancy(*orders), {}, RULES)
    executing = [order.uuid for order in orders if order.state is OrderState.EXECUTING]
    assert [change.after.key for change in plan.changes] == executing


def test_what_need_not_be_done_any_more_is_taken_back():
    old = Commands("0" * 32, "Create bert", (("sacctmgr",),))
    (change,) = plan_accounts(a_tenancy(), {old.key: Known(old)}, RULES).changes
    assert (change.after.key, change.after.commands, change.why) == (old.key, (), "ended")
    done = Commands("0" * 32, "Create bert")
    assert plan_accounts(a_tenancy(), {done.key: Known(done)}, RULES).changes == []


def test_the_same_commands_are_not_decided_twice():
    (change,) = plan_accounts(a_tenancy(an_order()), {}, RULES).changes
    assert plan_accounts(a_tenancy(an_order()), {change.after.key: Known(change.after)}, RULES).changes == []


def test_an_order_is_done_when_slurm_shows_it_and_only_then():
    order = an_order()
    assert answers(order) == {}
    assert answers(order, tree=a_tree(*provided(cpu=5))) == {}
    done = answers(order, tree=a_tree(*provided()))[order.uuid]
    assert done == OrderAnswer(order.uuid, Verdict.DONE, "bert", order.resource_uuid, ACCOUNT)


def test_a_termination_writes_nothing_into_a_resource_that_ends():
    assert answers(TERMINATE) == {
        TERMINATE.uuid: OrderAnswer(TERMINATE.uuid, Verdict.DONE, "bert", ending=TERMINATE.resource_uuid)
    }


def test_an_order_that_waits_for_the_provider_is_approved():
    order = an_order(state=OrderState.PENDING_PROVIDER)
    assert answers(order) == {order.uuid: OrderAnswer(order.uuid, Verdict.APPROVE, "bert")}


def test_an_order_that_slurm_refuses_errs_with_slurms_words():
    order, other = an_order(), an_order(2)
    assert answers(order, other, failures=refused(order)) == {
        order.uuid: OrderAnswer(order.uuid, Verdict.ERRED, "bert", order.resource_uuid, "", "sacctmgr: no such thing")
    }


@pytest.mark.parametrize("kind", OrderKind)
def test_an_allocation_is_as_it_was_when_its_end_failed(kind):
    order = an_order(kind=kind)
    tree = a_tree(*provided()) if kind is OrderKind.TERMINATE else a_tree()
    said = answers(order, tree=tree, failures=refused(order, tree=tree))[order.uuid]
    assert (said.resource_uuid, said.as_before) == (order.resource_uuid, kind is OrderKind.TERMINATE)


def test_an_order_that_slurm_refused_is_done_when_slurm_shows_it_all_the_same():
    order = an_order()
    (answer,) = answers(order, tree=a_tree(*provided()), failures=refused(order)).values()
    assert answer.verdict is Verdict.DONE


def test_an_order_that_needs_something_else_since_it_was_refused_is_tried_anew():
    order = an_order()
    # The project's account was there, and went with its last allocation.
    failures = refused(order, tree=a_tree(*provided()[:2]))
    assert answers(order, tree=a_tree(*provided()[:2]), failures=failures)[order.uuid].verdict is Verdict.ERRED
    gone = a_tenancy(order, tree=a_tree(*provided()[:1]), failures=failures)
    assert plan_order_states(gone, {}, RULES).changes == []
    before = {order.uuid: Known(Commands(order.uuid, "Create bert", failures[order.uuid].commands))}
    (again,) = plan_accounts(gone, before, RULES).changes
    assert [command[3] for command in again.after.commands] == ["account", "account"]


def test_an_answer_that_is_not_wanted_any_more_is_taken_back():
    old = OrderAnswer("0" * 32, Verdict.DONE, "bert")
    (change,) = plan_order_states(a_tenancy(), {old.key: Known(old)}, RULES).changes
    assert change.after == OrderAnswer(old.key, Verdict.NOTHING, "bert")


def test_owners_differ():
    other = OWNER._replace(project_uuid="f" * 32)
    observed = a_tenancy(TERMINATE, an_order(2, owner=other), tree=a_tree(*provided()[:2]))
    assert lines(TERMINATE, observed) == [f"delete account where name={PROJECT_ACCOUNT}"]
