"""Cluster to the outside: what each sink is to be told. Pure decisions: no I/O, no clock, no settings."""
