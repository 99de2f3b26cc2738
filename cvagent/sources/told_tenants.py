"""What CloudVision holds of this cluster's tenants: what an agent with an empty store has to go on with."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import count
from threading import Lock

from cvagent.clients.cloudvision import CloudVision, HeldJob
from cvagent.errors import Permanent, Retryable, SourceError
from cvagent.model import State
from cvagent.model.tenants import TenantConfig

_TENANT = "JOB_TYPE_TENANT"
_KEY = re.compile(r"([0-9a-f]{32})(?:\.([0-9]{1,9}))?")
_STATES = {f"JOB_STATE_{state.value}": state for state in State}
# Several flows ask; while there is no answer, none of them waits for it again before so many seconds have passed.
_PAUSE_S = 30.0
# After so many lists in a row that did not come, while other questions were answered, there is none to be had.
_TRIES = 3


class ToldTenants:
    """Asks until there is an answer, and remembers it. Any thread may ask.

    Args:
        connect: Makes a client.
        location: CloudVision's word for the cluster: what is elsewhere is another agent's.
        pause_s: See above.
    """

    def __init__(self, connect: Callable[[], CloudVision], location: str, pause_s: float = _PAUSE_S) -> None:
        self._connect = connect
        self._location = location
        self._pause_s = pause_s
        self._asking = Lock()
        self._answer: tuple[Mapping[str, TenantConfig] | None] | None = None
        self._failed: tuple[float, str] | None = None
        self._missing = 0
        self._seen: Mapping[str, TenantConfig] = {}

    def listed(self) -> Mapping[str, TenantConfig] | None:
        """By key, all that there are; None when this CloudVision shows no list. Raises SourceError: no answer."""
        with self._asking:
            if self._answer is None:
                self._answer = (self._ask(),)
            return self._answer[0]

    def of(self, resources: Iterable[str]) -> Mapping[str, TenantConfig]:
        """By key, all; where there is no list, those of these resources, one by one. Raises SourceError."""
        listed = self.listed()
        self._seen = dict(self._one_by_one(resources)) if listed is None else listed
        return self._seen

    def ended(self) -> dict[str, TenantConfig]:
        """What had ended when it was asked for."""
        return {key: config for key, config in self._seen.items() if config.ended_at is not None}

    def _ask(self) -> Mapping[str, TenantConfig] | None:
        if self._failed and time.monotonic() < self._failed[0] + self._pause_s:
            raise SourceError(self._failed[1])
        with closing(self._connect()) as client:
            try:
                held = client.jobs({"type": _TENANT, "location": self._location})
            except Permanent:
                return None
            except Retryable as error:
                self._missing = self._missing + 1 if _answers(client) else 0
                if self._missing == _TRIES:
                    return None
                self._failed = (time.monotonic(), str(error))
                raise SourceError(str(error)) from None
        return None if held is None else dict(self._ours(held))

    def _ours(self, held: Mapping[str, HeldJob]) -> Iterator[tuple[str, TenantConfig]]:
        for key, job in held.items():
            if job.type == _TENANT and job.location == self._location and (found := _KEY.fullmatch(key)):
                yield key, _config(key, found[1], job)

    def _one_by_one(self, resources: Iterable[str]) -> Iterator[tuple[str, TenantConfig]]:
        """The one that runs, and what ended before it under the same uuid."""
        with closing(self._connect()) as client:
            for uuid in resources:
                for number in count():
                    key = f"{uuid}.{number}" if number else uuid
                    config = self._one(client, key, uuid)
                    if config:
                        yield key, config
                    if not config or config.ended_at is None:
                        break

    @staticmethod
    def _one(client: CloudVision, key: str, uuid: str) -> TenantConfig | None:
        try:
            job = client.job(key)
        except Retryable as error:
            raise SourceError(str(error)) from None
        return _config(key, uuid, job) if job else None


def _answers(client: CloudVision) -> bool:
    try:
        client.ping()
    except Retryable:
        return False
    return True


def _config(key: str, uuid: str, job: HeldJob) -> TenantConfig:
    began = int(job.start_time.timestamp())
    state = _STATES.get(job.state, State.FAILED)
    ended = int(job.end_time.timestamp()) if job.end_time else began
    return TenantConfig(
        key=key,
        resource=uuid,
        name=job.name,
        state=state,
        started_at=began,
        # A node may be called node@cluster there.
        nodes=tuple(node.partition("@")[0] for node in job.nodes.values),
        interfaces=job.interfaces.values,
        ended_at=None if state is State.RUNNING else ended,
    )
