"""Tenants and what gives them nodes, as one observation."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from cvagent.clients.portal_orders import PortalOrders
from cvagent.clients.slurm_places import SlurmPlaces
from cvagent.errors import SourceError
from cvagent.model import Ask, Known
from cvagent.model.nodes import node_facts
from cvagent.model.orders import Resource
from cvagent.model.tenancy import Tenancy
from cvagent.model.tenants import OBJECT, Places, TenantConfig, TenantsSeen
from cvagent.sources.tenancy import TenancySource
from cvagent.sources.told_tenants import ToldTenants

# Resources that one round asks the portal for by their uuid.
_MOST_SOUGHT = 20


class NodeFactReader(Protocol):
    """Keeps what nodes said."""

    def after(self, at: float) -> dict[str, tuple[bytes, float]]:
        """By node the line of its inventory, for all collected later than `at`."""
        ...


class TenantMeans(NamedTuple):
    """What is read.

    Attributes:
        stored: All documents that the store still holds of tenants, by key, ended ones too.
    """

    tenancy: TenancySource
    portal: PortalOrders
    slurm: SlurmPlaces
    facts: NodeFactReader
    told: ToldTenants
    stored: Callable[[], Mapping[Any, Known[TenantConfig]]]


class TenantSource:
    """A `ports.Source`. Slurm is asked only for the places that count.

    Args:
        sources: See `pull.places.PlaceRules`.
        interfaces: See there.
        prefix: Of the names of allocations' accounts.
    """

    def __init__(self, means: TenantMeans, sources: tuple[str, ...], prefix: str, *, interfaces: bool) -> None:
        self._means = means
        self._sources = sources
        self._prefix = prefix.lower()
        self._interfaces = interfaces

    def observe(self, ask: Ask) -> TenantsSeen:
        """Ask the portal, Slurm, and CloudVision when the store is empty. Raises SourceError when one does not answer.

        CloudVision is asked before anything of it is decided: a tenant that it knows neither begins nor ends anew.
        """
        tenancy = self._means.tenancy.observe(ask)
        slurm = self._means.slurm
        places = Places(
            reservations=slurm.reservations() if "reservation" in self._sources else {},
            partitions=slurm.partitions() if "partition" in self._sources else {},
            jobs=slurm.jobs() if "jobs" in self._sources else {},
        )
        told = self._told(tenancy, cold=ask.cold)
        known = {key: Known(config) for key, config in told.items()} | dict(ask.known)
        return TenantsSeen(tenancy, places, self._ports(tenancy), told, self._sought(tenancy, known))

    def _told(self, tenancy: Tenancy, *, cold: bool) -> dict[str, TenantConfig]:
        """What CloudVision was told. Rounds are given as known what ended lately; the store knows for longer."""
        stored = {key: item.document for key, item in self._means.stored().items()}
        found = self._means.told.of(tenancy.resources) if cold else self._means.told.ended()
        ours = {
            key: config
            for key, config in found.items()
            if config.resource in tenancy.resources or config.name.startswith(self._prefix)
        }
        return ours | stored

    def _sought(self, tenancy: Tenancy, known: Mapping[Any, Known[TenantConfig]]) -> dict[str, Resource | None]:
        """Ask for what runs and is in no list; first for what was missed the least: the rest was asked for already."""
        lost = [
            item
            for item in known.values()
            if item.document.ended_at is None and item.document.resource not in tenancy.resources
        ]
        sought: dict[str, Resource | None] = {}
        for item in sorted(lost, key=lambda item: item.absence.rounds)[:_MOST_SOUGHT]:
            # One that cannot be shown is not gone.
            with suppress(SourceError):
                sought[item.document.resource] = self._means.portal.resource(item.document.resource)
        return sought

    def _ports(self, tenancy: Tenancy) -> dict[str, Mapping[str, str]]:
        """By node the MACs of its interfaces, when anybody is to be told by interfaces."""
        if not self._interfaces and not any(map(_by_interface, tenancy.resources.values())):
            return {}
        found: dict[str, Mapping[str, str]] = {}
        for node, (line, _) in self._means.facts.after(0.0).items():
            with suppress(ValueError):
                found[node] = {port.name: port.mac for port in node_facts(line).interfaces if port.name and port.mac}
        return found


def _by_interface(resource: Resource) -> bool:
    return any(isinstance(told, dict) and told.get("mode") == "interface" for told in _objects(resource))


def _objects(resource: Resource) -> Iterator[Any]:
    yield from (said.get(OBJECT) for said in (resource.backend_metadata, resource.attributes, resource.options))
