"""A persistent, bounded, checksummed store of object blocks on local disk.

Parts, each with one reason to change:

- ``layout``: what stands where in a block file; names, offsets, checksums. Pure.
- ``root``: the cache directory: format, ownership, the lock that says "in use".
- ``disk``: the directory over time: lost, left alone, found again.
- ``ledger``: how many bytes all mounts together hold, behind one lock.
- ``eviction``: in which order files go. Pure.
- ``blockfile``: one object version's file: reading with verification, writing, trimming.
- ``evictor``: taking space back from files nobody has open.
- ``store``: admission under the limits.
- ``openversion``: one open version as readers see it.
- ``inspection``: metrics, rehash and clearing for people.

How several mounts of one host share a directory: every block file carries its own presence
records, so there is no common index to keep in step. Space is handed out and taken back only
under the ledger's lock. Whoever has a version open holds a shared flock on its file; eviction
needs the exclusive one and passes over files it cannot get. All locks are flocks: the kernel drops
them with the process, however it ends.

Why nothing wrong is ever served: a block's record is the checksum of its bytes, seeded with the
identity of the version and the block's index, and the reader computes both from what it asked
for, never from what the disk says. Whatever a crash, a power cut or a bit flip leaves behind
either matches (and is right) or does not (and is fetched again). No fsync is needed for that.
"""
