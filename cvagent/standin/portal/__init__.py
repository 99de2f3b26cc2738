"""A strict tenant portal on loopback, in three dialects: real HTTP, a page to order on, and trouble on demand.

Start with `PortalStandIn`; `market` holds the states, `billing` what is accepted as usage, `routes` what each dialect
has.
"""

from cvagent.standin.portal.market import DIALECTS, OFFERING
from cvagent.standin.portal.objects import Component, Customer, Person, Project, Refusal
from cvagent.standin.portal.server import PORT, PortalStandIn, furnish, main

__all__ = [
    "DIALECTS",
    "OFFERING",
    "PORT",
    "Component",
    "Customer",
    "Person",
    "PortalStandIn",
    "Project",
    "Refusal",
    "furnish",
    "main",
]
