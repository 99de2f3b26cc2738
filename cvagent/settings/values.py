"""What one setting may hold. A validator raises ValueError that says what is allowed and leaves the value out.

The value is told beside the reason by `load`, which knows what must not be shown.
"""

import ipaddress
import re
import shlex
import ssl
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import unquote, urlsplit

from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException
from pydantic import AfterValidator, BeforeValidator, SecretStr

from cvagent.settings import secret

_LAST_PORT = 65535

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what may be set, and where to ask then


class Listen(NamedTuple):
    """Where the pages are served. Port 0 lets the system choose one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """True when only this machine can connect."""
        return is_loopback(self.host)

    @property
    def near_url(self) -> str:
        """Where this machine reaches the pages, without a slash at the end.

        >>> Listen("::", 9410).near_url, Listen("10.0.0.1", 9410).near_url
        ('http://[::1]:9410', 'http://10.0.0.1:9410')
        """
        host = _EVERYWHERE.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """True for localhost, 127.0.0.0/8 and ::1 (without brackets).

    >>> is_loopback("127.0.0.53"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(text: object) -> object:
    """Text becomes a Listen, or None when it is `off`.

    >>> listen("[::1]:9410")
    Listen(host='::1', port=9410)
    """
    if not isinstance(text, str):
        return text
    if text.lower() == "off":
        return None
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})", text)
    if not match or int(match[3]) > _LAST_PORT:
        raise ValueError(f"must be host:port, with a port up to {_LAST_PORT}, or off")
    if match[1]:
        ipaddress.IPv6Address(match[1])
    return Listen(match[1] or match[2], int(match[3]))


def cloudvision_url(text: str) -> str:
    """Scheme, host and port in lower case.

    >>> cloudvision_url("https://CVP.example.org:8443/")
    'https://cvp.example.org:8443'
    """
    scheme, host, port = _address(text)
    if scheme == "http" and not is_loopback(host):
        raise ValueError("must begin with https://; http:// is for loopback only")
    _refuse_bare_regional_name(host)
    return _joined(scheme, host, port)


def portal_url(text: str) -> str:
    """Scheme, host and port in lower case, and the path before `/api`, which older agents wanted to be given.

    >>> portal_url("https://Portal.example.org/api/"), portal_url("http://127.0.0.1:8481")
    ('https://portal.example.org', 'http://127.0.0.1:8481')
    """
    _, _, path = text.partition("://")[2].partition("/")
    scheme, host, port = _address(text.removesuffix("/" + path) if path else text)
    if scheme == "http" and not is_loopback(host):
        raise ValueError("must begin with https://; http:// is for loopback only")
    if not re.fullmatch(r"[A-Za-z0-9._~/-]*", path):
        raise ValueError("must be https://host or https://host/path")
    return _joined(scheme, host, port) + f"/{path}".rstrip("/").removesuffix("/api").rstrip("/")


def _joined(scheme: str, host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}" if port is None else f"{scheme}://{name}:{port}"


def uuid(text: str) -> str:
    """32 hex digits in lower case.

    >>> uuid("B3A1DA07-9A3A-4F8B-8E1B-8E8A0F0F0F0F")
    'b3a1da079a3a4f8b8e1b8e8a0f0f0f0f'
    """
    plain = text.replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{32}", plain):
        raise ValueError("must be a uuid: 32 hex digits, with or without hyphens")
    return plain


def _address(text: str) -> tuple[str, str, int | None]:
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError:  # its text would show what may be a password
        raise ValueError("must be https://host or https://host:port") from None
    if url.scheme not in {"https", "http"} or not re.fullmatch(r"[a-z0-9._:-]+", host) or port == 0:
        raise ValueError("must be https://host or https://host:port")
    if url.path not in {"", "/"} or "@" in url.netloc or "?" in text or "#" in text:
        raise ValueError("must hold no path and no credentials, only https://host or https://host:port")
    return url.scheme, host, port


def _refuse_bare_regional_name(host: str) -> None:
    # CloudVision as a service answers REST calls under www only; apiserver is its name for another protocol.
    if re.search(r"(^|\.)arista\.io$", host) and not host.startswith("www."):
        raise ValueError(f"is refused by CloudVision as a service: use https://www.{host.removeprefix('apiserver.')}")


