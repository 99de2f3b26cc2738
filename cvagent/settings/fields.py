"""Settings for all but the portal: default, limits, one line for people, and what each asks of the others."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from cvagent.settings import values
from cvagent.settings.secret import Secret, exposure, read

IN_MEMORY = "sqlite://"


class ClusterSettings(BaseSettings):
    """Checked and frozen; `Settings` in the module `portal` adds what the portal takes.

    Arguments are its only source, so that the environment of a test or a tool cannot leak in; `load_settings` reads
    the rest.
    Checks between two settings stand on the one that is declared later.
    """

    model_config = SettingsConfigDict(
        env_prefix="CVAGENT_", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    cloudvision_url: values.CloudVisionUrl | None = Field(
        None,
        description="CloudVision's address, https://host or https://host:port; http:// on loopback only; "
        "none: the portal alone is served",
    )
    cloudvision_token: values.Token | None = Field(
        None,
        description="CloudVision's service account token; this or CVAGENT_CLOUDVISION_TOKEN_FILE is needed with "
        "CVAGENT_CLOUDVISION_URL",
    )
    cloudvision_token_file: values.SecretFile | None = Field(
        None,
        description="File with the token, read again when it changes; without either setting, cloudvision_token in "
        "systemd's $CREDENTIALS_DIRECTORY or in /run/secrets",
    )
    cloudvision_ca_file: values.Certificates | None = Field(
        None, description="PEM file with the CA that signed CloudVision's certificate; none: the public CAs"
    )
    mode: Annotated[Literal["push", "pull", "both"], values.LOWER] = Field(
        "push", description="push (cluster to the outside), pull (portal to the cluster) or both"
    )
    cluster: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Name of the cluster: letters, digits and _ . -; none: Slurm's own, as pull mode wants it",
    )
    slurm_deployment: Annotated[Literal["native", "docker"], values.LOWER] = Field(
        "native", description="Where Slurm's commands run: native (this machine) or docker (a container)"
    )
    slurm_container: str | None = Field(
        None, description="Name or id of the container that holds Slurm's commands; needed for docker"
    )
    slurm_user: str | None = Field(
        None, description="User as whom Slurm's commands run in the container; none: whoever the container runs as"
    )
    slurm_bin_dir: Path | None = Field(None, description="Directory of Slurm's commands; none: found on the PATH")
    slurm_conf: Path | None = Field(
        None, description="Path of slurm.conf, handed to Slurm's commands as SLURM_CONF; none: their own default"
    )
    slurm_timeout_s: float = Field(20, ge=1, le=600, description="Seconds that one Slurm command may take, 1 to 600")
    job_interval_s: float = Field(
        30, ge=1, le=3600, description="Seconds from one look at the jobs to the next, 1 to 3600"
    )
    lookback_h: float = Field(
        24, ge=0, le=720, description="Hours that an agent with an empty store looks back for ended jobs, 0 to 720"
    )
    job_name_filter: values.Pattern = Field(
        "^(?!cv-)",
        validate_default=True,
        description="Regular expression: a job is reported when a match is in its name",
    )
    partition_filter: values.Pattern = Field(
        "",
        validate_default=True,
        description="Regular expression: a job is reported when a match is in its partition's name; none: all",
    )
    job_resources: Annotated[Literal["node", "interface", "auto"], values.LOWER] = Field(
        "auto",
        description="How jobs are told: node (by their nodes), interface (by MACs, where those are known) or auto (by "
        "MACs where a node is shared); MACs need CVAGENT_NODE_FACTS",
    )
    hook_spool: Path | None = Field(
        None, description="Directory in which the hook leaves its notes (docs/hook.md); none: no notes are looked for"
    )
    node_facts: Annotated[Literal["srun", "ssh", "report", "off"], values.LOWER] = Field(
        "srun",
        description="How nodes tell their interfaces: srun (one small job step), ssh, report (by themselves, in files "
        "or by HTTP) or off (docs/operations.md)",
    )
    node_interval_s: float = Field(
        60, ge=1, le=86_400, description="Seconds from one look at the nodes to the next, 1 to 86400"
    )
    node_facts_max_age_h: float = Field(
        24, gt=0, le=8760, description="Hours after which a node is asked for its interfaces again, up to 8760"
    )
    node_report_dir: Path | None = Field(
        None, description="Directory in which nodes leave reports as NODE.json, when CVAGENT_NODE_FACTS is report"
    )
    ssh_args: values.Words = Field(
        "",
        validate_default=True,
        description="Arguments for ssh when CVAGENT_NODE_FACTS is ssh, in a shell's quotes: -i KEY -l USER, -F FILE",
    )
    ssh_fanout: int = Field(64, ge=1, le=1024, description="Nodes that are asked by ssh at the same time, 1 to 1024")
    node_key: Annotated[Literal["node", "node@cluster"], values.LOWER] = Field(
        "node", description="What a node is called in CloudVision: node (its name in Slurm) or node@cluster"
    )
    interface_filter: values.Pattern = Field(
        "",
        validate_default=True,
        description="Regular expression: an interface is reported when a match is in its name; none: all physical ones",
    )
    interface_kind: Annotated[Literal["all", "pf", "vf", "regular"], values.LOWER] = Field(
        "all",
        description="Interfaces to report: all, pf (SR-IOV physical functions), vf (virtual ones) or regular (others)",
    )
    inventory_partition: str | None = Field(
        None, description="Partition of the inventory's job; none: one that each node is in, the default one first"
    )
    inventory_account: str | None = Field(None, description="Account of the inventory's job; none: the user's default")
    inventory_qos: str | None = Field(None, description="QOS of the inventory's job; none: the default")
    inventory_reservation: str | None = Field(None, description="Reservation of the inventory's job; none: none")
    inventory_time_s: float = Field(
        60, ge=5, le=3600, description="Seconds that one inventory may take with all its waiting, 5 to 3600"
    )
    inventory_args: values.Words = Field(
        "", validate_default=True, description="More arguments for the inventory's srun, in a shell's quotes"
    )
    inventory_allow: values.Pattern = Field(
        "",
        validate_default=True,
        description="Regular expression: interfaces that are read though they are no hardware (veth); none: none",
    )
    store_url: values.StoreUrl = Field(
        IN_MEMORY,
        validate_default=True,
        description="Where state is kept: sqlite:// (in memory), sqlite:///file or postgresql://user:password@host/name",
    )
    store_url_file: values.SecretFile | None = Field(
        None, description="File that holds the store's URL, for one with a password; in place of CVAGENT_STORE_URL"
    )
    http_listen: values.ListenOrOff = Field(
        "127.0.0.1:9410",
        validate_default=True,
        description="host:port of the pages and metrics, [host]:port for IPv6, or off",
    )
    http_token_file: values.SecretFile | None = Field(
        None,
        description="File with the token that the pages ask for; needed when CVAGENT_HTTP_LISTEN is beyond loopback",
    )
    node_report_token_file: values.SecretFile | None = Field(
        None,
        description="File with the token that nodes give when they send their report to CVAGENT_HTTP_LISTEN; none: "
        "nodes cannot send any (docs/operations.md)",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], values.LOWER] = Field(
        "info", description="The least that is logged: debug, info, warning or error"
    )
    log_format: Annotated[Literal["text", "json"], values.LOWER] = Field(
        "text", description="Log lines as text or json, on standard error"
    )
    removal_share: float = Field(
        0.30, ge=0, le=1, description="Share of what is known, 0 to 1, above which a round's removals are withheld"
    )
    absent_rounds: int = Field(
        3,
        ge=1,
        le=100,
        description="Good observations in a row that must miss a job, a node, a tenant or a member before it counts as "
        "gone, 1 to 100",
    )

    _cloudvision_secret: Secret = PrivateAttr()
    _http_secret: Secret | None = PrivateAttr()
    _report_secret: Secret | None = PrivateAttr()
    _store_secret: Secret = PrivateAttr()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments only."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    def model_post_init(self, context: Any, /) -> None:
        """Make the secrets, one object each, so that what they hold is known to `secret_texts`."""
        del context
        self._cloudvision_secret = secret_of(self.cloudvision_token, self.cloudvision_token_file)
        self._http_secret = Secret(path=self.http_token_file) if self.http_token_file else None
        reports = self.node_report_token_file
        self._report_secret = Secret(path=reports) if reports else None
        self._store_secret = secret_of(None if self.store_url_file else self.store_url, self.store_url_file)

    @property
    def cloudvision_secret(self) -> Secret:
        """CloudVision's token, from the setting or from its file."""
        return self._cloudvision_secret

    @property
    def http_secret(self) -> Secret | None:
        """The token that the pages ask for; None when they ask for none."""
        return self._http_secret

    @property
    def report_secret(self) -> Secret | None:
        """The token that a node gives with its report; None when nodes cannot send any."""
        return self._report_secret

    @property
    def store_secret(self) -> Secret:
        """The store's URL, which may hold a password, from the setting or from its file."""
        return self._store_secret

    def secret_texts(self) -> list[str]:
        """Texts that no log may show, as far as they were read by now: tokens, and the store's password."""
        held = (self._cloudvision_secret, self._http_secret, self._report_secret)
        tokens = [text for secret in held if secret for text in secret.texts()]
        passwords = [text for url in self._store_secret.texts() for text in values.passwords(url)]
        return tokens + passwords

    def exposed_files(self) -> list[str]:
        """A line for each secret file that everybody on the machine can read."""
        files = (self.cloudvision_token_file, self.http_token_file, self.node_report_token_file, self.store_url_file)
        return [line for path in files if path and (line := exposure(path))]

    @field_validator("cloudvision_token_file")
    @classmethod
    def _one_token(cls, path: Path | None, others: ValidationInfo) -> Path | None:
        needed = others.data.get("cloudvision_url", "a wrong one") is not None
        if (
            needed
            and "cloudvision_token" in others.data
            and (path is None) == (others.data["cloudvision_token"] is None)
        ):
            raise ValueError("give either CVAGENT_CLOUDVISION_TOKEN or CVAGENT_CLOUDVISION_TOKEN_FILE")
        return path

    @field_validator("slurm_container")
    @classmethod
    def _container_of_docker(cls, container: str | None, others: ValidationInfo) -> str | None:
        if container is None and others.data.get("slurm_deployment") == "docker":
            raise ValueError("is needed when CVAGENT_SLURM_DEPLOYMENT is docker")
        return container

    @field_validator("slurm_bin_dir")
    @classmethod
    def _directory_of_native(cls, path: Path | None, others: ValidationInfo) -> Path | None:
        if path and others.data.get("slurm_deployment") == "native" and not path.is_dir():
            raise ValueError("must be a directory on this machine")
        return path

    @field_validator("store_url_file")
    @classmethod
    def _one_store(cls, path: Path | None, others: ValidationInfo) -> Path | None:
        if path is None:
            return None
        given = others.data.get("store_url")
        if given and given.get_secret_value() != IN_MEMORY:
            raise ValueError("give either CVAGENT_STORE_URL or CVAGENT_STORE_URL_FILE")
        values.store_url(SecretStr(read(path)))
        return path

    @field_validator("node_report_token_file")
    @classmethod
    def _way_of_reports(cls, path: Path | None, others: ValidationInfo) -> Path | None:
        if path is None and others.data.get("node_facts") == "report" and not others.data.get("node_report_dir"):
            raise ValueError("is needed when CVAGENT_NODE_FACTS is report, or CVAGENT_NODE_REPORT_DIR")
        if path and "http_listen" in others.data and others.data["http_listen"] is None:
            raise ValueError("takes reports on CVAGENT_HTTP_LISTEN, which is off")
        return path

    @field_validator("http_token_file")
    @classmethod
    def _token_beyond_loopback(cls, path: Path | None, others: ValidationInfo) -> Path | None:
        listen = others.data.get("http_listen")
        if path is None and listen and not listen.loopback:
            raise ValueError("is needed when CVAGENT_HTTP_LISTEN is beyond loopback")
        return path


def secret_of(text: SecretStr | None, path: Path | None) -> Secret:
    """The secret itself, or the file that holds it."""
    return Secret(path=path) if path else Secret(text=text.get_secret_value() if text else "")
