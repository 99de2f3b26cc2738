#!/bin/sh
# The lab's $name, for callers outside its namespaces. One process: whoever kills it has killed all of it.
export SLURM_CONF=$folder/etc/slurm.conf
exec nsenter $options $command "$$@"
