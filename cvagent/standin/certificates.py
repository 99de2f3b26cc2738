"""A private CA and a certificate of a stand-in, made by the openssl command so that no package is needed."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

# Python 3.13 verifies strictly: key identifiers and key usage have to be there.
_CONFIG = """
[req]
distinguished_name = name
prompt = no
[name]
CN = stand-in
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, DNS:NAME, IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
_CONFIG_FILE = ("-config", "openssl.cnf")
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_DAYS = ("-days", "30")
_STEPS = (
    ("req", "-x509", *_NEW_KEY, *_DAYS, *_CONFIG_FILE, "-extensions", "ca", "-subj", "/CN=stand-in CA",
     "-keyout", "ca.key", "-out", "ca.pem"),
    ("req", "-new", *_NEW_KEY, *_CONFIG_FILE, "-subj", "/CN=localhost",
     "-keyout", "server.key", "-out", "server.csr"),
    ("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", *_DAYS,
     "-extfile", "openssl.cnf", "-extensions", "server", "-out", "server.pem"),
)  # fmt: skip


class Certificates(NamedTuple):
    """PEM files: the CA to trust, and what the server shows."""

    ca: str
    certificate: str
    key: str


def make_certificates(folder: Path, name: str = "localhost") -> Certificates:
    """Make a CA and a certificate for a host name, localhost and 127.0.0.1, valid for 30 days.

    Raises:
        ValueError: That is no host name.
        RuntimeError: There is no openssl command, or it failed.
    """
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}", name):
        raise ValueError(f"{name!r} is no host name: letters, digits, . and -")
    openssl = shutil.which("openssl")
    if openssl is None:
        raise RuntimeError("TLS needs the openssl command: install the package openssl")
    (folder / "openssl.cnf").write_text(_CONFIG.replace("NAME", name))
    for step in _STEPS:
        done = subprocess.run([openssl, *step], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"openssl {step[0]} failed: {done.stderr.strip()}")
    return Certificates(*(str(folder / name) for name in ("ca.pem", "server.pem", "server.key")))
