"""`cvagent run`."""

import logging
from pathlib import Path

from cvagent import logs
from cvagent.app.agent import Agent
from cvagent.settings import Settings, load_settings

log = logging.getLogger(__name__)


def run_agent(env_file: Path | None, *, once: bool, force: bool) -> None:
    """Run until stopped, or one round. Raises CvagentError; SystemExit(1) when `once` left something."""
    settings, notes = load_settings(env_file)
    logs.set_up(settings.log_level, settings.log_format, settings.secret_texts)
    for note in notes:
        log.warning("%s", note)

    def reload() -> Settings:
        fresh, notes = load_settings(env_file)
        for note in notes:
            log.warning("%s", note)
        return fresh

    agent = Agent(settings, reload, force=force)
    if not once:
        agent.run()
    elif not agent.once():
        raise SystemExit(1)
