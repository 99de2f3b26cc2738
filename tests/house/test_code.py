"""What a linter does not count. The budgets may fall and never rise."""

import re

import house_files
import pytest

LONGEST = 300

# Built from parts, so that this file passes its own tests.
BUDGETS = {"no" + "qa": 5, "type: " + "ignore": 5, "pragma: no " + "cover": 0}


def found(pattern, texts):
    """Where a pattern stands, as path:line."""
    return [
        f"{path}:{number}"
        for path, text in texts
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]


def test_no_module_is_long():
    lengths = {path: len(text.splitlines()) for path, text in house_files.modules("cvagent")}
    assert {path: length for path, length in lengths.items() if length > LONGEST} == {}


@pytest.mark.parametrize("mark", BUDGETS)
def test_budget(mark):
    spent = found(rf"#.*\b{mark}\b", house_files.modules("cvagent"))
    assert len(spent) <= BUDGETS[mark], spent


@pytest.mark.parametrize("pattern", [r"shell\s*=\s*True", r"verify\s*=\s*False", r"^\s*except\s*:"])
def test_not_in_the_program(pattern):
    assert found(pattern, house_files.modules("cvagent")) == []


@pytest.mark.parametrize("pattern", [r"\bmock\." + "patch", r"\btime\." + r"sleep\(", r"^\s*except\s*:"])
def test_not_in_tests(pattern):
    assert found(pattern, house_files.modules("tests")) == []
