"""Each setting stands in the example and on the page, and nothing else does. Mend: run settings_pages.py."""

import re

import settings_pages

from cvagent.settings import Settings, load_settings
from cvagent.settings.load import ENV_FILE, name_of

NAMES = {name_of(setting) for setting in Settings.model_fields}
EXAMPLE = settings_pages.EXAMPLE.read_text()
PAGE = settings_pages.PAGE.read_text()


def test_the_example_is_as_the_settings_are():
    assert settings_pages.example() == EXAMPLE


def test_the_page_is_as_the_settings_are():
    assert settings_pages.page() == PAGE


def test_the_example_holds_each_setting_once_and_commented_out():
    assert sorted(re.findall(r"^#(\w+)=", EXAMPLE, re.MULTILINE)) == sorted(NAMES)
    assert re.findall(r"^[^#\n]", EXAMPLE, re.MULTILINE) == []


def test_the_needed_ones_come_first():
    assert re.findall(r"^#(\w+)=", EXAMPLE, re.MULTILINE)[:2] == [
        "CVAGENT_CLOUDVISION_URL",
        "CVAGENT_CLOUDVISION_TOKEN",
    ]


def test_the_page_names_nothing_else():
    assert set(re.findall(r"CVAGENT_\w+", PAGE)) == NAMES | {ENV_FILE}


def test_the_example_uncommented_gives_the_defaults(tmp_path):
    path = tmp_path / "agent.env"
    path.write_text(re.sub(r"^#(?=CVAGENT_)", "", EXAMPLE, flags=re.MULTILINE))
    needed = {"CVAGENT_CLOUDVISION_URL": "https://cvp", "CVAGENT_CLOUDVISION_TOKEN": "token"}
    found, notes = load_settings(path, needed)
    assert found == Settings(cloudvision_url="https://cvp", cloudvision_token="token")
    assert notes == []
