"""Makes the parts of pull mode. Its sources and sinks share one portal client and one look at the portal and Slurm."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from cvagent.app.billing import Billing
from cvagent.clients.accounts import SlurmAccounts
from cvagent.clients.cloudvision import CloudVision
from cvagent.clients.hostlist import unfold
from cvagent.clients.portal_orders import PortalOrders
from cvagent.clients.runner import Runner
from cvagent.clients.slurm_places import SlurmPlaces
from cvagent.errors import SettingsError, SourceError
from cvagent.flows import Flow
from cvagent.model import Known, Row
from cvagent.model.errands import Commands
from cvagent.model.tenancy import Failure
from cvagent.model.tenants import TenantConfig
from cvagent.ports import Sink, Source
from cvagent.pull.accounts import AccountRules
from cvagent.pull.members import MemberRules
from cvagent.pull.names import NameRules
from cvagent.pull.places import PlaceRules
from cvagent.pull.tenants import TenantRules
from cvagent.settings import Settings
from cvagent.settings.components import load_components
from cvagent.sinks.portal_associations import PortalAssociations
from cvagent.sinks.portal_orders import OrderAnswers
from cvagent.sinks.slurm_accounts import AccountCommands
from cvagent.sources.members import MemberSource
from cvagent.sources.tenancy import TenancySource
from cvagent.sources.tenants import NodeFactReader, TenantMeans, TenantSource
from cvagent.sources.told_tenants import ToldTenants

_ALL = 100_000
_SINCE_EVER = 0


class _Outbox(Protocol):
    def rows(self, sink: str, status: str | None = None, limit: int = 500) -> list[Row]:
        """See `ports.Outbox`."""
        ...

    def known(self, sink: str, since: int) -> dict[Any, Known[Any]]:
        """See `ports.Outbox`."""
        ...

    def checkpoint(self, flow: str) -> int | None:
        """See `ports.Outbox`."""
        ...

    def facts(self) -> NodeFactReader:
        """What nodes said."""
        ...


class Pull:
    """Makes what it is asked for, and nothing before.

    Args:
        cluster: Slurm's ClusterName.
        outbox: What the sinks hold.
    """

    def __init__(self, settings: Settings, cluster: str, runner: Runner, outbox: _Outbox, billing: Billing) -> None:
        self._settings = settings
        self._billing = billing
        self._cluster = cluster
        self._runner = runner
        self._outbox = outbox

    def source(self, flow: Flow) -> Source:
        """The source of a flow."""
        if flow.source == "tenants":
            return self.tenants
        return self.members if flow.source == "members" else self.tenancy

    def sink(self, name: str) -> Sink:
        """A sink."""
        if name == "portal_orders":
            return OrderAnswers(self._orders, partial(self._billing.tell_last, self._runner), self.tenancy.forget)
        if name == "portal_associations":
            return PortalAssociations(self._orders, self.tenancy.forget)
        return AccountCommands(name, self._slurm, self.tenancy.forget)

    @cached_property
    def _orders(self) -> PortalOrders:
        return PortalOrders(self._billing.portal, self._settings.portal_offering or "")

    @cached_property
    def _slurm(self) -> SlurmAccounts:
        return SlurmAccounts(self._runner, self._cluster, self._settings.slurm_timeout_s)

    @cached_property
    def tenancy(self) -> TenancySource:
        """The source `tenancy`, which the others read too."""
        return TenancySource(self._orders, self._slurm, self, self._settings.portal_interval_s / 2)

    @cached_property
    def members(self) -> MemberSource:
        """The source `members`."""
        settings = self._settings
        return MemberSource(
            self.tenancy, self._orders, self._slurm, settings.portal_usernames, settings.portal_team_interval_s
        )

    @cached_property
    def tenants(self) -> TenantSource:
        """The source `tenants`."""
        settings = self._settings
        means = TenantMeans(
            tenancy=self.tenancy,
            portal=self._orders,
            slurm=SlurmPlaces(self._runner, settings.slurm_timeout_s),
            facts=self._outbox.facts(),
            told=self.told,
            stored=self._stored,
        )
        interfaces = settings.tenant_mode == "interface"
        return TenantSource(means, settings.tenant_nodes, settings.account_allocation_prefix, interfaces=interfaces)

    @cached_property
    def told(self) -> ToldTenants:
        """What CloudVision holds of tenants."""
        return ToldTenants(partial(make_cloudvision, self._settings), self._cluster)

    def failures(self) -> Mapping[str, Failure]:
        """See `sources.tenancy.Held`."""
        aside = self._outbox.rows("slurm_accounts", "set_aside", _ALL)
        refused = [(row.document, row.error or "") for row in aside]
        return {errand.key: Failure(errand.commands, why) for errand, why in refused if isinstance(errand, Commands)}

    def shown(self) -> AbstractSet[str]:
        """See `sources.tenancy.Held`. Nothing is to be waited for where the flow does not run.

        Before its first round CloudVision says what it was told. When it does not answer, no order waits for it: what
        ended meanwhile the first round will tell.
        """
        if not self._settings.tells_tenants:
            return frozenset()
        stored = self._stored()
        told: Mapping[str, TenantConfig] = {}
        if self._outbox.checkpoint("tenants") is None:
            with suppress(SourceError):
                told = self.told.listed() or {}
        latest = {**told, **{key: item.document for key, item in stored.items()}}
        return {config.resource for config in latest.values() if config.ended_at is None}

    def _stored(self) -> dict[str, Known[TenantConfig]]:
        return self._outbox.known("cloudvision_tenants", _SINCE_EVER)


def make_cloudvision(settings: Settings) -> CloudVision:
    """CloudVision's client. Raises SettingsError when it has no address."""
    if settings.cloudvision_url is None:
        raise SettingsError("CVAGENT_CLOUDVISION_URL is not set: this needs CloudVision")
    return CloudVision(settings.cloudvision_url, settings.cloudvision_secret, settings.cloudvision_ca_file)


