"""Asks Slurm and reads what it prints. Records in, nothing decided.

Every record ends with a mark that nobody can foresee, so that a job's name, which may hold any byte,
cannot forge, split or hide one. Every field is asked for by name; none is taken from a release's defaults.
Times are epoch seconds (`TZ=UTC SLURM_TIME_FORMAT=%s`, set by the runner).
"""

from collections.abc import Collection, Sequence
from sys import intern
from typing import NamedTuple

from cvagent.clients.gres import JOBS, NODES, GresAnswer, Size, read_gres, read_sizes
from cvagent.clients.hostlist import unfold
from cvagent.clients.marked import lists, new_mark, number, split_rows
from cvagent.clients.runner import Runner
from cvagent.errors import Unreadable
from cvagent.model import OVER, Identity, Run

FIELD = "\x1f"

# Every state but PENDING: a 20,000-task pending array would be 20,000 lines.
_LIVE_STATES = (
    "RUNNING,SUSPENDED,COMPLETING,STOPPED,SIGNALING,STAGE_OUT,RESIZING,COMPLETED,CANCELLED,FAILED,TIMEOUT,"
    "NODE_FAIL,PREEMPTED,BOOT_FAIL,DEADLINE,OUT_OF_MEMORY,REVOKED,SPECIAL_EXIT"
)
_LIVE_FIELDS = (
    *("JobID", "State", "SubmitTime", "StartTime", "EndTime", "RestartCnt", "OverSubscribe", "Partition", "NodeList"),
    "Name",
)
# Slurm's word for a job that shares its nodes with nobody, be it by its own wish or by its partition's.
_EXCLUSIVE = "NO"
_ENDED_STATES = (
    "BOOT_FAIL,CANCELLED,COMPLETED,DEADLINE,FAILED,NODE_FAIL,OUT_OF_MEMORY,PREEMPTED,TIMEOUT,REQUEUED,RESIZING,REVOKED"
)
_ENDED_FIELDS = ("JobIDRaw", "State", "Submit", "Start", "End", "Partition", "NodeList", "JobName")
# sacct refuses "uts" with fewer than seven digits.
_ALL_TIMES = "uts1000000"


class SlurmConfig(NamedTuple):
    """What `scontrol show config` says that matters here.

    Attributes:
        cluster: ClusterName.
        accounting: True when ended jobs are kept by slurmdbd.
        min_job_age_s: How long slurmctld keeps an ended job.
        private_data: The words of PrivateData; with `jobs` an ordinary user sees only their own.
        enforced: The words of AccountingStorageEnforce; without `limits` those of accounts have no effect.
    """

    cluster: str
    version: str
    accounting: bool
    min_job_age_s: int
    private_data: tuple[str, ...]
    enforced: tuple[str, ...] = ("none",)


