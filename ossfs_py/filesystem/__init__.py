"""POSIX operations in terms of names and open files; knows no FUSE type and can be tested without.

``operations`` is the facade that the FUSE layer and the control commands call. Everything here runs
on the trio thread, without locks on state; state is looked at again after every await. Names come
in as bytes, inodes as numbers; exceptions of :mod:`ossfs_py.errors` go out.
"""
