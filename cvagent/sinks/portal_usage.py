"""Tells the portal what was used."""

from collections.abc import Callable, Iterator, Sequence

from cvagent.clients.portal_usage import PortalUsage
from cvagent.errors import Permanent
from cvagent.model import Document, Entry
from cvagent.model.usage import UsageReport
from cvagent.sinks.side_by_side import SideBySide, Told


class UsageReports:
    """The sink `portal_usage`.

    Args:
        declare: Called first: the portal takes no usage of what it does not sell. Never raises.
        parallel: Reports side by side.
    """

    name = "portal_usage"

    def __init__(self, usage: PortalUsage, declare: Callable[[], None], *, parallel: int = 4) -> None:
        self._usage = usage
        self._declare = declare
        self._single = SideBySide(self.name, self._tell, parallel)

    def deliver(self, entries: Sequence[Entry]) -> Iterator[Told]:
        """See `ports.Sink`."""
        self._declare()
        yield from self._single.deliver(entries)

    def close(self) -> None:
        """See `ports.Sink`."""
        self._single.close()

    def _tell(self, document: Document) -> None:
        if not isinstance(document, UsageReport):
            raise Permanent(f"{document.key} is no usage")
        self._usage.tell(document)
