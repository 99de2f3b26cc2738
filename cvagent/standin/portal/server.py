"""The portal stand-in as a whole: for tests as a context manager, for people in the foreground."""

from collections.abc import Sequence
from typing import Any, final

from cvagent.standin.portal.market import OFFERING, Market
from cvagent.standin.portal.objects import Customer, Person, Project
from cvagent.standin.portal.page import application
from cvagent.standin.served import TOKEN, Reach, Served, foreground

PORT = 8481


@final
class PortalStandIn(Served):
    """A strict tenant portal on loopback; see Served.

    Args:
        dialect: order-items, orders or waldur.
        port: 0 means any that is free.
        token: What must follow `token `.
        tls: See Served.
        faults: See `cvagent.standin.faults.ALLOWED`; a rule 400@REGEX looks at paths here.

    Attributes:
        market: What it keeps. Its methods are what people do on its page.

    Raises:
        ValueError: `dialect` or `faults` is wrong.
        OSError, RuntimeError: See Served.
    """

    def __init__(
        self, dialect: str = "waldur", port: int = 0, token: str = TOKEN, *, tls: bool | Reach = False, faults: str = ""
    ) -> None:
        self.market = Market(dialect, token, faults)
        super().__init__(application(self.market), self.market, port, tls=tls)


def furnish(market: Market, usernames: Sequence[str] = ("alice", "bob")) -> None:
    """Put two customers with a project each into a market, and people who have a name on the cluster."""
    alice, bob = (Person(name, name.title(), name) for name in usernames)
    market.add_project(Project("Weather", Customer("Institute of Physics"), [alice, bob]))
    market.add_project(Project("Proteins", Customer("Institute of Biology"), [bob]))


def main(dialect: str = "waldur", port: int = PORT, **switches: Any) -> None:
    """Run a portal stand-in in the foreground until SIGINT or SIGTERM. Call it from the main thread.

    Args:
        dialect: See PortalStandIn.
        port: See PortalStandIn.
        **switches: See PortalStandIn.

    Raises:
        ValueError, OSError, RuntimeError: As `PortalStandIn` does.
    """
    stand_in = PortalStandIn(dialect, port, **switches)
    furnish(stand_in.market)
    foreground(
        stand_in,
        lambda: [
            f"A portal stand-in of the dialect {dialect} is listening. Its page, to order on: {stand_in.url}/",
            f"CVAGENT_PORTAL_URL={stand_in.url}",
            f"CVAGENT_PORTAL_OFFERING={OFFERING}",
        ],
    )
