"""How the bytes of open files are read and written: three data paths behind one protocol.

``base`` is the protocol, ``temp``, ``cache`` and ``direct`` implement it and never know one
another; what they share lies in ``objectfile`` and in the rooms below. ``diskcache`` is the block
store on disk. State about a version belongs to its inode: N readers of one file cost one download.
"""
