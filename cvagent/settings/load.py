"""Where settings come from, and how a wrong one is told.

Precedence: the environment, then the env file, then the default. Names of earlier agents count where ours is not given.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_settings import DotEnvSettingsSource

from cvagent.errors import SettingsError
from cvagent.settings.portal import Settings

ENV_FILE = "CVAGENT_ENV_FILE"

_OF_THE_PORTAL = {
    "SYNC_DIRECTION": "mode",
    "API_URL": "portal_url",
    "API_TOKEN": "portal_token",
    "OFFERING_UUID": "portal_offering",
    "SLURM_USERNAME_SOURCE": "portal_usernames",
}
OLDER_NAMES = {
    **{f"{portal}_{name}": setting for portal in ("CLOUDROCK", "WALDUR") for name, setting in _OF_THE_PORTAL.items()},
    "SLURM_TRES_CONFIG_PATH": "components_file",
    "SLURM_CUSTOMER_PREFIX": "account_customer_prefix",
    "SLURM_PROJECT_PREFIX": "account_project_prefix",
    "SLURM_ALLOCATION_PREFIX": "account_allocation_prefix",
    "SLURM_ALLOCATION_NAME_MAX_LEN": "account_name_max_len",
    "SLURM_DEFAULT_ACCOUNT": "account_default",
    "ENABLE_USER_HOMEDIR_ACCOUNT_CREATION": "account_homedirs",
    "API_SERVER": "cloudvision_url",
    "API_TOKEN": "cloudvision_token",
    "LOCATION": "cluster",
    "SLURM_DEPLOYMENT": "slurm_deployment",
    "SLURM_DEPLOYMENT_TYPE": "slurm_deployment",
    "SLURM_CONTAINER_NAME": "slurm_container",
}
"""Names that earlier agents of this family read, each with the setting it means."""

DOCKER_SECRETS = Path("/run/secrets")

NEVER_UNVERIFIED = "REQUESTS_VERIFY_SSL"

# Each token's setting and that of the file it may come from.
_TOKEN_FILES = {"cloudvision_token": "cloudvision_token_file", "portal_token": "portal_token_file"}
_SECRET_FILES = {*_TOKEN_FILES.values(), "http_token_file", "store_url_file"}
_URLS = {"cloudvision_url", "portal_url"}

# Kubernetes and old Docker links put these into the environment beside a service that is called cvagent.
_SERVICE_LINK = re.compile(r"CVAGENT_(SERVICE_|PORT_\d+_|PORT=\w+://)")


class Given(NamedTuple):
    """A setting as it was written."""

    name: str
    value: str


def load_settings(
    env_file: str | Path | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Settings, list[str]]:
    """Read all settings; call it again to read them anew.

    Args:
        env_file: None: the file that CVAGENT_ENV_FILE names, else `.env` in the working directory when there is one.
        environ: None: the environment of this process.

    Returns:
        The settings, and lines for the log: older names in use, secret files that everybody can read.

    Raises:
        SettingsError: a line for each wrong setting, with its name as written, its value unless that may be a secret,
            and what is allowed.
    """
    environ = os.environ if environ is None else environ
    written = _written(_env_file(env_file, environ), environ)
    given, notes = _by_setting(written, environ)
    wrong = _unknown(written) + _unverified(written) + _without_address(given)
    try:
        settings = Settings(**{setting: _meant(entry) for setting, entry in given.items()})
    except ValidationError as error:
        wrong += [_told(detail, given) for detail in error.errors()]
    if wrong:
        raise SettingsError("\n".join(wrong))
    if settings.cloudvision_url is None:
        notes.append(f"{name_of('cloudvision_url')} is not set: the portal alone is served")
    return settings, notes + settings.exposed_files()


def name_of(setting: str) -> str:
    """The name under which a setting is given.

    >>> name_of("mode")
    'CVAGENT_MODE'
    """
    return f"CVAGENT_{setting.upper()}"


def _env_file(env_file: str | Path | None, environ: Mapping[str, str]) -> Mapping[str, str | None]:
    named = env_file or environ.get(ENV_FILE)
    path = Path(named or ".env").expanduser()
    if not _stands(path, unknown=bool(named)):
        if named:
            raise SettingsError(f"{path}: there is no such env file")
        return {}
    try:
        return DotEnvSettingsSource(Settings, env_file=path, env_file_encoding="utf-8", case_sensitive=True).env_vars
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
    raise SettingsError(f"{path}: the env file cannot be read: {reason}")


def _written(*sources: Mapping[str, str | None]) -> dict[str, str]:
    """Names with a value; a later source wins."""
    return {name: text for source in sources for name, value in source.items() if (text := (value or "").strip())}


def _by_setting(written: Mapping[str, str], environ: Mapping[str, str]) -> tuple[dict[str, Given], list[str]]:
    """What is given for each setting, and a line for each older name."""
    names = {setting: name_of(setting) for setting in Settings.model_fields}
    given = {setting: Given(name, written[name]) for setting, name in names.items() if name in written}
    notes = [_adopt(older, written[older], given) for older in OLDER_NAMES if older in written]
    if NEVER_UNVERIFIED in written:
        notes.append(f"{NEVER_UNVERIFIED} is deprecated: certificates are always verified")
    for token, file in _TOKEN_FILES.items():
        if not given.keys() & {token, file} and token.replace("token", "url") in given:
            given |= _provided(token, file, environ)
    return given, notes


def _adopt(older: str, value: str, given: dict[str, Given]) -> str:
    """Take an older name's value for its setting, unless that is given; one line that says so."""
    setting = OLDER_NAMES[older]
    rivals = {setting, _TOKEN_FILES.get(setting, setting)}
    winners = [entry.name for rival, entry in given.items() if rival in rivals]
    if winners:
        return f"{older} is deprecated and ignored: {winners[0]} is given too"
    given[setting] = Given(older, value)
    return f"{older} is deprecated: use {name_of(setting)}"


