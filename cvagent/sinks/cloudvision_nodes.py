"""Writes nodes to CloudVision, and deletes those that are gone."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from cvagent.clients.cloudvision import CloudVision
from cvagent.errors import Permanent
from cvagent.model import Document, NodeConfig
from cvagent.sinks.cloudvision import CloudVisionSink


class CloudVisionNodes(CloudVisionSink):
    """The sink `cloudvision_nodes`.

    Args:
        location: CloudVision's word for the cluster.
        options: See CloudVisionSink.
    """

    name = "cloudvision_nodes"

    def __init__(self, client: CloudVision, location: str, **options: int) -> None:
        super().__init__(client, **options)
        self._location = location

    def write_many(self, documents: Sequence[Document]) -> AbstractSet[str]:
        """See CloudVisionSink."""
        present = [document(config, self._location) for config in documents if config.ended_at is None]
        gone = [config.key for config in documents if config.ended_at is not None]
        failed = self._client.set_nodes(present) if present else {}
        return failed.keys() | (self._client.delete_nodes(gone) if gone else {}).keys()

    def write_one(self, config: Document) -> None:
        """See CloudVisionSink."""
        if config.ended_at is None:
            self._client.set_node(document(config, self._location))
        else:
            self._client.delete_node(config.key)


def document(config: Document, location: str) -> dict[str, Any]:
    """The wire form of a node that is there: exactly the fields that CloudVision takes.

    Raises:
        Permanent: It is no node, or has no interfaces.
    """
    if not isinstance(config, NodeConfig):
        raise Permanent(f"{config.key} is no node")
    if not config.interfaces:
        raise Permanent("this node has no interfaces, and CloudVision takes none without any")
    return {
        "key": {"id": config.key},
        "location": location,
        "hostname": config.hostname,
        "data_interfaces": {
            "values": [
                {"name": name, "mac_address": mac, "ip_addresses": {"values": list(ips)}}
                for name, mac, ips in config.interfaces
            ]
        },
    }
