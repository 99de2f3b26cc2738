"""What the agent shows: status page, /healthz, /readyz, /metrics, /documents. Read-only HTTP over store and board.

`observer` hears what happens, `metrics` counts it, `readiness` judges it, `page` draws it, `gate` says who may look,
`server` serves it, `documents` is what the command line reads. Only `server` and `gate` load the web framework.
Not here: changing anything. Who mends things does it on the command line.
"""
