"""How the bytes of open files are read and written: three data paths behind one protocol.

``base`` is the protocol. ``temp``, ``cache`` and ``direct`` implement it, and never import one
another. They share ``objectfile``, ``fileparts`` and the packages below. ``diskcache`` is the block
store on disk.
State about a version belongs to its inode, so N readers of one file cost one download.
"""
