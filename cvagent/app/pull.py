"""Makes the parts of pull mode. Its sources and sinks share one portal client and one look at the portal and Slurm."""

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Protocol

from cvagent.app.billing import Billing
from cvagent.clients.accounts import SlurmAccounts
from cvagent.clients.portal_orders import PortalOrders
from cvagent.clients.runner import Runner
from cvagent.errors import SettingsError
from cvagent.flows import Flow
from cvagent.model import Row
from cvagent.ports import Sink, Source
from cvagent.pull.accounts import AccountRules
from cvagent.pull.members import MemberRules
from cvagent.pull.names import NameRules
from cvagent.settings import Settings
from cvagent.settings.components import load_components
from cvagent.sinks.portal_orders import OrderAnswers
from cvagent.sinks.slurm_accounts import AccountCommands
from cvagent.sources.members import MemberSource
from cvagent.sources.tenancy import TenancySource


class _Rows(Protocol):
    def rows(self, sink: str, status: str | None = None, limit: int = 500) -> list[Row]:
        """See `ports.Outbox`."""
        ...


class Pull:
    """Makes what it is asked for, and nothing before.

    Args:
        cluster: Slurm's ClusterName.
        outbox: What the sinks hold.
    """

    def __init__(self, settings: Settings, cluster: str, runner: Runner, outbox: _Rows, billing: Billing) -> None:
        self._settings = settings
        self._billing = billing
        self._cluster = cluster
        self._runner = runner
        self._outbox = outbox

    def source(self, flow: Flow) -> Source:
        """The source of a flow."""
        return self._tenancy if flow.source == "tenancy" else self._members

    def sink(self, name: str) -> Sink:
        """A sink."""
        if name == "portal_orders":
            return OrderAnswers(self._orders, partial(self._billing.tell_last, self._runner), self._tenancy.forget)
        return AccountCommands(name, self._slurm, self._tenancy.forget)

    @cached_property
    def _orders(self) -> PortalOrders:
        return PortalOrders(self._billing.portal, self._settings.portal_offering or "")

    @cached_property
    def _slurm(self) -> SlurmAccounts:
        return SlurmAccounts(self._runner, self._cluster, self._settings.slurm_timeout_s)

    @cached_property
    def _tenancy(self) -> TenancySource:
        return TenancySource(self._orders, self._slurm, self._failures, self._settings.portal_interval_s / 2)

    @cached_property
    def _members(self) -> MemberSource:
        settings = self._settings
        return MemberSource(
            self._tenancy, self._orders, self._slurm, settings.portal_usernames, settings.portal_team_interval_s
        )

    def _failures(self) -> Mapping[str, str]:
        return {row.document.key: row.error or "" for row in self._outbox.rows("slurm_accounts", "set_aside")}


def make_account_rules(settings: Settings, cluster: str) -> AccountRules:
    """What the operator decided about accounts. Raises SettingsError for a wrong components file."""
    names = NameRules(
        customer_prefix=settings.account_customer_prefix,
        project_prefix=settings.account_project_prefix,
        allocation_prefix=settings.account_allocation_prefix,
        max_len=settings.account_name_max_len,
    )
    return AccountRules(
        cluster=cluster,
        names=names,
        nested=settings.account_layout == "nested",
        components=load_components(settings.components_file),
    )


def make_member_rules(settings: Settings, cluster: str, *, force: bool = False) -> MemberRules:
    """What the operator decided about members."""
    return MemberRules(
        cluster=cluster,
        default_account=settings.account_default,
        homedirs=settings.account_homedirs,
        paused_qos=settings.account_paused_qos,
        downscaled_qos=settings.account_downscaled_qos,
        removal_share=settings.removal_share,
        force=force,
    )


def check_pull(settings: Settings) -> None:
    """Raises SettingsError unless there is all that pull mode needs."""
    if settings.portal_url is None:
        raise SettingsError(f"CVAGENT_MODE={settings.mode} needs CVAGENT_PORTAL_URL and what goes with it")
