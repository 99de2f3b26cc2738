# Process 1 of the lab: makes its own /etc files, /sys, /run and bridges, says "ready", and then only holds them.
# It goes on only when told to: by then its pid is on file. $1 is the lab's folder; $2 is quick_ack or nothing.
read -r go && [ "$go" = go ]
lab=$1
hostname ctl
ip link set lo up
for file in passwd group hosts; do mount --bind "$lab/etc/$file" /etc/$file; done

# /sys must show this network namespace. slurmd wants the cgroup mounts that it hides.
mkdir -p "$lab/run/cgroup"
if [ -d /sys/fs/cgroup ]; then mount --rbind /sys/fs/cgroup "$lab/run/cgroup"; fi
umount -l /sys
mount -t sysfs sysfs /sys
mount --rbind "$lab/run/cgroup" /sys/fs/cgroup

mount -t tmpfs tmpfs /run
mkdir -p /run/munge /run/slurm /run/mysqld
ln -s "$lab/run/munge.socket" /run/munge/munge.socket.2

ip link add br0 type bridge
ip link set br0 address 02:00:0a:4d:ff:01 up
ip addr add 10.77.0.1/16 dev br0
if [ "$2" = quick_ack ]; then
    ip route show table local | sed -n '/^local /s/$/ quickack 1/p' | while read -r route; do
        ip route replace table local $route
    done
fi
for leaf in leaf1 leaf2; do
    ip link add $leaf type bridge
    ip link set $leaf up
done

echo ready
# Process 1 must ignore SIGCHLD, or every daemon's parent stays behind as a zombie.
exec env --ignore-signal=CHLD sleep infinity </dev/null >/dev/null
