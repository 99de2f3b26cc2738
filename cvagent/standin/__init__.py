"""A strict CloudVision on loopback, for newcomers, demos and tests: real HTTP, a page, and trouble on demand.

Here belongs what plays the other side of the wire. It imports nothing else of cvagent, so that a mistake there cannot
be repeated here. Start with `StandIn`; `contract` holds what is accepted.
"""

from cvagent.standin.ledger import Write
from cvagent.standin.log import Asked
from cvagent.standin.served import TOKEN, Reach
from cvagent.standin.server import PORT, StandIn, main

__all__ = ["PORT", "TOKEN", "Asked", "Reach", "StandIn", "Write", "main"]
