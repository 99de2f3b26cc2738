"""The hook: a shell script that leaves a note, and how it gets into slurm.conf and out again. It knows nobody."""
