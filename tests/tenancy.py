"""Orders, resources and account trees for tests of pull mode."""

from decimal import Decimal

from cvagent.model.accounts import Account, AccountTree
from cvagent.model.orders import Order, OrderKind, OrderState, Owner, Resource, ResourceState
from cvagent.model.tenancy import Tenancy

CUSTOMER = "c" * 32
PROJECT = "d" * 32
OWNER = Owner(PROJECT, "Protein folding", CUSTOMER, "Institute of Physics")
CUSTOMER_ACCOUNT = f"hpc_{CUSTOMER}"
PROJECT_ACCOUNT = f"hpc_{PROJECT}"
ACCOUNT = "hpc_a0000_bert"


def an_order(number: int = 1, kind: OrderKind = OrderKind.CREATE, **fields) -> Order:
    """An executing order for the allocation `bert`, whose own uuid begins with a0000 and so on."""
    given = {
        "uuid": f"{number:032x}",
        "kind": kind,
        "state": OrderState.EXECUTING,
        "name": "bert",
        "owner": OWNER,
        "resource_uuid": f"{number + 4096:032x}",
        "allocation_uuid": f"a{number - 1:04x}".ljust(32, "0"),
        "limits": {"cpu": Decimal(10)},
    } | fields
    return Order(**given)


def a_resource(number: int = 1, **fields) -> Resource:
    """The resource of `an_order`."""
    given = {
        "uuid": f"{number + 4096:032x}",
        "name": "bert",
        "state": ResourceState.OK,
        "owner": OWNER,
        "allocation_uuid": f"a{number - 1:04x}".ljust(32, "0"),
        "backend_id": f"hpc_a{number - 1:04x}_bert",
        "limits": {"cpu": Decimal(10)},
    } | fields
    return Resource(**given)


def a_tree(*accounts: Account, defaults: dict[str, str] | None = None, shared: bool = False) -> AccountTree:
    """These accounts, and root."""
    found = (Account("root", "", frozenset({"root"})), *accounts)
    return AccountTree({account.name: account for account in found}, {"root": "root"} | (defaults or {}), shared)


def provided(*users: str, cpu: int = 600_000) -> tuple[Account, ...]:
    """The accounts that `an_order` asks for."""
    return (
        Account(CUSTOMER_ACCOUNT, "root"),
        Account(PROJECT_ACCOUNT, CUSTOMER_ACCOUNT),
        Account(ACCOUNT, PROJECT_ACCOUNT, frozenset(users), {"cpu": cpu, "mem": 1024}),
    )


def a_tenancy(
    *orders: Order, tree: AccountTree | None = None, resources: tuple[Resource, ...] = (), **fields
) -> Tenancy:
    """What a round saw."""
    given = {"at": 100, "keeps_allocations": True} | fields
    return Tenancy(orders=orders, resources={r.uuid: r for r in resources}, tree=tree or a_tree(), **given)
