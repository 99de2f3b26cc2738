"""What each sink is to hold and what it accepted last: a cache in SQL that may be lost.

Here belongs: durable bookkeeping. Not here: deciding (push, pull) or writing outside (sinks).
"""
