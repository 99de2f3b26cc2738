"""The three dialects of the tenant portal's API that are in the field, side by side. A table, and no I/O."""

from typing import NamedTuple


class Dialect(NamedTuple):
    """Where things are, and what differs.

    Attributes:
        orders: Route of the orders.
        order_states: States that concern the provider.
        approves: Whether the provider approves orders; else a person does, at the portal.
        resources: Route of the resources.
        offerings: Route on which the offering is read.
        allocations: Whether the portal keeps Slurm allocations with states and associations of their own.
        components: How the offering's components are written: all at once, or one by one.
        decimals: Places after the point that a usage may have.
        dated: Whether a usage names its month; else the month is the server's.
    """

    name: str
    orders: str
    order_states: tuple[str, ...]
    approves: bool
    resources: str
    offerings: str
    allocations: bool
    components: str
    decimals: int
    dated: bool

    @property
    def lists(self) -> tuple[str, ...]:
        """Paths of lists by which the dialect is known: a portal without one of them speaks another."""
        return (f"{self.orders}/", f"{self.resources}/", *(["slurm-associations/"] if self.allocations else []))


ORDER_ITEMS = Dialect(
    name="order-items",
    orders="marketplace-order-items",
    order_states=("executing",),
    approves=False,
    resources="marketplace-resources",
    offerings="marketplace-offerings",
    allocations=True,
    components="update_components",
    decimals=0,
    dated=False,
)
ORDERS = Dialect(
    name="orders",
    orders="marketplace-orders",
    order_states=("pending-provider", "executing"),
    approves=True,
    resources="marketplace-resources",
    offerings="marketplace-public-offerings",
    allocations=True,
    components="create_offering_component",
    decimals=2,
    dated=False,
)
WALDUR = Dialect(
    name="waldur",
    orders="marketplace-orders",
    order_states=("pending-provider", "executing"),
    approves=True,
    resources="marketplace-provider-resources",
    offerings="marketplace-provider-offerings",
    allocations=False,
    components="update_offering_component",
    decimals=2,
    dated=True,
)
DIALECTS = {dialect.name: dialect for dialect in (ORDER_ITEMS, ORDERS, WALDUR)}
