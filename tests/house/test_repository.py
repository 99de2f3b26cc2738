"""What must stand in the repository, and what must not."""

import re

import house_files
import pytest

import cvagent

# Built from parts, so that this file passes its own tests.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("rubygems", "org"),
        ("anaconda", "org"),
    )
]
PRIVATE_FOLDERS = ("root", "work", "farm")


def naming(pattern):
    return [path for path, text in house_files.texts() if re.search(pattern, text)]


@pytest.mark.parametrize("host", REGISTRIES)
def test_no_file_names_a_registry(host):
    assert naming(rf"\b{re.escape(host)}\b") == []


@pytest.mark.parametrize("folder", PRIVATE_FOLDERS)
def test_no_file_names_a_path_of_a_developers_machine(folder):
    assert naming(rf"(?<![\w./>}}-])/{folder}/") == []


def requirements(section):
    """Normalised names that a list in pyproject.toml holds."""
    text = (house_files.ROOT / "pyproject.toml").read_text()
    listed = re.search(rf"^{section} = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1]
    return {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r'^\s*"([\w.-]+)', listed, re.MULTILINE)}


def pinned(file):
    """Names with an exact version, each with how many hashes it has."""
    text = (house_files.ROOT / "requirements" / file).read_text()
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    return {
        block.partition("==")[0].partition("[")[0]: block.count("--hash=sha256:") for block in blocks if "==" in block
    }


@pytest.mark.parametrize(
    ("section", "file"), [("dependencies", "run.txt"), ("dependencies", "dev.txt"), ("dev", "dev.txt")]
)
def test_every_requirement_is_pinned_with_hashes(section, file):
    pins = pinned(file)
    assert len(requirements(section)) > 10
    assert {name for name in requirements(section) if not pins.get(name)} == set()
    assert {name for name, hashes in pins.items() if not hashes} == set()


def test_the_changelog_is_up_to_date():
    version = re.escape(cvagent.__version__)
    assert re.search(rf"^## \[?(Unreleased|{version})\b", (house_files.ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_readme_begins_with_two_commands(command):
    assert command in (house_files.ROOT / "README.md").read_text()
