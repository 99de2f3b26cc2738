"""Tenants and what gives them nodes, as one observation."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from cvagent.clients.slurm_places import SlurmPlaces
from cvagent.model import Ask
from cvagent.model.nodes import node_facts
from cvagent.model.tenants import Places, TenantsSeen
from cvagent.sources.tenancy import TenancySource


class NodeFactReader(Protocol):
    """Keeps what nodes said."""

    def after(self, at: float) -> dict[str, tuple[bytes, float]]:
        """By node the line of its inventory, for all collected later than `at`."""
        ...


class TenantSource:
    """A `ports.Source`. Slurm is asked only for the places that count.

    Args:
        sources: See `pull.places.PlaceRules`.
        facts: What nodes said of their interfaces; None when nobody asks for interfaces.
        begun: When each of these began, as far as CloudVision says.
    """

    def __init__(
        self,
        tenancy: TenancySource,
        places: SlurmPlaces,
        sources: tuple[str, ...],
        facts: NodeFactReader | None,
        begun: Callable[[Iterable[str]], Mapping[str, int]],
    ) -> None:
        self._tenancy = tenancy
        self._places = places
        self._sources = sources
        self._facts = facts
        self._begun = begun

    def observe(self, ask: Ask) -> TenantsSeen:
        """Ask the portal and Slurm. Raises SourceError when either does not answer."""
        tenancy = self._tenancy.observe(ask)
        places = Places(
            reservations=self._places.reservations() if "reservation" in self._sources else {},
            partitions=self._places.partitions() if "partition" in self._sources else {},
            jobs=self._places.jobs() if "jobs" in self._sources else {},
        )
        # An agent that lost its store asks CloudVision, once.
        begun = self._begun(tenancy.resources) if ask.cold else {}
        return TenantsSeen(tenancy, places, self._ports(), begun)

    def _ports(self) -> dict[str, Mapping[str, str]]:
        lines = self._facts.after(0.0) if self._facts else {}
        return {
            node: {port.name: port.mac for port in node_facts(line).interfaces if port.name and port.mac}
            for node, (line, _) in lines.items()
        }
