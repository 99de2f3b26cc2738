"""What is written outside: one module per place, each a `ports.Sink`.

Here belongs: a document's wire form, and who must be told what went wrong with it. Not here: deciding what to write
(push), when to try again (loops), or how to speak HTTP (clients).
"""
