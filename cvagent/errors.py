"""What can go wrong, drawn once.

CvagentError
├── SettingsError           a setting is wrong or missing: the start stops, exit code 2
├── SourceError             a source gave no answer or one that cannot be believed: the round is skipped
│   ├── CommandFailed       a command ended with a non-zero exit code, could not be started, or ran out of time
│   └── Unreadable          an answer that is not in the form that was asked for
├── DeliveryError           a write that did not get through
│   ├── Retryable           comes back later: no answer, 401, 403, 408, 425, 429, 5xx, a redirect, a missing API
│   └── Permanent           the same document will be refused again: other 4xx
│       └── Conflict        the portal's state machine says no: 409
├── StoreError              the store cannot be opened or written
└── HookError               the hook cannot be put into slurm.conf or taken out of it; nothing was changed

Texts name the thing and the mend. They never hold a token or a payload.
"""


class CvagentError(Exception):
    """Any error that cvagent raises on purpose."""


class SettingsError(CvagentError):
    """A setting is wrong or missing."""


class SourceError(CvagentError):
    """A source gave no answer, or one that cannot be believed. Never an empty answer."""


class CommandFailed(SourceError):
    """A command failed.

    Args:
        command: The program's name, without arguments.
        reason: One line: its own words, or ours about the time limit.
        exit_code: None when it could not be started or was ended by us.
        stdout: What it printed all the same: half an answer, unless it consists of parts that stand alone.
        complaint: All of its own words on stderr, in one line; `reason` may be the last of them alone.
    """

    def __init__(
        self, command: str, reason: str, exit_code: int | None = None, stdout: bytes = b"", complaint: str = ""
    ) -> None:
        super().__init__(f"{command}: {reason}")
        self.stdout = stdout
        self.complaint = complaint
        self.command = command
        self.reason = reason
        self.exit_code = exit_code


class Unreadable(SourceError):
    """An answer is not in the form that was asked for."""


class DeliveryError(CvagentError):
    """A write did not get through."""


class Retryable(DeliveryError):
    """The write may succeed later.

    Args:
        reason: One line for people.
        after_s: What the server asked for by Retry-After, in seconds.
        everything: True when the reason concerns the server and not the document: the whole sink waits.
    """

    def __init__(self, reason: str, *, after_s: float | None = None, everything: bool = False) -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.everything = everything


class Permanent(DeliveryError):
    """The same document will be refused again."""


class Conflict(Permanent):
    """The state that the thing is in allows no such step. Another state may."""


class StoreError(CvagentError):
    """The store cannot be opened or written."""


class HookError(CvagentError):
    """The hook cannot be put into slurm.conf or taken out of it."""
