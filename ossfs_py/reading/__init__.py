"""From a version of an object to bytes in memory: what to fetch, when, and for how long to keep it.

Bytes of one version only: every request is pinned to its ETag. A byte that is in memory or on its
way is never asked for again. ``streams``, ``hedging`` and ``models`` decide and are pure. All
but the requests themselves runs on the trio thread, and no lock is held across the network.
"""
