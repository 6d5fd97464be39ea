"""The only code that knows pyfuse3: it translates between the kernel and the file system.

``session`` mounts and unmounts. ``adapter`` turns requests into calls and exceptions into errnos;
``recorded`` does the same with a line in the access log. ``tuning`` sets the kernel's readahead,
``invalidation`` invalidates the kernel's caches, ``repeats`` recognizes READs that the kernel sends
twice. Every call goes to ``Filesystem`` and to nothing below it. A reply says how long it is valid.

``lane`` answers the most frequent requests without pyfuse3, through the same handlers. ``takeover``
gets the kernel's descriptor for it, ``receiving`` reads requests, ``wire`` decodes them and encodes
answers, ``replying`` copies long answers into the kernel, and ``atonce`` answers what waits for
nothing. With ``--fuse-lane off``, or if the lane is not available, pyfuse3 answers everything.

An unexpected exception becomes EIO with a traceback in the log, never the end of the mount.
``forget`` never raises, and the answer of ``release`` is lost: commits happen in ``flush`` and
``fsync``.
"""
