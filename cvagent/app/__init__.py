"""Builds the program from settings. The only package that knows every concrete class.

`build` makes the parts, `agent` runs them together.
"""

from cvagent.app.billing import Billing, make_portal
from cvagent.app.build import (
    Cluster,
    Means,
    SystemClock,
    flows_for,
    interval_s,
    inventory_job,
    make_board,
    make_inventory,
    make_jobs,
    make_node_rules,
    make_node_sink,
    make_nodes,
    make_rules,
    make_runner,
    make_sink,
    make_sinks,
    make_source,
    open_outbox,
    reach_cluster,
    rules_for,
)

__all__ = [
    "Billing",
    "Cluster",
    "Means",
    "SystemClock",
    "flows_for",
    "interval_s",
    "inventory_job",
    "make_board",
    "make_inventory",
    "make_jobs",
    "make_node_rules",
    "make_node_sink",
    "make_nodes",
    "make_portal",
    "make_rules",
    "make_runner",
    "make_sink",
    "make_sinks",
    "make_source",
    "open_outbox",
    "reach_cluster",
    "rules_for",
]
