"""From a version of an object to bytes in memory: what to fetch, when, and how long to keep it.

Every request is pinned to the ETag of one version. A byte that is in memory or in flight is never
requested again. Everything except the requests themselves runs on the trio thread, and no lock is
held across the network.

- ``VersionReader`` answers reads.
- ``Outlook`` has what is known of how a version is read, once that is no single request.
- ``Planner`` decides which spans to fetch (pure, like ``streams`` and ``hedging``), with the
  predictions of the package ``foresight``.
- ``Fetcher`` sends the requests; ``inline`` has the loop around those that take no thread.
- ``DiskHome`` writes bytes to a local disk and reads them back.
- ``Resident`` decides which bytes to give up when memory is short.

All of them work with ``Chunk``s, and only a chunk changes its own state. ``ReadContext`` has what
the readers of a mount share, and ``ReaderCache`` has one reader for each version. Other packages
use these two, and ``BlockBackend``.
"""
