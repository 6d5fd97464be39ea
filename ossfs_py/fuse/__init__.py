"""The only code that knows pyfuse3: it translates between the kernel and the file system.

``session`` mounts and unmounts, ``adapter`` turns requests into calls and exceptions into errnos,
``recorded`` does the same with a line in the access log, ``tuning`` sets the kernel's readahead,
``invalidation`` makes the kernel forget, ``repeats`` knows READs that it sends twice. Every
question goes to ``Filesystem`` and to nothing below it; a reply comes with how long it may be
believed.

``lane`` answers what is asked most without pyfuse3, through the same handlers; ``takeover`` gets it
the kernel's descriptor, ``wire`` knows the bytes of requests and answers, ``replying`` copies long
ones into the kernel. With ``--fuse-lane off``, and where it cannot be had, pyfuse3 does it all.

A stray exception becomes EIO with a traceback in the log, never the end of the mount. ``forget``
never raises, and what ``release`` answers is lost: commits happen in ``flush`` and ``fsync``.
"""
