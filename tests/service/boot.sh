#!/bin/bash
# Boots systemd as process 1 of namespaces of its own, over the files of this machine.
#
#   boot.sh CGROUP UNITS     CGROUP: an empty cgroup (v2) for it; UNITS: a directory of unit files
#
# Everything it may change is in memory and gone with it: /etc, /usr, /var/lib and /var/cache are
# overlaid, /run and /dev are new. The network is this machine's, for the store of the test.
set -eu
if [ "$1" != --inside ]; then
    echo $$ >"$1/cgroup.procs"
    exec unshare --pid --mount --uts --ipc --cgroup --fork --kill-child --propagation private \
        "$0" --inside "$2"
fi
units=$2
mount -t proc proc /proc
# Neither this machine's sysctls nor its devices are for a guest to change.
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
scratch=$(mktemp -d)
mount -t tmpfs -o mode=755 tmpfs "$scratch"
mkdir "$scratch/dev"
mount -t tmpfs -o mode=755 tmpfs "$scratch/dev"
while read -r name type major minor; do
    mknod -m 666 "$scratch/dev/$name" "$type" "$major" "$minor"
done <<NODES
null c 1 3
zero c 1 5
full c 1 7
random c 1 8
urandom c 1 9
tty c 5 0
fuse c 10 229
NODES
mkdir "$scratch/dev/shm"
ln -s /proc/self/fd "$scratch/dev/fd"
# A service with PrivateDevices= does not start without it.
ln -s pts/ptmx "$scratch/dev/ptmx"
mount --move "$scratch/dev" /dev
for tree in etc usr var/lib var/cache; do
    mkdir -p "$scratch/$tree/upper" "$scratch/$tree/work"
    mount -t overlay -o "lowerdir=/$tree,upperdir=$scratch/$tree/upper,workdir=$scratch/$tree/work" \
        overlay "/$tree"
done
mount -t tmpfs -o mode=755 tmpfs /run
# A copy of a mount would keep its daemon busy after somebody unmounts the original.
findmnt -rno FSTYPE,TARGET | sed -n "s/^fuse[^ ]* //p" | while read -r target; do
    umount -l "$(printf "%b" "$target")"
done
while mountpoint -q /sys/fs/cgroup; do umount -l /sys/fs/cgroup; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
: >/etc/fstab
umount -l "$scratch"
rmdir "$scratch"
# "container" keeps systemd from setting up hardware and sysctls.
export container=test SYSTEMD_UNIT_PATH="$units:/etc/systemd/system:/run/systemd/generator:/usr/local/lib/systemd/system"
exec /lib/systemd/systemd --system --unit=basic.target --show-status=no --log-target=journal
