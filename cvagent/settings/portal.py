"""Settings of the tenant portal and of what becomes of its orders; with them `Settings` is whole."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator

from cvagent.settings import values
from cvagent.settings.fields import ClusterSettings, secret_of
from cvagent.settings.secret import Secret, exposure

_NAME = "[A-Za-z0-9_-]"


def _prefix(of: str) -> Any:
    return Field(
        "hpc_",
        pattern=rf"^{_NAME}*$",
        description=f"What the account name of {of} begins with: letters, digits, _ and -",
    )


class Settings(ClusterSettings):
    """All settings, checked and frozen."""

    portal_url: values.PortalUrl | None = Field(
        None,
        description="The tenant portal's address, https://host or https://host/path; http:// on loopback only; "
        "none: no portal",
    )
    portal_token: values.Token | None = Field(
        None, description="The portal's token; this or CVAGENT_PORTAL_TOKEN_FILE is needed with CVAGENT_PORTAL_URL"
    )
    portal_token_file: values.SecretFile | None = Field(
        None,
        description="File with the portal's token, read again when it changes; without either setting, portal_token in "
        "systemd's $CREDENTIALS_DIRECTORY or in /run/secrets",
    )
    portal_ca_file: values.Certificates | None = Field(
        None, description="PEM file with the CA that signed the portal's certificate; none: the public CAs"
    )
    portal_offering: values.Uuid | None = Field(
        None, description="The offering's uuid at the portal; needed with CVAGENT_PORTAL_URL"
    )
    portal_dialect: Annotated[Literal["auto", "order-items", "orders", "waldur"], values.LOWER] = Field(
        "auto",
        description="The portal's API: order-items (2022), orders (2024), waldur (today), or auto: found by asking",
    )
    portal_interval_s: float = Field(
        60, ge=5, le=3600, description="Seconds from one look at the portal's orders to the next, 5 to 3600"
    )
    portal_team_interval_s: float = Field(
        300,
        ge=0,
        le=86_400,
        description="Seconds after which the team of an allocation is read again, a request each, 0 to 86400",
    )
    portal_usernames: Annotated[Literal["offering", "freeipa", "portal"], values.LOWER] = Field(
        "offering",
        description="Where a member's name on the cluster comes from: offering (the offering's users), freeipa "
        "(FreeIPA profiles) or portal (the name at the portal)",
    )
    components_file: Path = Field(
        Path("config-components.yaml"),
        description="File that says what is sold: the TRES, their units and their default limits (docs/portal.md)",
    )
    usage_interval_s: float = Field(
        3600, ge=60, le=86_400, description="Seconds from one report of usage to the portal to the next, 60 to 86400"
    )
    usage_final_days: int = Field(
        7, ge=0, le=28, description="Days of the next month for which a month's usage is reported again, 0 to 28"
    )
    account_customer_prefix: str = _prefix("a customer")
    account_project_prefix: str = _prefix("a project")
    account_allocation_prefix: str = _prefix("an allocation")
    account_name_max_len: int = Field(
        34, ge=8, le=200, description="Letters after which an allocation's account name is cut"
    )
    account_layout: Annotated[Literal["nested", "flat"], values.LOWER] = Field(
        "nested",
        description="Where an allocation's account stands: nested (below its project's) or flat (below root, as older "
        "agents had it)",
    )
    account_default: str | None = Field(
        None,
        pattern=rf"^{_NAME}+$",
        description="Account that becomes a user's default when they lose the one that was; none: another of theirs",
    )
    account_homedirs: bool = Field(
        False, description="Whether home directories are made for new members, by mkhomedir_helper on this machine"
    )

    account_paused_qos: str | None = Field(
        None,
        pattern=rf"^{_NAME}+$",
        description="QOS that is added to the account of a paused allocation and is its default; none: no job may be "
        "submitted (GrpSubmitJobs=0)",
    )
    account_downscaled_qos: str | None = Field(
        None,
        pattern=rf"^{_NAME}+$",
        description="QOS that is added to the account of a downscaled allocation and is its default; none: nothing is "
        "done",
    )

    tenant_nodes: values.NodeSources = Field(
        "reservation partition metadata map",
        validate_default=True,
        description="Where a tenant's nodes are looked for, the first that names any counts: reservation, partition, "
        "metadata, map, request and jobs (docs/portal.md); empty: CloudVision hears of no tenants",
    )
    tenant_mode: Annotated[Literal["node", "interface"], values.LOWER] = Field(
        "node", description="What CloudVision is told of a tenant: node (its nodes) or interface (their MACs)"
    )
    tenant_nics: values.Pattern = Field(
        "",
        validate_default=True,
        description="Regular expression: of a tenant's nodes these interfaces are told; none: all that are known",
    )
    tenant_allow: values.Hostlist = Field(
        "",
        validate_default=True,
        description="Hostlist of the nodes that a tenant may claim by what they write at the portal; none: none",
    )
    tenant_map_file: Path | None = Field(
        None, description="File with lines 'account hostlist', for the source map; none: no map"
    )

    _portal_secret: Secret = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Make the portal's secret, too."""
        super().model_post_init(context)
        self._portal_secret = secret_of(self.portal_token, self.portal_token_file)

    @property
    def tells_tenants(self) -> bool:
        """Whether CloudVision is to hear of tenants."""
        return bool(self.tenant_nodes) and self.cloudvision_url is not None

    @property
    def portal_secret(self) -> Secret:
        """The portal's token, from the setting or from its file."""
        return self._portal_secret

    def secret_texts(self) -> list[str]:
        """See ClusterSettings."""
        return [*super().secret_texts(), *self._portal_secret.texts()]

    def exposed_files(self) -> list[str]:
        """See ClusterSettings."""
        path = self.portal_token_file
        return [*super().exposed_files(), *([line] if path and (line := exposure(path)) else [])]

    @field_validator("portal_token_file")
    @classmethod
    def _one_portal_token(cls, path: Path | None, others: ValidationInfo) -> Path | None:
        token = others.data.get("portal_token")
        if path and token:
            raise ValueError("give either CVAGENT_PORTAL_TOKEN or CVAGENT_PORTAL_TOKEN_FILE")
        if not path and not token and others.data.get("portal_url") and "portal_token" in others.data:
            raise ValueError("this or CVAGENT_PORTAL_TOKEN is needed with CVAGENT_PORTAL_URL")
        return path

    @field_validator("portal_offering")
    @classmethod
    def _offering_of_portal(cls, offering: str | None, others: ValidationInfo) -> str | None:
        if offering is None and others.data.get("portal_url"):
            raise ValueError("is needed with CVAGENT_PORTAL_URL")
        return offering
