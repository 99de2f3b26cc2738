"""Writes `.env.example` and the table of `docs/settings.md` from the settings. Run it after a change to one."""

from pathlib import Path

from cvagent.settings import Settings
from cvagent.settings.load import OLDER_NAMES, name_of

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / ".env.example"
PAGE = ROOT / "docs" / "settings.md"
REQUIRED = ("cloudvision_url", "cloudvision_token")


def default(setting):
    field = Settings.model_fields[setting]
    return "" if field.default is None else str(field.default)


def example():
    rest = [setting for setting in Settings.model_fields if setting not in REQUIRED]
    return "\n".join(
        [
            "# Settings of cvagent. Take away the # in front of a setting to give it; docs/settings.md says more.",
            "# An empty value counts as not given. The values below are the defaults.",
            "",
            "# Needed, but where the portal alone is served:",
            *(line for setting in REQUIRED for line in example_of(setting)),
            "# All others:",
            *(line for setting in rest for line in example_of(setting)),
        ]
    )


def example_of(setting):
    return f"# {Settings.model_fields[setting].description}", f"#{name_of(setting)}={default(setting)}", ""


def table():
    rows = [
        f"| `{name_of(setting)}` | {shown_default(setting)} | {cell(field.description)} |"
        for setting, field in Settings.model_fields.items()
    ]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows]) + "\n"


def shown_default(setting):
    return f"`{cell(default(setting))}`" if default(setting) else "none"


def older_table():
    rows = [f"| `{older}` | `{name_of(setting)}` |" for older, setting in OLDER_NAMES.items()]
    return "\n".join(["| older name | setting |", "|---|---|", *rows]) + "\n"


def cell(text):
    return text.replace("|", "\\|")


def replaced(page, head, fresh):
    """The page with the table that begins with `head` replaced; a blank line ends a table."""
    before, _, rest = page.partition(head)
    return before + fresh + "\n" + rest.partition("\n\n")[2]


def page():
    return replaced(replaced(PAGE.read_text(), "| setting |", table()), "| older name |", older_table())


if __name__ == "__main__":
    EXAMPLE.write_text(example())
    PAGE.write_text(page())
