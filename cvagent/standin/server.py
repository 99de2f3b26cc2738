"""The CloudVision stand-in as a whole: for tests as a context manager, for people in the foreground."""

from typing import Any, final

from cvagent.standin.ledger import Ledger, Write
from cvagent.standin.page import application
from cvagent.standin.served import TOKEN, Reach, Served, foreground

PORT = 8480


@final
class StandIn(Served):
    """A strict CloudVision on loopback; see Served.

    Args:
        port: 0 means any that is free.
        token: What must follow `Bearer `.
        tls: See Served.
        faults: See `cvagent.standin.faults.ALLOWED`.
        batch: Whether the routes for many resources exist (else 404).
        reads: Whether resources can be read (else 501).

    Raises:
        ValueError: `faults` is wrong.
        OSError, RuntimeError: See Served.
    """

    def __init__(  # noqa: PLR0913 - each is a switch of the command line
        self,
        port: int = 0,
        token: str = TOKEN,
        *,
        tls: bool | Reach = False,
        faults: str = "",
        batch: bool = True,
        reads: bool = True,
    ) -> None:
        self._ledger = Ledger(token, faults, batch=batch, reads=reads)
        super().__init__(application(self._ledger), self._ledger, port, tls=tls)

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """The stored JobConfigs by key, in wire form, oldest write first. A copy; its documents are not."""
        return {key: stored.document for key, stored in self._ledger.stored("JobConfig").items()}

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """The stored NodeConfigs, like `jobs`."""
        return {key: stored.document for key, stored in self._ledger.stored("NodeConfig").items()}

    @property
    def history(self) -> list[Write]:
        """The applied writes in order, the newest 200,000 of them."""
        return self._ledger.history


def main(port: int = PORT, **switches: Any) -> None:
    """Run a stand-in in the foreground until SIGINT or SIGTERM. Call it from the main thread.

    Args:
        port: See StandIn.
        **switches: See StandIn.

    Raises:
        ValueError, OSError, RuntimeError: As `StandIn` does.
    """
    stand_in = StandIn(port, **switches)
    foreground(
        stand_in,
        lambda: [
            f"A CloudVision stand-in is listening. Its page: {stand_in.url}/",
            f"CVAGENT_CLOUDVISION_URL={stand_in.url}",
        ],
    )
