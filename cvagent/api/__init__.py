"""What the agent shows: status page, /healthz, /readyz, /metrics, /documents. Read-only HTTP over store and board.

`observer` hears what happens, `metrics` counts it, `readiness` judges it, `page` draws it, `gate` says who may look,
`server` serves it. Not here: changing anything. Who mends things does it on the command line.
"""

from cvagent.api.documents import decode_rows
from cvagent.api.observer import Board
from cvagent.api.server import HttpServer, make_app

__all__ = ["Board", "HttpServer", "decode_rows", "make_app"]