def _provided(token: str, setting: str, environ: Mapping[str, str]) -> dict[str, Given]:
    """The token file that systemd or Docker put where they put such files."""
    folders = [Path(environ.get("CREDENTIALS_DIRECTORY") or DOCKER_SECRETS), DOCKER_SECRETS]
    file = next((file for folder in folders if _stands(file := folder / token, unknown=True)), None)
    return {setting: Given(name_of(setting), str(file))} if file else {}


def _stands(file: Path, *, unknown: bool) -> bool:
    """Whether something other than a directory is there; `unknown` when we may not look."""
    try:
        return file.exists() and not file.is_dir()
    except OSError:
        return unknown


def _meant(given: Given) -> Any:
    """What earlier agents took: a bare host name, with or without a port; `local` for the offering's own users."""
    if given.name == "API_SERVER" and "://" not in given.value:
        return f"https://{given.value}"
    return "offering" if given.name.endswith("_USERNAME_SOURCE") and given.value.lower() == "local" else given.value


def _unverified(written: Mapping[str, str]) -> list[str]:
    """A line when certificates are not to be verified: that is never so."""
    if written.get(NEVER_UNVERIFIED, "true").lower() in {"true", "1", "yes", "on"}:
        return []
    mend = f"{name_of('portal_ca_file')} names a file with the CA to trust"
    return [f"{NEVER_UNVERIFIED}={written[NEVER_UNVERIFIED]}: certificates are always verified; {mend}"]


def _without_address(given: Mapping[str, Given]) -> list[str]:
    """Lines when there is nobody to tell anything, or a token for CloudVision and no address of it."""
    url, token, file = "cloudvision_url", "cloudvision_token", "cloudvision_token_file"
    tokens = [entry.name for setting, entry in given.items() if setting in {token, file}]
    if url in given or ("portal_url" in given and not tokens):
        return []
    if tokens:
        return [f"{name_of(url)}: is required with {tokens[0]} ({Settings.model_fields[url].description})"]
    return [
        f"{name_of(url)}: is required, or {name_of('portal_url')} ({Settings.model_fields[url].description})",
        f"{name_of(file)}: is required ({Settings.model_fields[file].description})",
    ]


def _unknown(written: Mapping[str, str]) -> list[str]:
    """A line for each name of ours that is no setting."""
    known = [*map(name_of, Settings.model_fields), ENV_FILE]
    return [
        f"{name}: there is no such setting{_nearest(name, known)}"
        for name, value in written.items()
        if name.upper().startswith("CVAGENT_") and name not in known and not _SERVICE_LINK.match(f"{name}={value}")
    ]


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.upper(), known, n=1)
    return f"; did you mean {close[0]}?" if close else "; docs/settings.md lists them all"


def _told(detail: Any, given: Mapping[str, Given]) -> str:
    """One line about one wrong setting."""
    setting = str(detail["loc"][0])
    entry = given.get(setting)
    name = entry.name if entry else name_of(setting)
    value = f"={shown(setting, entry.value)}" if entry else ""
    cause = detail.get("ctx", {}).get("error")
    reason = str(cause) if cause else detail["msg"].replace("Input should", "must")
    return f"{name}{value}: {reason} ({Settings.model_fields[setting].description})"


def shown(setting: str, value: str) -> str:
    """A value as it may be shown.

    >>> shown("store_url", "postgresql://me:hidden@db/x"), shown("cloudvision_url", "https://me:hidden@cvp/")
    ("'postgresql://***'", "'https://***@cvp/'")
    >>> shown("http_token_file", "may-be-the-token"), shown("mode", "pusch")
    ('***', "'pusch'")
    """
    if setting in _TOKEN_FILES or (setting in _SECRET_FILES and not value.startswith(("/", "."))):
        return "***"
    if setting == "store_url":
        scheme, mark, _ = value.partition("://")
        return repr(f"{scheme}://***") if mark else "***"
    return repr(_without_credentials(value) if setting in _URLS else value)


def _without_credentials(url: str) -> str:
    """Everything before the last @, after ? or #, and a port that is no number may be a secret."""
    scheme, mark, rest = url.rpartition("://") if "://" in url else ("", "", url)
    rest = re.split(r"[?#]", f"***@{rest.rpartition('@')[2]}" if "@" in rest else rest)[0]
    return f"{scheme}{mark}{re.sub(r':[^/:]*[^/:0-9][^/:]*', ':***', rest)}"
