"""`cvagent run`."""

import logging
import signal
from pathlib import Path
from types import FrameType

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

    # In a container, as its first process, it would not hear of SIGTERM before the agent listens for it.
    signal.signal(signal.SIGTERM, _leave)
    agent = Agent(settings, reload, force=force)
    if not once:
        agent.run()
    elif not agent.once():
        raise SystemExit(1)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """While the start waits for Slurm or the store, nothing is under way."""
    raise SystemExit(0)
