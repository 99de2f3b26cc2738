"""Writes `docs/licences.md` from what the libraries of the lock say of themselves. Run it after `make lock`."""

import re
from importlib.metadata import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "run.txt"
PAGE = ROOT / "docs" / "licences.md"
FREE = re.compile(r"\b(MIT|BSD|Apache|PSF|ISC)\b")
COPYLEFT = re.compile(r"GPL|General Public|MPL|Mozilla|EUPL|CDDL|EPL", re.IGNORECASE)
WHY_ALL_THE_SAME = {
    "certifi": "a list of CAs, passed on as it is",
    "clustershell": "imported as it is, and may be replaced by another version",
    "psycopg": "imported as it is, and may be replaced by another version",
    "psycopg-binary": "imported as it is, and may be replaced by another version",
}
"""Libraries whose licence asks for something of those who pass them on, and why that is given."""


def locked():
    """The libraries of the lock, without those for Windows and for older Pythons."""
    found = re.findall(r"^([a-z0-9-]+)==(.*)", LOCK.read_text(), re.MULTILINE)
    return sorted({name for name, marker in found if not re.search(r"win32'|< '3\.11'", marker)})


def licence(name):
    """What a library says its licence is; empty when it says nothing."""
    said = metadata(name)
    classified = [entry.rpartition(" :: ")[2] for entry in said.get_all("Classifier", []) if "License ::" in entry]
    return said["License-Expression"] or ", ".join(classified) or (said["License"] or "").partition("\n")[0]


def fault(name, told):
    """Why a library may not be run with the agent, given its licence; None when it may."""
    if name in WHY_ALL_THE_SAME or (FREE.search(told) and not COPYLEFT.search(told)):
        return None
    return f"{name}: {told or 'says no licence'}"


def page():
    rows = [f"| {name} | {licence(name)} | {WHY_ALL_THE_SAME.get(name, '')} |" for name in locked()]
    return "\n".join(
        [
            "# Licences",
            "",
            "cvagent is under Apache-2.0. The libraries that it runs with, and that packages and image hold, say of",
            "themselves:",
            "",
            "| library | licence | why it may be passed on |",
            "|---|---|---|",
            *rows,
            "",
            "Without an entry in the last column a licence asks for no more than that its text comes along: it lies in",
            "the library's folder `*.dist-info`. `make sbom` lists all of them with their versions, as CycloneDX.",
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page())
