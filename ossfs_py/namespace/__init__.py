"""Names, inodes and attributes: what the mount knows about the bucket, and how long it is valid.

``keys``, ``names``, ``metadata``, ``numbers`` and ``attributes`` are pure. ``tree`` takes in
answers of the store and changes by this mount; nothing else changes what is known about a name.
``resolver`` asks the store, once for all callers who wait for the same name. ``listing`` reads
directories. Local changes are visible at once, remote ones within the metadata TTL. The kernel
hears of them through ``KernelNews`` (``news.py``), which the file system implements.

Identity
========

An **inode** is one life of one name. It keeps its number while the kernel knows it, and keeps it
under another name when it is renamed here. A name gets a **new inode** when

* the name has another kind now (a file became a directory, or turned out to be a symlink),
* another client deleted the object, whether or not somebody stored the key again,
* another client replaced the object while a program here has the file open *and has received bytes
  of the old version* (``Inode.settled``): sizes and pages of two versions never share an inode of
  the kernel,
* a change made here was refused because another client stored something meanwhile: its writers keep
  the old inode.

If the object is replaced while nobody has bytes of it, the inode stays and takes the new version:
the kernel drops its pages and asks for the size again.

**Numbers** are a hash of the key (``numbers.py``): xxh3 over the names from the bucket's root down,
63 bits of it. They are the same in every mount of the bucket, whatever its prefix. A number may be
in use, by an older version that is still open, or by another key with the same hash. Then it is
skipped: the next number is the hash with the next seed.

**Generations** are another hash of the key if the number is the key's own. So a file handle
(name_to_handle_at, NFS) leads to the same name after a remount, or to ESTALE, even if a key with
the same number is seen first. Inodes with another number, and those of files created here, have a
random generation of this mount: their handles end with it. (Known limit: a stored file that was
renamed here keeps its number until the kernel forgets it. A handle taken after that leads to the
old name after a remount.)

An inode is **stale** when another client has taken its name.

* A program that has it open can read what is still available here, fstat included. It gets ESTALE
  where the store would have to be asked.
* A write gets ESTALE at once, because no close could ever store it.
* If the new object begins with all bytes of the old one, as after an append, the open file
  continues with it (``filesystem/growth.py``).
* Any other call with its number gets ESTALE, too, on purpose: the kernel then walks the path again
  and asks for every name (LOOKUP_REVAL). So the program gets the current file, or ENOENT.
* An inode that was removed *here* is not stale: its last openers write and read it like any
  unlinked file.

The kernel is notified of names that were taken (entry), of attributes and of pages. A notice waits
for calls that the kernel has in flight in the directory or on the pages. So threads that may wait
send the notices, and nothing depends on when they arrive. An answer to the kernel never waits for
them.

Replaced while open (R has read from version 1)::

    R             kernel            mount                              store
    read ───────> READ #1 ────────> GET If-Match v1 ─────────────────> bytes of v1
                                                                       others: PUT v2
    stat ───────> LOOKUP f ───────> HEAD ────────────────────────────> v2
                                    f is #2 (v2) now, #1 is stale
           <───── #2 <───────────── (entry f, sent by a thread)
    read ───────> READ #1 ────────> GET If-Match v1 ─────────────────> 412
           <───── ESTALE            size of #1 stays that of v1: no early end, no NUL
    open f ─────> OPEN #2 ────────> v2

    Without the stat, the 412 makes #1 stale, and the next lookup finds #2. If R had not received a
    byte yet, #1 would become v2, and the READ would be answered from it.

Deleted by others, then written here::

    W             kernel            mount                              store
                                                                       others: DELETE f
    utimens f ──> SETATTR #1 ─────> COPY f onto f ───────────────────> 404
                                    #1 is stale (entry f, by a thread)
           <───── ESTALE, so: LOOKUP f ──> HEAD, LIST ───────────────> nothing
           <───── ENOENT
    creat f ────> CREATE f ───────> #2, local
    close ──────> FLUSH ──────────> PUT f ───────────────────────────> v2

Renamed over here (g over f, f open)::

    mv g f ─────> RENAME ─────────> f (#1) loses its name, its openers keep it (removed here)
                                    COPY g f, DELETE g
                                    #2, which was g, is f; the kernel moves the name by itself
    stat f ─────> LOOKUP f ───────> #2. After a remount f has the number of its key again, and
                                    so has a new g: #2 is skipped only while it is in use

Two mounts taking turns::

    A: echo 1 >> f      PUT v1 (if absent)
    B: echo 2 >> f      OPEN: HEAD says v1; PUT v2 (if v1 is there)
    A: echo 3 >> f      OPEN #1: HEAD says v2, the kernel knows the size of v1
                        <- ESTALE, so: LOOKUP f -> #1 with the size of v2; OPEN #1, not asked again
                        WRITE at the end of v2; PUT v3 (if v2 is there)
                        refused, B wrote v3' meanwhile: the lines are appended to v3' instead
"""