class Slurm:
    """The cluster's commands, one method a question.

    Args:
        runner: Runs the commands, natively or in a container.
        timeout_s: Limit for one command, in seconds.

    Every method raises CommandFailed, or Unreadable for an answer that is not in the form asked for.
    """

    def __init__(self, runner: Runner, timeout_s: float) -> None:
        self._runner = runner
        self._timeout_s = timeout_s
        self._last: dict[str, Run] = {}

    def config(self) -> SlurmConfig:
        """Ask slurmctld for its configuration."""
        text = self._ask(["scontrol", "show", "config"])
        pairs = (line.partition("=") for line in text.splitlines())
        values = {name.strip(): value.strip() for name, _, value in pairs if value.strip()}
        try:
            return SlurmConfig(
                cluster=values["ClusterName"],
                version=values.get("SLURM_VERSION", "unknown"),
                accounting=values["AccountingStorageType"].endswith("slurmdbd"),
                min_job_age_s=number(values["MinJobAge"].removesuffix(" sec")),
                private_data=tuple(values.get("PrivateData", "none").split(",")),
                enforced=tuple(values.get("AccountingStorageEnforce", "none").split(",")),
            )
        except (KeyError, ValueError) as error:
            raise Unreadable(f"scontrol show config printed no configuration: {error}") from None

    def live_jobs(self) -> list[Run]:
        """All jobs that slurmctld holds, pending ones left out: running, and ended within MinJobAge. One RPC."""
        mark = new_mark()
        fields = ",".join(f"{field}:{FIELD}" for field in _LIVE_FIELDS[:-1]) + f",{_LIVE_FIELDS[-1]}:{mark}"
        text = self._ask(["squeue", "-h", "-a", "-r", "-t", _LIVE_STATES, "-O", fields])
        # Nearly all records are the same as last time: reading those again would cost more than squeue itself.
        last, self._last = self._last, {}
        for record in _records(text, mark + "\n"):
            self._last[record] = last.get(record) or _live(record)
        return list(self._last.values())

    def ended_jobs(self, since: int, until: int, *, all_states: bool = False) -> list[Run]:
        """All runs that ended in [since, until], those of requeued jobs apiece; steps left out.

        Args:
            since: Epoch seconds.
            until: Epoch seconds.
            all_states: Also those that were pending or running in the window.
        """
        window = ["-S", f"uts{since}", "-E", f"uts{until}"]
        return self._accounting(window if all_states else [*window, "-s", _ENDED_STATES])

    def jobs_by_id(self, job_ids: Sequence[int]) -> list[Run]:
        """Every run that accounting knows of these jobs, of any age. One call, unless the list is very long."""
        return [job for ids in lists(job_ids) for job in self._accounting(["-S", _ALL_TIMES, "-j", ids])]

    def granted(self, job_ids: Collection[int]) -> GresAnswer:
        """What these jobs hold on each of their nodes. One call over all jobs, however few are asked for."""
        return read_gres(self._ask(JOBS), job_ids, unfold)

    def sizes(self) -> dict[str, Size]:
        """What jobs can have of each node of the cluster. One call."""
        return read_sizes(self._ask(NODES))

    def _accounting(self, which: Sequence[str]) -> list[Run]:
        mark = new_mark()
        options = ["-n", "-a", "-X", "-D", "-p", f"--delimiter={mark}", "-o", ",".join(_ENDED_FIELDS)]
        text = self._ask(["sacct", *options, *which])
        return [_ended(fields) for fields in split_rows(text, mark, len(_ENDED_FIELDS))]

    def _ask(self, command: Sequence[str]) -> str:
        return self._runner.run(command, timeout_s=self._timeout_s).decode(errors="replace")


def _records(text: str, end: str) -> list[str]:
    records = text.split(end)
    if records.pop():
        raise Unreadable("squeue printed half a record at the end of its answer")
    return records


def _live(record: str) -> Run:
    """One record of squeue; the name comes last, as it may hold anything."""
    fields = record.split(FIELD, len(_LIVE_FIELDS) - 1)
    if len(fields) != len(_LIVE_FIELDS):
        raise Unreadable(f"squeue printed a record of {len(fields)} fields where {len(_LIVE_FIELDS)} were asked for")
    job_id, word, submitted, started, ended, restarts, sharing, partition, nodes, name = fields
    try:
        identity = Identity(number(job_id), number(submitted))
        end = _epoch(ended) if word in OVER else None
        times, place = (_epoch(started), end), (intern(partition), nodes)
        return Run(identity, intern(word), *times, *place, name, number(restarts), sharing == _EXCLUSIVE)
    except ValueError as error:
        raise Unreadable(f"squeue printed a job that cannot be read: {error}") from None


def _ended(fields: list[str]) -> Run:
    job_id, state, submitted, started, ended, partition, hosts, name = fields
    word = state.partition(" ")[0].rstrip("+")
    # Just after the end of a job accounting may know its first node only; such a record has no partition yet.
    nodes = "" if hosts == "None assigned" or not partition else hosts
    try:
        identity = Identity(number(job_id), number(submitted))
        end = _epoch(ended) if word in OVER else None
        return Run(identity, intern(word), _epoch(started), end, intern(partition), nodes, name)
    except ValueError as error:
        raise Unreadable(f"sacct printed a job that cannot be read: {error}") from None


def _epoch(text: str) -> int | None:
    """Epoch seconds, or None for Slurm's words for no time.

    >>> _epoch("1772361000"), _epoch("Unknown"), _epoch("N/A")
    (1772361000, None, None)
    """
    return None if text in {"Unknown", "N/A", "None", ""} else number(text) or None
