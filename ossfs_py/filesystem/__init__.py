"""POSIX operations on names and open files. Knows no FUSE type, and can be tested without FUSE.

``operations`` is the facade: the FUSE layer and the control commands call it, and nothing below it.
Names come in as bytes, inodes and handles as numbers. ``replies`` (attributes with their lifetime)
and exceptions of :mod:`ossfs_py.errors` go out. Everything here runs on the trio thread, without
locks on state. State is checked again after every await.

Each state has one owner: ``handles`` owns the descriptors, ``directories`` those of directories,
``openinodes`` the open files of inodes, ``commits`` the version that a commit may replace,
``preserved`` the hidden copies, ``removals`` the removed files that the store still has
(``putoff``: those deleted in the background), ``owedentries`` the directories and links that
write-back has made and not stored yet (both work in ``rounds``), ``kernelcache`` the contents of
the kernel's caches and the way to invalidate them, ``writeback`` the queue of closed files.
``changes`` keeps changes of names and metadata apart from commits: they take a claim on a place in
the tree first, then the lock of the open inode. ``renaming`` is the change that moves names.
``trash`` decides which content is kept before it is lost, ``protection`` which changes are refused.
``behind`` runs work that goes on after its caller stopped waiting. ``siblings`` fetches files that
will probably be opened soon. ``twins`` finds objects that may have the bytes of a file already.
``atonce`` does what waits for nothing without a coroutine.
``links`` follows a link that was opened as a file, ``growth`` a file that others append to.

``surviving`` is the facade of a mount that outlives its daemon: ``survival`` and ``filerecords``
write down the state that the next daemon needs, ``settling`` finds out what the dead daemon had
stored, ``repeated`` answers the requests that it had taken up.
"""
