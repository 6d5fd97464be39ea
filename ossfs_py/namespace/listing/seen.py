"""The content of directories when they were last listed, so that changes by others are noticed."""

from ossfs_py.model import ObjectInfo
from ossfs_py.namespace.listing.merge import DIRECTORY, REMOVED, Entry, State
from ossfs_py.runtime.recent import Recent

_UNLIKE_ANY = -1
"""No sum: they are not negative."""
_MASK = (1 << 64) - 1


def _mark(entry: State) -> object:
    # A directory that is not stored yet is known here as one, and in a listing as something local.
    return entry.etag if isinstance(entry, ObjectInfo) else DIRECTORY


class SeenContents:
    """One number for each directory: the sum of its entries' hashes, names and ETags alike.

    A sum, so that what this mount changes itself is added and taken away entry by entry.
    """

    def __init__(self, max_directories: int) -> None:
        self._sums: Recent[int, int] = Recent(max_directories)

    def listed(self, directory: int, index: dict[str, Entry]) -> bool:
        """Take note of a whole listing; whether others have changed something since the last."""
        marks = [_mark(entry) for entry in index.values()]
        now = sum(map(hash, zip(index, marks, strict=True))) & _MASK
        before = self._sums.get(directory)
        self._sums.put(directory, now)
        return before is not None and before != now

    def noted(self, directory: int, name: str, before: State, after: State) -> None:
        """This mount itself changed an entry that a listing at hand shows; REMOVED is none."""
        known = self._sums.get(directory)
        if known is None or known == _UNLIKE_ANY:
            return
        for state, sign in ((before, -1), (after, 1)):
            if state is not REMOVED:
                known += sign * hash((name, _mark(state)))
        self._sums.put(directory, known & _MASK)

    def lost(self, directory: int) -> None:
        """This mount changed an entry and no listing tells what it was: the next one differs."""
        if directory in self._sums:
            self._sums.put(directory, _UNLIKE_ANY)
