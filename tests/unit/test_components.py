from decimal import Decimal
from pathlib import Path

import pytest

from cvagent.errors import SettingsError
from cvagent.model.components import Accounting, Component
from cvagent.settings.components import load_components

SHIPPED = Path(__file__).parents[2] / "config-components.yaml"
NO_TRES = "is no TRES: cpu, mem, node, billing, gres/NAME or license/NAME"
CPU = "cpu:\n  measured_unit: h\n"
SOLD = f"{CPU}  accounting_type: usage\n"
GOOD = "cpu: {measured_unit: k-Hours, accounting_type: usage}\n"


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "components.yaml"
        path.write_text(text)
        return load_components(path)

    return load


@pytest.fixture
def wrong(load, tmp_path):
    def wrong(text):
        with pytest.raises(SettingsError) as refusal:
            load(text)
        return str(refusal.value).replace(str(tmp_path / "components.yaml"), "").splitlines()

    return wrong


def test_the_shipped_one():
    found = load_components(SHIPPED)
    assert list(found) == ["cpu", "gres/gpu", "mem"]
    assert found["cpu"] == Component("cpu", "CPU", "k-Hours", Accounting.USAGE, Decimal(16), Decimal(60000))
    assert [component.doubt for component in found.values()] == [None] * 3


def test_the_form_of_older_agents(load):
    found = load(
        "cpu: {limit: 16000, measured_unit: k-Hours, accounting_type: limit, label: CPU}\n"
        "mem: {limit: 1, measured_unit: gb-Hours, accounting_type: usage, label: 'R A M'}"
    )
    assert found["cpu"] == Component("cpu", "CPU", "k-Hours", Accounting.LIMIT, Decimal(16000), Decimal(1))
    assert found["mem"].label == "R A M"


@pytest.mark.parametrize(
    ("unit", "doubtful"), [("k-Hours", 1), ("GPU hours", 1), ("core-h", 1), ("kh", 1), ("minutes", 0), ("month", 0)]
)
def test_hours_that_count_as_minutes(load, unit, doubtful):
    text = f"cpu: {{measured_unit: {unit}, accounting_type: usage%s}}"
    assert bool(load(text % "")["cpu"].doubt) == bool(doubtful)
    assert load(text % ", unit_factor: 60")["cpu"].doubt is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{GOOD}energy: {{}}", ":2: energy cannot be sold by time: Slurm keeps a total of it and no rate"),
        (f"{GOOD}\n\ngpu: {{}}", ":4: 'gpu' " + NO_TRES),
        (f"{GOOD}'gres/gpu=1,cpu': {{}}", ":2: 'gres/gpu=1,cpu' " + NO_TRES),
        (f"{GOOD}{GOOD}", ":2: cpu is there twice"),
        ("cpu: {accounting_type: usage}", ":1: cpu: measured_unit is missing"),
        (f"{CPU}  lable: x", ":3: cpu: there is no field 'lable'; did you mean label?"),
        (f"{CPU}  measured_unit: h", ":3: cpu: measured_unit is there twice"),
        (f"{CPU}  accounting_type: rent", ":3: accounting_type is 'rent' and must be usage or limit"),
        (f"{SOLD}  limit: many", ":4: limit is 'many' and must be a number, 0 or more"),
        (f"{SOLD}  limit: -1", ":4: limit is '-1' and must be a number, 0 or more"),
        (f"{SOLD}  unit_factor: 0", ":4: unit_factor must be more than 0"),
        ("cpu:\n  measured_unit: [h]\n  accounting_type: usage", ":2: cpu: measured_unit must be one value"),
        ("cpu:\n  measured_unit: ''\n  accounting_type: usage", ":2: a text of one line is needed here"),
        ("cpu: 5", ":1: cpu must be names with values, such as cpu: {...}"),
        ("- cpu", ":1: the file must be names with values, such as cpu: {...}"),
        ("? [a]\n: b", ":1: a name must be a plain text"),
        ("cpu: {measured_unit: h\nmem: {}", ":2: expected ',' or '}', but got ':'"),
        ("", ": is empty; it must name what is sold (CVAGENT_COMPONENTS_FILE)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(wrong, text, told):
    assert wrong(text) == [told]


def test_every_fault_has_its_line(wrong):
    assert len(wrong("cpu: 1\nmem: 2\ngres/gpu: 3\n")) == 3


def test_no_object_is_made_of_a_tag(wrong):
    [told] = wrong("cpu: !!python/object/apply:os.system [true]")
    assert told.startswith(":1: cpu must be names")


def test_no_file(tmp_path):
    with pytest.raises(SettingsError, match=r"cannot be read: No such file or directory \(CVAGENT_COMPONENTS_FILE\)"):
        load_components(tmp_path / "none.yaml")
