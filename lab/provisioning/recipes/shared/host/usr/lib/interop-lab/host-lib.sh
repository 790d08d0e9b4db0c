# Functions for the first program of a host that the lab makes. Sourced; everything that can go wrong says so on the
# console, which the lab reads.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
say() { echo "interop-lab: $*" >/dev/console; }

# begin NAME: file systems, devices, the host's name
begin() {
    say "$1 begins"
    mountpoint -q /proc || mount -t proc proc /proc
    mountpoint -q /sys || mount -t sysfs sysfs /sys
    mountpoint -q /dev || mount -t devtmpfs dev /dev
    # There is no udev, and scripts use these.
    ln -sfn /proc/self/fd /dev/fd
    ln -sf fd/0 /dev/stdin
    ln -sf fd/1 /dev/stdout
    ln -sf fd/2 /dev/stderr
    mkdir -p /dev/pts /dev/shm
    mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /run/lock /run/sshd
    mkdir -m 700 /run/ssh
    echo "$1" >/proc/sys/kernel/hostname
    # A guest must not make its host write a line on this console for every packet.
    echo 1 >/proc/sys/kernel/printk
}

load_modules() {
    for module in $(cat /usr/lib/interop-lab/modules); do
        modprobe "$module" || say "modprobe $module failed"
    done
}

# make_bridge BRIDGE: with this host's address
make_bridge() {
    ip link add "$1" type bridge forward_delay 0 stp_state 0
    ip link set "$1" up
    ip addr add 10.0.2.15/24 dev "$1"
}

# join_bridge BRIDGE: the emulator's network card and its network are behind it
join_bridge() {
    ip link set lo up
    tries=0
    while [ ! -e /sys/class/net/eth0 ] && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
    ip link set eth0 up && ip link set eth0 master "$1" || say "the network card is missing"
    ip route add default via 10.0.2.2
}

# prepare_ssh: an sshd that answers nobody until the seed came
prepare_ssh() {
    # The key that it is started with is nobody's.
    ssh-keygen -q -t ed25519 -N '' -f /run/ssh/ssh_host_ed25519_key && /usr/sbin/sshd -E /run/sshd.log ||
        say "sshd failed: $(tail -n 1 /run/sshd.log)"
    tries=0
    until [ -s /run/sshd.pid ] || [ $tries -gt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
    # A whole session of sshd and what it starts, so that their pages are in memory too; it fails, as no key is let in.
    ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1 true >/dev/null 2>&1
    kill -STOP "$(cat /run/sshd.pid)"
    rm -f /run/ssh/ssh_host_ed25519_key*
}

# serve CONSOLE: answer the lab on that console, and reap; never returns
serve() {
    /usr/lib/interop-lab/wake <"$1" >/dev/console 2>&1 &
    say "host ready"
    trap 'sync; poweroff -f' TERM
    trap 'sync; reboot -f' INT
    while :; do
        wait
        sleep 3600 &
        wait $!
    done
}
