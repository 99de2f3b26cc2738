"""cvagent tells Arista CloudVision which Slurm job runs where. Start reading in `cvagent.flows`."""

__version__ = "0.1.0"
