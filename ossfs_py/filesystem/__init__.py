"""POSIX operations on names and open files. Knows no FUSE type, and can be tested without FUSE.

``operations`` is the facade: the FUSE layer and the control commands call it, and nothing below it.
Names come in as bytes, inodes and handles as numbers. ``replies`` (attributes with their lifetime)
and exceptions of :mod:`ossfs_py.errors` go out. Everything here runs on the trio thread, without
locks on state. State is checked again after every await.

Each state has one owner: ``handles`` the descriptors, ``directories`` those of directories,
``openinodes`` what is open of each inode, ``commits`` the version that a commit may replace,
``preserved`` the hidden copies, ``removals`` what was removed here and the store still has
(``putoff``: what is deleted behind), ``owedentries`` the directories and links that
write-back has made and the store has not yet (both work in ``rounds``), ``kernelcache`` what the
kernel has cached and the way to make it forget, ``writeback`` the queue of closed files.
``changes`` keeps changes of names and metadata apart from commits: a claim on a place in the tree
first, then the lock of the open inode; ``renaming`` is the change that moves names. ``trash``
decides what is kept before it is lost, ``protection`` what may not be changed. ``behind`` runs what
goes on when nobody waits for it any more. ``siblings`` fetches what will be opened soon, ``twins``
knows what may have the bytes of a file already. ``links`` follows a link that was opened as a file,
``growth`` a file that others append to.

``surviving`` is the facade of a mount that outlives its daemon: ``survival`` and ``filerecords``
write down what the next one needs, ``settling`` finds out what the dead one had stored,
``repeated`` answers what it had taken up.
"""
