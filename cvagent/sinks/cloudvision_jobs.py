"""Writes jobs to CloudVision."""

import re
from abc import abstractmethod
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from cvagent.clients.cloudvision import CloudVision
from cvagent.clients.hostlist import unfold
from cvagent.errors import Permanent
from cvagent.model import Document, JobConfig, State, utc
from cvagent.model.nodes import node_key
from cvagent.sinks.cloudvision import CloudVisionSink

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class JobConfigSink(CloudVisionSink):
    """Writes what CloudVision takes as a JobConfig.

    Args:
        location: CloudVision's word for the cluster.
        with_cluster: How nodes are named: see `model.nodes.node_key`.
        options: See CloudVisionSink.
    """

    def __init__(self, client: CloudVision, location: str, *, with_cluster: bool = False, **options: int) -> None:
        super().__init__(client, **options)
        self._location = location
        self._with_cluster = with_cluster

    @abstractmethod
    def wire(self, config: Document) -> dict[str, Any]:
        """The wire form: exactly the fields that CloudVision takes. Raises Permanent."""

    def write_many(self, documents: Sequence[Document]) -> AbstractSet[str]:
        """See CloudVisionSink."""
        return self._client.set_jobs([self.wire(config) for config in documents]).keys()

    def write_one(self, document: Document) -> None:
        """See CloudVisionSink."""
        self._client.set_job(self.wire(document))


class CloudVisionJobs(JobConfigSink):
    """The sink `cloudvision_jobs`."""

    name = "cloudvision_jobs"

    def wire(self, config: Document) -> dict[str, Any]:
        """See JobConfigSink."""
        return document(config, self._location, with_cluster=self._with_cluster)


def document(config: Document, location: str, *, with_cluster: bool = False) -> dict[str, Any]:
    """The wire form: exactly the fields that CloudVision takes.

    Raises:
        Permanent: It cannot be told as it is: no nodes, or an end that is missing.
        ValueError, NodeSetException: The nodes are no hostlist.
    """
    if not isinstance(config, JobConfig):
        raise Permanent(f"{config.key} is no job")
    if not config.nodes:
        raise Permanent("Slurm names no nodes for this run, and CloudVision takes no job without any")
    body = {
        "key": {"id": config.key},
        "name": _UNPRINTABLE.sub("\ufffd", f"{config.name}@{config.partition}"),
        "state": f"JOB_STATE_{config.state.value}",
        "start_time": utc(config.started_at),
        "location": location,
    } | _where(config, location, with_cluster=with_cluster)
    if config.state is State.RUNNING:
        return body
    if config.ended_at is None:
        raise Permanent(f"this run is {config.state.value} and has no end")
    return body | {"end_time": utc(config.ended_at)}


def _where(config: JobConfig, location: str, *, with_cluster: bool) -> dict[str, Any]:
    """Interfaces or nodes, never both."""
    if config.macs:
        return {"interfaces": {"values": list(config.macs)}}
    return {"nodes": {"values": [node_key(node, location, with_cluster=with_cluster) for node in unfold(config.nodes)]}}
