"""Makes what speaks to the tenant portal of what is sold and what was used."""

import logging
import time
from threading import Lock

from cvagent.clients.portal import Portal
from cvagent.clients.portal_offering import PortalOffering
from cvagent.clients.portal_usage import PortalUsage
from cvagent.clients.runner import Runner
from cvagent.clients.slurm_usage import SlurmUsage
from cvagent.errors import CvagentError, Permanent, Retryable, SettingsError, SourceError
from cvagent.model.usage import Month, UsageReport, UsageSeen
from cvagent.push.usage import UsageRules, plan_usage
from cvagent.settings import Settings
from cvagent.settings.components import load_components
from cvagent.sinks.portal_usage import UsageReports
from cvagent.sources.slurm_usage import AllottedUsage

log = logging.getLogger(__name__)

_LAST_CALL_S = 60


class Billing:
    """The parts of the flow `usage`, and what is sold. Speaks to nobody before it is asked to.

    Attributes:
        portal: The portal that the settings name.
    """

    def __init__(self, settings: Settings) -> None:
        self.portal = make_portal(settings)
        self._settings = settings
        self._declaring = Lock()
        self._declared = False

    def declare(self) -> None:
        """Have the portal sell what the components file says: once, unless that fails. Any thread may call."""
        with self._declaring:
            if self._declared:
                return
            try:
                components = load_components(self._settings.components_file)
                told = PortalOffering(self.portal, self._offering).declare(components.values())
            except CvagentError as error:
                log.warning("the portal was not told what is sold: %s", error)
                return
            self._declared = True
        for line in told:
            log.info("the portal's offering: component %s", line)

    def source(self, runner: Runner) -> AllottedUsage:
        """The source `slurm_usage`."""
        usage = SlurmUsage(runner, self._settings.slurm_timeout_s)
        return AllottedUsage(usage, self.portal, self._offering, self._settings.usage_final_days)

    def tell_last(self, runner: Runner, resource_uuid: str) -> None:
        """Tell what a resource used to its end. Raises Retryable; what the portal refuses is logged, and no more."""
        self.declare()
        try:
            seen = self._seen_last(runner, resource_uuid)
            for change in plan_usage(seen, {}, make_usage_rules(self._settings)).changes:
                if isinstance(change.after, UsageReport):
                    PortalUsage(self.portal).tell(change.after)
        except (SourceError, SettingsError) as error:
            raise Retryable(f"the last usage is not told yet: {error}") from None
        except Permanent as error:
            log.error("resource %s ends, and the portal did not take its last usage: %s", resource_uuid, error)

    def _seen_last(self, runner: Runner, resource_uuid: str) -> UsageSeen:
        """What there is to be told; SourceError while it is held."""
        seen = self.source(runner).observe_one(resource_uuid, int(time.time()))
        if seen.note:
            raise SourceError(seen.note)
        return seen

    def sink(self) -> UsageReports:
        """The sink `portal_usage`."""
        return UsageReports(PortalUsage(self.portal), self.declare)

    @property
    def _offering(self) -> str:
        return self._settings.portal_offering or ""


def month_ends(now: float) -> bool:
    """Whether this is the last minute of a month: a portal that takes no dates keeps what it is told now.

    >>> month_ends(1772323199), month_ends(1772323200)
    (True, False)
    """
    return Month.of(now).end - now <= _LAST_CALL_S


def make_portal(settings: Settings) -> Portal:
    """The portal that the settings name."""
    return Portal(
        settings.portal_url or "", settings.portal_secret, settings.portal_ca_file, dialect=settings.portal_dialect
    )


def make_usage_rules(settings: Settings, *, force: bool = False) -> UsageRules:
    """What the operator decided about usage. Raises SettingsError for a wrong components file."""
    return UsageRules(
        components=load_components(settings.components_file),
        final_days=settings.usage_final_days,
        removal_share=settings.removal_share,
        force=force,
    )
