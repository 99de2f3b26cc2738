"""Tells a portal that keeps Slurm allocations who is in them."""

from collections.abc import Callable

from cvagent.clients.portal_orders import PortalOrders
from cvagent.errors import Permanent, Retryable, SourceError
from cvagent.model import Document
from cvagent.model.errands import Associated
from cvagent.sinks.one_by_one import OneByOne


class PortalAssociations(OneByOne):
    """The sink `portal_associations`."""

    name = "portal_associations"

    def __init__(self, portal: PortalOrders, changed: Callable[[], None]) -> None:
        super().__init__(changed)
        self._portal = portal

    def write(self, document: Document) -> None:
        """See OneByOne. Only what differs from the portal's own list is told."""
        if not isinstance(document, Associated):
            raise Permanent(f"{document.key} says nothing of an allocation's users")
        try:
            listed = self._portal.associations(document.allocation)
        except SourceError as error:
            raise Retryable(str(error)) from None
        there, wanted = {association.username for association in listed.items}, set(document.users)
        for user in sorted(wanted - there):
            self._portal.associate(document.key, user)
        for user in sorted(there - wanted):
            self._portal.dissociate(document.key, user)
