# Starts the slurmd of each node in "$@", eight at a time. MODE is netns or multi.
count=0
for node; do
    mkdir -p "$STATE/slurmd.$node"
    rm -f "$RUN/slurmd.$node.pid"
    if [ "$MODE" = netns ]; then
        nsenter --net --uts --mount --target "$(cat "/run/nodes/$node")" slurmd -N "$node" -f "$SLURM_CONF" &
    else
        slurmd -N "$node" -f "$SLURM_CONF" &
    fi
    count=$((count + 1))
    [ $((count % 8)) != 0 ] || wait
done
wait
