"""From a version of an object to bytes in memory: what to fetch, when, and for how long to keep it.

Bytes of one version only: every request is pinned to its ETag. A byte that is in memory or on its
way is never asked for again. All but the requests themselves runs on the trio thread, and no lock
is held across the network.

``VersionReader`` answers. ``Planner`` says which spans to fetch (pure, as ``streams`` and
``hedging`` are), with what the room ``foresight`` believes of the program that reads; ``Fetcher``
makes the requests; ``DiskHome`` brings bytes to a local disk and back; ``Resident`` decides what is
given up when memory is short. All of them speak of ``Chunk``s, and only a chunk changes its own
state. ``ReadContext`` is what the readers of a mount share, and ``ReaderCache`` has one reader for
each version. Other rooms use these two, and ``BlockBackend``.
"""
