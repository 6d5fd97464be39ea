"""Names, inodes and attributes: what the mount knows about the bucket, and how long it is valid.

``keys``, ``names``, ``metadata``, ``numbers`` and ``attributes`` are pure. ``tree`` takes in
answers of the store and changes by this mount; nothing else changes what is known about a name.
``resolver`` asks the store, once for all callers who wait for the same name. ``listing`` reads
directories. Local changes are visible at once, remote ones within the metadata TTL. The kernel
hears of them through ``KernelNews`` (``news.py``), which the file system implements.

Identity
========

An **inode** is one name in one life. It keeps its number while the kernel knows it, and goes on
under another name when it is renamed here. A **new inode** is made under a name when

* the name stands for another kind now (a file became a directory, or turned out to be a symlink),
* others deleted the object, whoever made the key anew,
* others replaced the object while somebody here holds the file open *and has been given bytes of
  the old version* (``Inode.settled``): sizes and pages of two versions never share an inode of the
  kernel,
* a change made here was refused for what others stored meanwhile: its writers keep the old inode.

Replaced while nobody holds bytes of it, the inode stays and takes the new version: the kernel
drops its pages and asks for the size again.

**Numbers** are a hash of the key (``numbers.py``): xxh3 over the names from the bucket's root down,
63 bits of it, the same in every mount of the bucket whatever its prefix. A number that is in use,
by an older version that is still open or by a key that happens to have the same one, is stepped
over: the next number is the hash with the next seed. **Generations** are another hash of the key
where the number is the key's own, so that a file handle (name_to_handle_at, NFS) leads to the same
name after a remount, or to ESTALE, even if a key with the same number is met first then. Inodes
whose number was stepped to, and those of files made here, have a random generation of this mount:
their handles end with it. (Left: a stored file that was renamed here
keeps its number until the kernel forgets it; a handle of it taken after that leads to the old name
after a remount.)

An inode that others took the name from is **stale**. Who has it open reads on what is still at
hand, fstat included, and gets ESTALE where the store would have to be asked; a write gets ESTALE at
once, as no close could ever store it. (If the new object begins with all bytes of the old one, as
after an append, the open file goes on with it: ``filesystem/growth.py``.) Any other call that comes
with its number is answered ESTALE too, on purpose: the kernel then walks the path again and asks
for every name (LOOKUP_REVAL), so the program is told what is there now, or ENOENT, and never meets
a zombie. (An inode that was removed *here* is not stale: its last openers write and read it like
any unlinked file.)

The kernel is told of a name that was taken (entry), of attributes and of pages. That waits for
calls the kernel has under way in the directory or on the pages, so it is done by threads that may
wait; nothing depends on when. An answer to the kernel never does.

Replaced while open (R has read from version 1)::

    R             kernel            mount                              store
    read ───────> READ #1 ────────> GET If-Match v1 ─────────────────> bytes of v1
                                                                       others: PUT v2
    stat ───────> LOOKUP f ───────> HEAD ────────────────────────────> v2
                                    f is #2 (v2) now, #1 is stale
           <───── #2 <───────────── (entry f, told by a thread)
    read ───────> READ #1 ────────> GET If-Match v1 ─────────────────> 412
           <───── ESTALE            size of #1 stays that of v1: no early end, no NUL
    open f ─────> OPEN #2 ────────> v2

    Without the stat it is the 412 that makes #1 stale, and the next look finds #2. Had R not been
    given a byte yet, #1 would have become v2 and the READ been answered from it.

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
                                    #2, so far g, is f; the kernel moves the name by itself
    stat f ─────> LOOKUP f ───────> #2. After a remount f has the number of its key again, and
                                    so has a new g: #2 is stepped over only while it is in use

Two mounts taking turns::

    A: echo 1 >> f      PUT v1 (if absent)
    B: echo 2 >> f      OPEN: HEAD says v1; PUT v2 (if v1 is there)
    A: echo 3 >> f      OPEN #1: HEAD says v2, the kernel knows the size of v1
                        <- ESTALE, so: LOOKUP f -> #1 with the size of v2; OPEN #1, not asked again
                        WRITE at the end of v2; PUT v3 (if v2 is there)
                        refused, as B wrote v3' meanwhile: the lines are appended to v3' instead
"""
