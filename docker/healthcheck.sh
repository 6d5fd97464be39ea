#!/bin/sh
# Healthy: the mount is there, and its daemon answers. The store is not asked: when it is away for
# a while, a restart would make things worse.
set -eu

# The mountpoint itself is not touched: on a dead mount that fails.
mountpoint=$(realpath "$(dirname "$OSSFS_PY_MOUNTPOINT")")/$(basename "$OSSFS_PY_MOUNTPOINT")
escaped=$(printf %s "$mountpoint" | sed 's/ /\\\\040/g')
awk -v at="$escaped" '$5 == at && $0 ~ / - fuse\.ossfs-py / { found = 1 } END { exit !found }' \
    /proc/self/mountinfo || {
    echo "nothing is mounted at $mountpoint"
    exit 1
}
kind=$(timeout 5 stat --file-system --format=%t "$mountpoint" 2>/dev/null) || {
    echo "the mount at $mountpoint does not answer"
    exit 1
}
# Otherwise the mount went away in between, and the directory below it has answered.
[ "$kind" = 65735546 ] || { # FUSE_SUPER_MAGIC in linux/magic.h
    echo "nothing is mounted at $mountpoint"
    exit 1
}
