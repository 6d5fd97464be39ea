"""This machine, for the daemon and the command line: mountpoints, directories, running mounts.

Nothing here talks to a store or to the kernel's FUSE device.
"""