def store_url(url: SecretStr) -> SecretStr:
    """The URL itself: sqlite:// (in memory), sqlite:///file, or postgresql://..."""
    text = secret.checked(url.get_secret_value())
    if not text.startswith(("sqlite://", "postgresql://")):
        raise ValueError("must begin with sqlite:// or postgresql://")
    if text.startswith("sqlite://") and text != "sqlite://" and not text.startswith("sqlite:///"):
        raise ValueError("a file is written sqlite:///relative or sqlite:////absolute")
    if not _is_plain(text):
        raise ValueError("must name a port from 1 to 65535 or none, and write / ? # @ in a password as %2F %3F %23 %40")
    return url


def _is_plain(url: str) -> bool:
    """False when a sign that divides a URL stands in its password: each reader would cut it elsewhere."""
    try:
        parts = urlsplit(url)
        return parts.port != 0 and not parts.fragment and url.count("@") == parts.netloc.count("@") <= 1
    except ValueError:  # its text would show part of the password
        return False


def passwords(url: str) -> list[str]:
    """The password of a store's URL, as it stands there and as it is meant; empty when there is none.

    >>> passwords("postgresql://me:p%40ss@db/x"), passwords("postgresql:///x?password=secret")
    (['p%40ss', 'p@ss'], ['secret'])
    """
    parts = urlsplit(url)
    asked = [value for pair in parts.query.split("&") for name, _, value in [pair.partition("=")] if name == "password"]
    raw = filter(None, [parts.password, *asked])
    return list(dict.fromkeys(text for password in raw for text in (password, unquote(password))))


def regex(text: object) -> object:
    """Text becomes a compiled pattern; an empty one matches everything."""
    try:
        return re.compile(text) if isinstance(text, str) else text
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None


def words(text: object) -> object:
    """Text becomes words, as a shell would part them.

    >>> words("--constraint='a b' -v")
    ('--constraint=a b', '-v')
    """
    try:
        return tuple(shlex.split(text)) if isinstance(text, str) else text
    except ValueError:
        raise ValueError("has a quote that is not closed") from None


def hostlist(text: object) -> object:
    """A hostlist becomes names.

    >>> hostlist("gpu[01-02],a1")
    ('a1', 'gpu01', 'gpu02')
    """
    try:
        return tuple(NodeSet(text, resolver=RESOLVER_NOGROUP)) if isinstance(text, str) else text
    except NodeSetException:
        raise ValueError("must be a hostlist, such as gpu[001-016]") from None


def node_sources(words: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is no place for a tenant's nodes."""
    known = ("reservation", "partition", "metadata", "map", "request", "jobs")
    if wrong := set(words) - set(known):
        raise ValueError(f"{', '.join(sorted(wrong))}: none of {', '.join(known)}")
    return words


def certificates(path: Path) -> Path:
    """The path itself, when OpenSSL finds at least one certificate in the file."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ValueError("holds no certificate in PEM form") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return path


def token(text: SecretStr) -> SecretStr:
    """The token itself, when it can stand in a header."""
    secret.checked(text.get_secret_value())
    return text


def secret_file(path: Path) -> Path:
    """The path itself, when a secret can be read from it."""
    secret.read(path)
    return path


def lower(text: object) -> object:
    """Choices are taken in any case."""
    return text.lower() if isinstance(text, str) else text


LOWER = BeforeValidator(lower)
Pattern = Annotated[re.Pattern[str], BeforeValidator(regex)]
Words = Annotated[tuple[str, ...], BeforeValidator(words)]
Hostlist = Annotated[tuple[str, ...], BeforeValidator(hostlist)]
NodeSources = Annotated[tuple[str, ...], BeforeValidator(words), AfterValidator(node_sources)]
Certificates = Annotated[Path, AfterValidator(certificates)]
CloudVisionUrl = Annotated[str, AfterValidator(cloudvision_url)]
PortalUrl = Annotated[str, AfterValidator(portal_url)]
Uuid = Annotated[str, AfterValidator(uuid)]
StoreUrl = Annotated[SecretStr, AfterValidator(store_url)]
Token = Annotated[SecretStr, AfterValidator(token)]
SecretFile = Annotated[Path, AfterValidator(secret_file)]
ListenOrOff = Annotated[Listen | None, BeforeValidator(listen)]
