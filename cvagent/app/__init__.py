"""Builds the program from settings. The only package that knows every concrete class.

`build` makes the parts, `agent` runs them together.
"""

from cvagent.app.build import (
    Cluster,
    SystemClock,
    flows_for,
    make_board,
    make_rules,
    make_runner,
    make_sink,
    open_outbox,
    reach_cluster,
)

__all__ = [
    "Cluster",
    "SystemClock",
    "flows_for",
    "make_board",
    "make_rules",
    "make_runner",
    "make_sink",
    "open_outbox",
    "reach_cluster",
]
