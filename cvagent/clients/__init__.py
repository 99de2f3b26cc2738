"""The wire: the only place that starts processes or opens sockets. Words in, words out.

Here belongs: one module per counterpart, its transport and its errors. Not here: what the words mean for the
cluster (sources, sinks) or what is to be done about them (push).
"""
