"""Reads config-components.yaml, and says on which line it is wrong."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import yaml

from cvagent.errors import SettingsError
from cvagent.model.components import Accounting, Component

_FIELDS = ("limit", "measured_unit", "accounting_type", "label", "unit_factor")
_NEEDED = ("measured_unit", "accounting_type")
# Of these Slurm keeps totals and no rates: there is nothing to count by the minute.
_NOT_SOLD = frozenset({"energy", "pages", "vmem", "fs/disk", "ic/ofed"})
_TRES = re.compile(r"(cpu|mem|node|billing|(gres|license|bb)/[A-Za-z0-9_.:-]+)")


class _Wrong(ValueError):
    """A fault and the node at which it is."""

    def __init__(self, node: yaml.Node, reason: str) -> None:
        super().__init__(reason)
        self.line = node.start_mark.line + 1


def load_components(path: Path) -> dict[str, Component]:
    """What is sold, by TRES, in the order of the file.

    Raises:
        SettingsError: A line for each fault, with its place: `file:line: ...`.
    """
    try:
        entries = list(_entries(_root(path)))
    except _Wrong as error:
        raise SettingsError(f"{path}:{error.line}: {error}") from None
    read = [*(_read(key, value) for key, value in entries), *_repeated(entries)]
    faults = [f"{path}:{fault.line}: {fault}" for fault in read if isinstance(fault, _Wrong)]
    if faults:
        raise SettingsError("\n".join(faults))
    return {component.tres: component for component in read if isinstance(component, Component)}


def _read(key: yaml.ScalarNode, value: yaml.Node) -> Component | _Wrong:
    try:
        return _component(key, value)
    except _Wrong as error:
        return error


def _repeated(entries: Sequence[tuple[yaml.ScalarNode, yaml.Node]]) -> list[_Wrong]:
    first = {key.value: key for key, _ in reversed(entries)}
    return [_Wrong(key, f"{key.value} is there twice") for key, _ in entries if key is not first[key.value]]


def _root(path: Path) -> yaml.Node:
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror} (CVAGENT_COMPONENTS_FILE)") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 (CVAGENT_COMPONENTS_FILE)") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise SettingsError(f"{path}:{mark.line + 1 if mark else 1}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: {error}") from None
    if root is None:
        raise SettingsError(f"{path}: is empty; it must name what is sold (CVAGENT_COMPONENTS_FILE)")
    return root


def _entries(node: yaml.Node, what: str = "the file") -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise _Wrong(node, f"{what} must be names with values, such as cpu: {{...}}")
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _Wrong(key, "a name must be a plain text")
        yield key, value


def _component(key: yaml.ScalarNode, value: yaml.Node) -> Component:
    tres = key.value
    if tres in _NOT_SOLD:
        raise _Wrong(key, f"{tres} cannot be sold by time: Slurm keeps a total of it and no rate")
    if not _TRES.fullmatch(tres):
        raise _Wrong(key, f"{tres!r} is no TRES: cpu, mem, node, billing, gres/NAME or license/NAME")
    fields = _fields(tres, value)
    for name in _NEEDED:
        if name not in fields:
            raise _Wrong(key, f"{tres}: {name} is missing")
    return Component(
        tres=tres,
        label=_text(fields["label"]) if "label" in fields else tres,
        measured_unit=_text(fields["measured_unit"]),
        accounting=_accounting(fields["accounting_type"]),
        limit=_amount(fields["limit"], "limit") if "limit" in fields else None,
        unit_factor=_factor(fields),
    )


def _fields(tres: str, value: yaml.Node) -> dict[str, yaml.ScalarNode]:
    fields: dict[str, yaml.ScalarNode] = {}
    for key, node in _entries(value, tres):
        name = key.value
        if name not in _FIELDS:
            close = difflib.get_close_matches(name, _FIELDS, n=1)
            meant = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(_FIELDS)}"
            raise _Wrong(key, f"{tres}: there is no field {name!r}; {meant}")
        if name in fields:
            raise _Wrong(key, f"{tres}: {name} is there twice")
        if not isinstance(node, yaml.ScalarNode):
            raise _Wrong(node, f"{tres}: {name} must be one value")
        fields[name] = node
    return fields


def _text(node: yaml.ScalarNode) -> str:
    text = str(node.value).strip()
    if not text or not text.isprintable():
        raise _Wrong(node, "a text of one line is needed here")
    return text


def _accounting(node: yaml.ScalarNode) -> Accounting:
    try:
        return Accounting(node.value)
    except ValueError:
        raise _Wrong(node, f"accounting_type is {node.value!r} and must be usage or limit") from None


def _factor(fields: Mapping[str, yaml.ScalarNode]) -> Decimal:
    if "unit_factor" not in fields:
        return Decimal(1)
    factor = _amount(fields["unit_factor"], "unit_factor")
    if not factor:
        raise _Wrong(fields["unit_factor"], "unit_factor must be more than 0")
    return factor


def _amount(node: yaml.ScalarNode, what: str) -> Decimal:
    try:
        amount = Decimal(node.value.replace("_", ""))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise _Wrong(node, f"{what} is {node.value!r} and must be a number, 0 or more")
    return amount
