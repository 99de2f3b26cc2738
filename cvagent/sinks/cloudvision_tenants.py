"""Writes tenants to CloudVision: they are JobConfigs of a type of their own."""

from typing import Any

from cvagent.errors import Permanent
from cvagent.model import Document, utc
from cvagent.model.nodes import node_key
from cvagent.model.tenants import TenantConfig
from cvagent.sinks.cloudvision_jobs import JobConfigSink


class CloudVisionTenants(JobConfigSink):
    """The sink `cloudvision_tenants`."""

    name = "cloudvision_tenants"

    def wire(self, config: Document) -> dict[str, Any]:
        """See JobConfigSink."""
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
