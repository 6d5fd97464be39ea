"""The only code that knows pyfuse3: it translates between the kernel and the file system.

``session`` mounts and unmounts, ``adapter`` turns requests into calls and exceptions into errnos,
``recorded`` does the same with a line in the access log, ``tuning`` sets the kernel's readahead,
``invalidation`` makes the kernel forget, ``repeats`` knows READs that it sends twice. Every call
goes to ``Filesystem`` and to nothing below it. A reply says how long it is valid.

``lane`` answers the most frequent requests without pyfuse3, through the same handlers. ``takeover``
gets it the kernel's descriptor, ``wire`` knows the bytes of requests and answers, and ``replying``
copies long answers into the kernel. With ``--fuse-lane off``, and where the lane is not available,
pyfuse3 answers everything.

A stray exception becomes EIO with a traceback in the log, never the end of the mount. ``forget``
never raises, and what ``release`` answers is lost: commits happen in ``flush`` and ``fsync``.
"""
