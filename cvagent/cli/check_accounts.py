"""Pull mode's part of `cvagent check`: accounts that can be read and changed, and limits that have an effect."""

import os
from collections.abc import Iterator

from cvagent.cli.check_rights import TRUSTED, agent_name
from cvagent.cli.finding import Finding
from cvagent.clients.accounts import SlurmAccounts
from cvagent.clients.runner import Runner
from cvagent.clients.slurm import SlurmConfig
from cvagent.errors import CvagentError, SettingsError
from cvagent.settings import Settings
from cvagent.settings.components import load_components


def check_accounts(settings: Settings, runner: Runner, config: SlurmConfig) -> Iterator[Finding]:
    """A finding a thing; none in push mode."""
    if settings.mode == "push":
        return
    slurm = SlurmAccounts(runner, settings.cluster or config.cluster, settings.slurm_timeout_s)
    try:
        tree = slurm.tree()
        yield Finding(True, "accounts", f"{len(tree.accounts)} with {len(tree.defaults)} users; slurmdbd answers")
        yield from _rights(settings, slurm)
        yield from _uncounted(settings, slurm)
    except CvagentError as error:
        yield Finding(False, "accounts", str(error))
    if "limits" not in config.enforced:
        enforced = ",".join(config.enforced)
        text = f"AccountingStorageEnforce is {enforced}: limits have no effect without 'limits' in slurm.conf"
        yield Finding(None, "limits", text)


def _uncounted(settings: Settings, slurm: SlurmAccounts) -> Iterator[Finding]:
    """Slurm takes no limit on what it does not count: each order would fail."""
    try:
        sold = load_components(settings.components_file).keys()
    except SettingsError:  # told with the portal
        return
    missing = sorted(sold - slurm.counted_tres())
    if missing:
        names = ",".join(missing)
        mend = f"AccountingStorageTRES={names} in slurm.conf, beside what is there, and a restart of slurmctld"
        yield Finding(False, "components", f"Slurm's accounting does not count {', '.join(missing)}: {mend}")


def _rights(settings: Settings, slurm: SlurmAccounts) -> Iterator[Finding]:
    if settings.slurm_deployment == "docker" or os.geteuid() == 0:
        return
    name = agent_name()
    if name is None:
        text = f"uid {os.geteuid()} has no name on this machine: whether it may change accounts cannot be looked up"
        yield Finding(None, "rights", text)
        return
    level = slurm.admin_level(name)
    if level not in TRUSTED:
        mend = f"as an administrator: sacctmgr modify user {name} set AdminLevel=Operator (or add the user first)"
        yield Finding(False, "rights", f"{name} may not change accounts unless it is SlurmUser; {mend}")
