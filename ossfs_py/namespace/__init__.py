"""Names, inodes and attributes: what the mount believes of the bucket, and for how long.

``keys``, ``names``, ``metadata`` and ``attributes`` are pure. ``tree`` takes in what the store says
and what this mount did; nothing else changes what is known of a name. ``resolver`` asks the store,
once for everybody who wants to know. ``listing`` reads directories. Local changes are visible at
once, remote ones within the metadata TTL.
"""
