# Makes the namespaces of each node in "$@", held by a process of the node's own, so that they outlive its slurmd.
mkdir -p /run/nodes
for node; do
    # A killed start may have left half of it.
    if [ -s "/run/nodes/$node" ]; then kill -KILL "$(cat "/run/nodes/$node")" 2>/dev/null || :; fi
    ip netns del "$node" 2>/dev/null || :
    for link in "e${node#node}" "f${node#node}a" "f${node#node}b"; do ip link del "$link" 2>/dev/null || :; done

    holder=$(unshare --net --uts --mount --propagation private sh -ec '
        hostname "$1"
        ip link set lo up
        umount -l /sys
        mount -t sysfs sysfs /sys
        mount --rbind "$2" /sys/fs/cgroup
        mount -t tmpfs tmpfs /run/slurm
        echo $$
        exec setsid sleep infinity </dev/null >/dev/null 2>&1
    ' sh "$node" "$RUN/cgroup" &)
    echo "$holder" >"/run/nodes/$node"
    ip netns attach "$node" "${holder:?no namespaces for $node}"
done
