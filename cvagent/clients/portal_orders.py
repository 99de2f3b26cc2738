"""The portal's orders and allocations, and who is in them."""

from collections.abc import Collection
from contextlib import suppress

from cvagent.clients import portal_records as records
from cvagent.clients.portal import Portal
from cvagent.errors import Permanent
from cvagent.model.orders import Association, Listing, Order, Resource, ResourceState, TeamMember, Username

_SLURM = "marketplace-slurm-remote"
_MAX_TEXT = 2000


class PortalOrders:
    """Questions about one offering, and what becomes of its orders.

    Args:
        offering: Its uuid.

    What reads raises SourceError, what writes Retryable or Permanent; Conflict where the portal's states say no.
    """

    def __init__(self, portal: Portal, offering: str) -> None:
        self._portal = portal
        self._offering = offering

    @property
    def keeps_allocations(self) -> bool:
        """Whether the portal makes a Slurm allocation for each resource. Raises SourceError."""
        return self._portal.dialect.allocations

    def orders(self) -> Listing[Order]:
        """The orders that wait for the provider or are executing."""
        dialect = self._portal.dialect
        query = {"offering_uuid": self._offering, "state": dialect.order_states}
        return records.listing(self._portal.get_all(f"{dialect.orders}/", query), records.order, "order")

    def order(self, uuid: str) -> Order | None:
        """One order; None when there is none."""
        raw = self._portal.get(f"{self._portal.dialect.orders}/{uuid}/")
        return None if raw is None else records.one(raw, records.order, "order")

    def approve(self, order_uuid: str) -> None:
        """Take an order that waits for the provider. In the oldest dialect a person does that, at the portal."""
        self._portal.post(f"{self._portal.dialect.orders}/{order_uuid}/approve_by_provider/")

    def set_done(self, order_uuid: str) -> None:
        """End an order that executes."""
        self._portal.post(f"{self._portal.dialect.orders}/{order_uuid}/set_state_done/")

    def set_erred(self, order_uuid: str, message: str) -> None:
        """End an order that executes, and say why."""
        body = {"error_message": message[:_MAX_TEXT], "error_traceback": ""}
        self._portal.post(f"{self._portal.dialect.orders}/{order_uuid}/set_state_erred/", body)

    def resources(self, states: Collection[ResourceState] = ()) -> Listing[Resource]:
        """The offering's resources, those in these states when any are named."""
        query = {"offering_uuid": self._offering} | ({"state": [state.value for state in states]} if states else {})
        raws = self._portal.get_all(f"{self._portal.dialect.resources}/", query)
        return records.listing(raws, records.resource, "resource")

    def resource(self, uuid: str) -> Resource | None:
        """One resource; None when there is none."""
        raw = self._portal.get(f"{self._portal.dialect.resources}/{uuid}/")
        return None if raw is None else records.one(raw, records.resource, "resource")

    def set_backend_id(self, resource_uuid: str, backend_id: str) -> None:
        """Write the account's name into a resource."""
        self._portal.post(
            f"{self._portal.dialect.resources}/{resource_uuid}/set_backend_id/", {"backend_id": backend_id}
        )

    def set_allocation_state(self, resource_uuid: str, state: str) -> None:
        """Move the Slurm allocation of a resource into a state, such as creating. Nothing where there are none."""
        if self._portal.dialect.allocations:
            self._portal.post(f"{_SLURM}/{resource_uuid}/set_state/", {"state": state})

    def team(self, resource_uuid: str) -> Listing[TeamMember]:
        """Who may use a resource."""
        raws = self._portal.get_all(f"{self._portal.dialect.resources}/{resource_uuid}/team/")
        return records.listing(raws, records.member, "member")

    def offering_users(self) -> Listing[Username]:
        """The names that the offering's users have on the cluster."""
        raws = self._portal.get_all("marketplace-offering-users/", {"offering_uuid": self._offering})
        return records.listing(raws, records.username, "offering user")

    def freeipa_profiles(self) -> Listing[Username]:
        """The names that people have in FreeIPA."""
        return records.listing(self._portal.get_all("freeipa-profiles/"), records.username, "FreeIPA profile")

    def associations(self, allocation_uuid: str) -> Listing[Association]:
        """Whom the portal believes to be in a Slurm allocation. Only where it keeps allocations."""
        raws = self._portal.get_all("slurm-associations/", {"allocation_uuid": allocation_uuid})
        return records.listing(raws, records.association, "association")

    def associate(self, resource_uuid: str, username: str) -> None:
        """Tell that a user is in an allocation. Once more does no harm. Nothing where the portal keeps none."""
        if self._portal.dialect.allocations:
            self._portal.post(f"{_SLURM}/{resource_uuid}/create_association/", {"username": username})

    def dissociate(self, resource_uuid: str, username: str) -> None:
        """Tell that a user is in an allocation no more. One that is not there is gone."""
        if self._portal.dialect.allocations:
            with suppress(Permanent):
                self._portal.post(f"{_SLURM}/{resource_uuid}/delete_association/", {"username": username})
