"""Changes Slurm's accounts."""

from collections.abc import Callable

from cvagent.clients.accounts import SlurmAccounts
from cvagent.errors import Permanent
from cvagent.model import Document
from cvagent.model.errands import Commands
from cvagent.sinks.one_by_one import OneByOne


class AccountCommands(OneByOne):
    """The sinks `slurm_accounts` and `slurm_members`: carry out commands, in their order."""

    def __init__(self, name: str, slurm: SlurmAccounts, changed: Callable[[], None]) -> None:
        super().__init__(changed)
        self.name = name
        self._slurm = slurm

    def write(self, document: Document) -> None:
        """See OneByOne. A command that fails stops those behind it: all are repeated the next time."""
        if not isinstance(document, Commands):
            raise Permanent(f"{document.key} is nothing to be done on the cluster")
        for command in document.commands:
            self._slurm.run(command)