def make_tenant_rules(settings: Settings, *, force: bool = False) -> TenantRules:
    """What the operator decided about tenants. Raises SettingsError for a wrong map."""
    places = PlaceRules(
        sources=settings.tenant_nodes,
        interfaces=settings.tenant_mode == "interface",
        nics=settings.tenant_nics,
        allowed=frozenset(settings.tenant_allow),
        accounts=read_map(settings.tenant_map_file) if settings.tenant_map_file else {},
    )
    return TenantRules(places, settings.absent_rounds, settings.removal_share, force)


def read_map(path: Path) -> dict[str, str]:
    """Hostlists by account, from lines `account hostlist`. Raises SettingsError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"CVAGENT_TENANT_MAP_FILE: {error}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if words:
            found |= _entry(words, f"{path}:{number}")
    return found


def _entry(words: list[str], place: str) -> dict[str, str]:
    try:
        account, hostlist = words
        unfold(hostlist)
    except ValueError:
        raise SettingsError(
            f"{place}: must be an account and a hostlist, such as: hpc_0123a_bert gpu[001-016]"
        ) from None
    return {account.lower(): hostlist}


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
        default_account=settings.account_default,
    )


def make_member_rules(settings: Settings, cluster: str, *, force: bool = False) -> MemberRules:
    """What the operator decided about members."""
    return MemberRules(
        cluster=cluster,
        default_account=settings.account_default,
        homedirs=settings.account_homedirs,
        paused_qos=settings.account_paused_qos,
        downscaled_qos=settings.account_downscaled_qos,
        absent_rounds=settings.absent_rounds,
        removal_share=settings.removal_share,
        force=force,
    )


def check_pull(settings: Settings) -> None:
    """Raises SettingsError unless there is all that pull mode needs."""
    if settings.portal_url is None:
        raise SettingsError(
            f"CVAGENT_MODE={settings.mode} needs CVAGENT_PORTAL_URL, with its _TOKEN_FILE and CVAGENT_PORTAL_OFFERING"
        )


def other_cluster(settings: Settings, own: str) -> str | None:
    """Why pull mode may not change the cluster that is set, given Slurm's own ClusterName; None when it may.

    sacctmgr changes any cluster of its slurmdbd, while scancel and what is read of jobs mean Slurm's own.
    """
    if settings.mode == "push" or settings.cluster is None or settings.cluster.lower() == own.lower():
        return None
    return (
        f"CVAGENT_CLUSTER is {settings.cluster} and Slurm's ClusterName is {own}: pull mode would change the accounts "
        "of the one and cancel jobs of the other; leave CVAGENT_CLUSTER out"
    )
