#!/bin/sh
# Mounts in the foreground as the container's process 1. Arguments are options of
# "ossfs-py mount"; anything else is run as a command of ossfs-py (warmup, doctor, ...).
set -eu

case "${1:--}" in
-*) ;;
*) exec ossfs-py "$@" ;;
esac

# A container that was killed leaves its mount on the host, where every access fails.
ossfs-py cleanup "$OSSFS_PY_MOUNTPOINT"
mkdir -p "$OSSFS_PY_MOUNTPOINT"
exec ossfs-py mount --foreground "$@"
