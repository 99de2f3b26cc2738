"""Decisions of pull mode: what Slurm's accounts, their members and the portal's orders are to become. Pure."""
