"""Complete listings, by directory, while they are fresh and fit."""

import trio

from ossfs_py.namespace.listing.reading import Listing
from ossfs_py.runtime.recent import Recent


class WholeListings:
    """Belongs to the trio thread.

    Listings that are older than the time to live are dropped with the next one that comes. Until
    then who asks looks at when it was started: each request asks several times, and here a look
    takes 0.1 us.
    """

    def __init__(self, max_entries: int, ttl_seconds: float) -> None:
        """``max_entries``: of all listings together; each counts for one more than it holds."""
        self._max_entries = max_entries
        self._ttl_seconds = ttl_seconds
        self._entries = 0
        # By inode number, which a rename of the directory or of one above it does not change; but
        # another directory may get it when nobody knows this one any more.
        self._kept: Recent[int, tuple[Listing, int, float]] = Recent(max_entries)

    def get(self, directory: int) -> Listing | None:
        """The listing of a directory, however old."""
        kept = self._kept.get(directory)
        return None if kept is None else kept[0]

    def put(self, directory: int, listing: Listing) -> None:
        """Keep it from now on, in the place of an earlier one, unless it is too long by itself;
        of too many the oldest go.
        """
        self.pop(directory)
        now, size = trio.current_time(), 1 + len(listing.index or ())
        if size > self._max_entries:
            return
        while self._kept and (
            self._entries + size > self._max_entries
            or next(iter(self._kept.values()))[2] <= now - self._ttl_seconds
        ):
            self._entries -= self._kept.popitem(last=False)[1][1]
        self._kept.put(directory, (listing, size, now))
        self._entries += size

    def changed(self, directory: int) -> None:
        """The listing of a directory has got, or lost, an entry; of too many the oldest go."""
        kept = self._kept.get(directory)
        if kept is None:
            return
        listing, before, put_at = kept
        size = 1 + len(listing.index or ())
        if size != before:
            self._kept[directory] = listing, size, put_at
            self._entries += size - before
            while self._kept and self._entries > self._max_entries:
                self._entries -= self._kept.popitem(last=False)[1][1]

    def pop(self, directory: int) -> None:
        """Forget a directory's."""
        kept = self._kept.pop(directory, None)
        if kept is not None:
            self._entries -= kept[1]
