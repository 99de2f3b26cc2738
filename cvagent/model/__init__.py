"""Frozen records that every layer shares. No I/O, no clock, no settings.

Times are UTC epoch seconds, as Slurm counts them; they become RFC 3339 on the wire and on pages.
Hostlists stay folded (`node[001-003]`) until a sink needs the names.
"""

from cvagent.model.decisions import SEEN, Absence, Ask, Change, Document, Known, Plan
from cvagent.model.delivery import Accepted, Deferred, Due, Entry, Health, Outcome, Refused, Row
from cvagent.model.jobs import OVER, SLURM_STATES, Identity, JobConfig, Observation, Run, State, utc
from cvagent.model.nodes import Delay, NodeConfig, NodeFacts, NodeInterface, NodesSeen

__all__ = [
    "OVER",
    "SEEN",
    "SLURM_STATES",
    "Absence",
    "Accepted",
    "Ask",
    "Change",
    "Deferred",
    "Delay",
    "Document",
    "Due",
    "Entry",
    "Health",
    "Identity",
    "JobConfig",
    "Known",
    "NodeConfig",
    "NodeFacts",
    "NodeInterface",
    "NodesSeen",
    "Observation",
    "Outcome",
    "Plan",
    "Refused",
    "Row",
    "Run",
    "State",
    "utc",
]
