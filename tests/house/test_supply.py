"""What comes with the agent: its licences, and whether somebody looked for known vulnerabilities."""

import runpy

import licences
import pytest

AUDIT = runpy.run_path(str(licences.ROOT / "package" / "audit.py"))["verdict"]
FLAWED = {"name": "jinja2", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}]}
GOOD = {"name": "click", "version": "8.0", "vulns": []}
UNKNOWN = {"name": "rich", "skip_reason": "not found"}


def test_every_library_may_be_passed_on():
    assert len(licences.locked()) > 30
    assert [fault for name in licences.locked() if (fault := licences.fault(name, licences.licence(name)))] == []


@pytest.mark.parametrize(
    "told", ["GPL-3.0-only", "AGPL-3.0 AND MIT", "GNU General Public License v2 (GPLv2)", "", "Own"]
)
def test_a_licence_that_asks_for_more_is_a_fault(told):
    assert licences.fault("other", told)


def test_the_page_of_licences_is_up_to_date():
    rows = {line for line in licences.page().splitlines() if line.startswith("| ")}
    assert rows <= set(licences.PAGE.read_text().splitlines()), "run tests/house/licences.py"


@pytest.mark.parametrize(
    ("libraries", "found", "words"),
    [
        ([GOOD], False, "1 libraries checked, 0 vulnerabilities known"),
        ([GOOD, FLAWED], True, "jinja2 1.0: CVE-1, mended in 1.1"),
        ([UNKNOWN], False, "1 NOT CHECKED, as no advisories could be had: all"),
        ([GOOD, UNKNOWN], False, "1 NOT CHECKED, as no advisories could be had: rich"),
    ],
)
def test_an_audit_says_what_it_found_and_what_it_did_not_check(libraries, found, words):
    lines, flawed = AUDIT(libraries)
    assert flawed == found
    assert words in "\n".join(lines)
