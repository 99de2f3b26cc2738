"""Says whether a library of the lock has a known vulnerability, and ends with exit code 1 when one has.

What could not be asked about is named as not checked: it is no pass.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = "requirements/run.txt"
_COMMAND = (
    "-m",
    "pip_audit",
    "-r",
    LOCK,
    "--disable-pip",
    "--require-hashes",
    "-f",
    "json",
    "--progress-spinner",
    "off",
)


def main() -> int:
    """Print what was found; the exit code."""
    done = subprocess.run([sys.executable, *_COMMAND], cwd=ROOT, capture_output=True, text=True, check=False)
    if not done.stdout.startswith("{"):
        last = (done.stderr.strip().splitlines() or ["no word of why"])[-1]
        print(f"{LOCK}: NOT CHECKED for vulnerabilities: {last[:200]}")
        return 0
    lines, flawed = verdict(json.loads(done.stdout)["dependencies"])
    print("\n".join(lines))
    return int(flawed)


def verdict(libraries: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """Lines for people about pip-audit's `dependencies`, and whether a vulnerability is known."""
    unasked = [library["name"] for library in libraries if "skip_reason" in library]
    found = [(library, flaw) for library in libraries for flaw in library.get("vulns", ())]
    lines = [f"{library['name']} {library['version']}: {flaw['id']}, {_mend(flaw)}" for library, flaw in found]
    lines.append(f"{LOCK}: {len(libraries) - len(unasked)} libraries checked, {len(found)} vulnerabilities known")
    if unasked:
        which = "all" if len(unasked) == len(libraries) else ", ".join(unasked)
        lines.append(f"{LOCK}: {len(unasked)} NOT CHECKED, as no advisories could be had: {which}")
    return lines, bool(found)


def _mend(flaw: dict[str, Any]) -> str:
    return f"mended in {' and '.join(flaw['fix_versions'])}" if flaw["fix_versions"] else "not mended yet"


if __name__ == "__main__":
    sys.exit(main())
