"""The offering: what is on sale at the portal, and that it is what the components file says."""

from collections.abc import Iterable

from cvagent.clients import portal_records as records
from cvagent.clients.portal import Portal
from cvagent.errors import SourceError
from cvagent.model.components import Component
from cvagent.model.orders import Offering, OfferingComponent


class PortalOffering:
    """One offering, by its uuid."""

    def __init__(self, portal: Portal, uuid: str) -> None:
        self._portal = portal
        self._uuid = uuid

    def look(self) -> Offering:
        """The offering as it is. Raises SourceError, also when there is none."""
        raw = self._portal.get(f"{self._portal.dialect.offerings}/{self._uuid}/")
        if raw is None:
            raise SourceError(f"the portal has no offering {self._uuid} that this token sees (CVAGENT_PORTAL_OFFERING)")
        return records.one(raw, records.offering, "offering")

    def declare(self, components: Iterable[Component]) -> list[str]:
        """Have the portal sell these components; what it was told, a line each: none when it does already.

        What else it sells stays. Where a component cannot be changed, it is left as it is.

        Raises:
            SourceError: There is no telling what it sells.
            Retryable, Permanent: It could not be told.
        """
        there = {component.type: component for component in self.look().components}
        wanted = [(component, there.get(component.tres)) for component in components]
        different = [(component, known) for component, known in wanted if not known or _differs(component, known)]
        if self._portal.dialect.components == "update_components":
            return self._replace(there, [component for component, _ in different])
        return [line for component, known in different for line in self._write(component, known)]

    def _replace(self, there: dict[str, OfferingComponent], different: list[Component]) -> list[str]:
        """All at once: what else is there must be told too."""
        if different:
            kept = {name: _kept(one) for name, one in there.items()} | {one.tres: _body(one) for one in different}
            self._portal.post(f"{self._portal.dialect.offerings}/{self._uuid}/update_components/", list(kept.values()))
        return [f"{component.tres} written" for component in different]

    def _write(self, component: Component, known: OfferingComponent | None) -> list[str]:
        route = f"marketplace-provider-offerings/{self._uuid}"
        if known is None:
            self._portal.post(f"{route}/create_offering_component/", _body(component))
            return [f"{component.tres} created"]
        if self._portal.dialect.components != "update_offering_component":
            return []
        self._portal.post(f"{route}/update_offering_component/", {"uuid": known.uuid, **_body(component)})
        return [f"{component.tres} changed"]


def _differs(component: Component, known: OfferingComponent) -> bool:
    return _body(component) != _kept(known)


def _body(component: Component) -> dict[str, str]:
    return {
        "billing_type": component.accounting.value,
        "type": component.tres,
        "name": component.label,
        "measured_unit": component.measured_unit,
    }


def _kept(known: OfferingComponent) -> dict[str, str]:
    return {
        "billing_type": known.billing_type,
        "type": known.type,
        "name": known.name,
        "measured_unit": known.measured_unit,
    }
