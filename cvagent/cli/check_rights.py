"""Part of `cvagent check`: what slurmdbd hides from the agent's user, which sacct does not say."""

import os
import pwd
from collections.abc import Iterator

from cvagent.cli.finding import Finding
from cvagent.clients.accounts import SlurmAccounts
from cvagent.clients.runner import Runner
from cvagent.clients.slurm import SlurmConfig
from cvagent.clients.slurmdbd import ask_privacy
from cvagent.errors import CvagentError
from cvagent.settings import Settings

# AdminLevels that see all and may change accounts.
TRUSTED = ("Administrator", "Operator")


def check_rights(settings: Settings, runner: Runner, config: SlurmConfig) -> Iterator[Finding]:
    """A finding when jobs are hidden, or when that cannot be told; none for root, who sees all."""
    if settings.slurm_deployment == "docker" or os.geteuid() == 0 or not config.accounting:
        return
    try:
        if "jobs" in _hidden(runner, settings.slurm_timeout_s):
            slurm = SlurmAccounts(runner, settings.cluster or config.cluster, settings.slurm_timeout_s)
            yield from _sight(slurm)
    except CvagentError as error:
        yield Finding(None, "rights", f"no telling whether slurmdbd hides jobs from this user (PrivateData): {error}")


def agent_name() -> str | None:
    """The name of the user whom the agent runs as; None for a uid without one, as in a container."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None


def _hidden(runner: Runner, timeout_s: float) -> tuple[str, ...]:
    privacy = ask_privacy(runner, timeout_s)
    return () if privacy.slurm_uid == os.geteuid() else privacy.hidden


def _sight(slurm: SlurmAccounts) -> Iterator[Finding]:
    text, name = "PrivateData=jobs in slurmdbd.conf: sacct shows this user its own jobs alone", agent_name()
    if name is None:
        yield Finding(None, "rights", f"{text}, unless uid {os.geteuid()} has AdminLevel=Operator")
    elif slurm.admin_level(name) not in TRUSTED:
        mend = f"as an administrator: sacctmgr modify user {name} set AdminLevel=Operator (or add the user first)"
        yield Finding(False, "rights", f"{text}; {mend}")
