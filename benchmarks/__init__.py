"""What cvagent costs, each number as a ratio to something measured in the same run: `make bench`.

One module per question; each has a `measure()` that yields rows. Here belongs what takes minutes or a quiet machine.
Not here: anything that decides whether the code is right (tests).
"""
