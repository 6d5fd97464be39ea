"""Threads and memory: the two resources of the machine that every layer shares.

``workers`` are the persistent threads that make blocking calls for the trio loop, ``buffers`` the
one byte budget of the mount, ``slabs`` the memory behind it. Nothing here knows what the bytes are.
"""
