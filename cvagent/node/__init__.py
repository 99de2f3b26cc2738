"""What runs on compute nodes. Standard library only, Python 3.6 and later, one file to ship; it knows nobody.

Here belongs: reading a node's hardware from sysfs. Not here: which interfaces are wanted, and who is told (push).
"""
