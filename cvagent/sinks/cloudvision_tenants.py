"""Writes tenants to CloudVision: they are JobConfigs of a type of their own."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from cvagent.clients.cloudvision import CloudVision
from cvagent.errors import Permanent
from cvagent.model import Document, utc
from cvagent.model.nodes import node_key
from cvagent.model.tenants import TenantConfig
from cvagent.sinks.cloudvision import CloudVisionSink


class CloudVisionTenants(CloudVisionSink):
    """The sink `cloudvision_tenants`; see CloudVisionJobs for what it is made with."""

    name = "cloudvision_tenants"

    def __init__(self, client: CloudVision, location: str, *, with_cluster: bool = False, **options: int) -> None:
        super().__init__(client, **options)
        self._location = location
        self._with_cluster = with_cluster

    def write_many(self, documents: Sequence[Document]) -> AbstractSet[str]:
        """See CloudVisionSink."""
        return self._client.set_jobs([self._wire(config) for config in documents]).keys()

    def write_one(self, document: Document) -> None:
        """See CloudVisionSink."""
        self._client.set_job(self._wire(document))

    def _wire(self, config: Document) -> dict[str, Any]:
        """The wire form: exactly the fields that CloudVision takes. Raises Permanent."""
        if not isinstance(config, TenantConfig):
            raise Permanent(f"{config.key} is no tenant")
        body = {
            "key": {"id": config.key},
            "name": config.name,
            "type": "JOB_TYPE_TENANT",
            "state": f"JOB_STATE_{config.state.value}",
            "start_time": utc(config.started_at),
            "location": self._location,
        }
        return body | self._where(config) | ({"end_time": utc(config.ended_at)} if config.ended_at else {})

    def _where(self, config: TenantConfig) -> dict[str, Any]:
        """Interfaces or nodes, never both."""
        if config.interfaces:
            return {"interfaces": {"values": list(config.interfaces)}}
        nodes = [node_key(node, self._location, with_cluster=self._with_cluster) for node in config.nodes]
        return {"nodes": {"values": nodes}}
