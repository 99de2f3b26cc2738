"""The portal's part of `cvagent check`: reached, its token taken, its offering there, what is sold well described."""

import time
from collections.abc import Iterable, Iterator

from cvagent.app import make_portal
from cvagent.cli.finding import Finding
from cvagent.clients.portal import Portal
from cvagent.clients.portal_offering import PortalOffering
from cvagent.errors import CvagentError, SettingsError
from cvagent.model.components import Component
from cvagent.model.usage import Month
from cvagent.settings import Settings
from cvagent.settings.components import load_components


def check_portal(settings: Settings) -> Iterator[Finding]:
    """A finding a thing; none without a portal."""
    if settings.portal_url is None:
        return
    components: list[Component] = []
    try:
        components = list(load_components(settings.components_file).values())
        yield Finding(True, "components", f"{', '.join(one.tres for one in components)} ({settings.components_file})")
    except SettingsError as error:
        yield from (Finding(False, "components", line) for line in str(error).splitlines())
    yield from (Finding(None, "components", one.doubt) for one in components if one.doubt)
    portal = make_portal(settings)
    try:
        yield from _portal(settings, portal, components)
    except CvagentError as error:
        yield Finding(False, "portal", str(error))
    finally:
        portal.close()


def _portal(settings: Settings, portal: Portal, components: Iterable[Component]) -> Iterator[Finding]:
    url = settings.portal_url or ""
    tls = "TLS verified" if url.startswith("https") else "no TLS, loopback"
    yield Finding(True, "portal", f"{url} answers in the dialect {portal.dialect.name}, {tls}")
    offering = PortalOffering(portal, settings.portal_offering or "").look()
    sold = {component.type for component in offering.components}
    yield Finding(True, "offering", f"{offering.name}, token taken; sells {', '.join(sorted(sold)) or 'nothing yet'}")
    missing = [component.tres for component in components if component.tres not in sold]
    if missing:
        yield Finding(None, "offering", f"does not sell {', '.join(missing)} yet: the agent's start adds that")
    yield _month(portal.date)


def _month(date: float | None) -> Finding:
    if date is None:
        return Finding(None, "billing", "the portal sends no Date header: the month is this machine's")
    ours, theirs = Month.of(time.time()), Month.of(date)
    if ours != theirs:
        return Finding(False, "billing", f"it is {theirs} at the portal and {ours} here: no usage is told meanwhile")
    return Finding(True, "billing", f"it is {theirs}, here and at the portal")
