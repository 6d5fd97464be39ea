"""Threads and memory: the two resources of the machine that every layer shares.

``workers`` are the persistent threads that make blocking calls for the trio loop. ``buffers`` is
the one byte budget of the mount, and ``slabs`` is the memory behind it. ``pastpages`` reads and
writes local files without filling the page cache, and ``copying`` copies without Python's lock.
``scattered`` is an answer whose bytes lie in several buffers.
``recent`` is a dictionary of bounded size, and ``locks`` has a lock that costs nothing while free.
Nothing here knows what the bytes mean.
"""
