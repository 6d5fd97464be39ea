"""A second level of cached blocks that several machines share: memcached on each of them.

``SharedCache`` is what reading knows (``reading.shared.SharedBlocks``). Each block of an object
version has one node (``placement``, pure: rendezvous hashing, weights by memory), one key and one
sealed form (``blocks``, pure: a checksum, or a MAC when there is a secret). A missing block is
leased to the first who asks: that one fetches it from the bucket, everybody else waits for it, a
bounded time. There is no coordinator: every mount computes the same node for the same block.

Invariants: every byte is checked against its version and place before a program gets it. A failure
costs a moment, once, and the reader goes to the bucket. Nothing here ever raises into a read. All
of it runs on threads, except ``keeping`` (nodes that come, go and are probed), which belongs to the
trio thread.

The client of the wire (``connection``) is our own: pymemcache knows no meta commands, and
meta-memcache hands out bytes, which would be copied once more into the buffer of the reader.
"""
