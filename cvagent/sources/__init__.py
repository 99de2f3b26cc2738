"""What is read: one module per source, each a `ports.Source`.

Here belongs: turning a client's records into model records. Not here: deciding what to do about them.
"""
