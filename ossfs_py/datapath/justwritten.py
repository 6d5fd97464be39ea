"""Files that were written here a moment ago: they are read back from where they were written."""

from collections import OrderedDict

import trio

from ossfs_py.datapath.fileparts import FileParts, read_fully
from ossfs_py.extents import ExtentSet
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.secondhome import BlockLostError
from ossfs_py.writing.content import LentFile

_KEPT_SECONDS = 5.0
"""As long as a reader lingers that nobody uses: git reads the pack that it has just renamed."""
_MOST_FILES = 16
_MOST_BYTES = 64 * 1024**2
"""Of all of them: disk space and descriptors that others may want."""
_LONGEST_BYTES = 16 * 1024**2
"""Of one: most of the wait for more is not for a round trip."""


class LentBackend(FileParts):
    """The bytes of a version in the file that they were written to. Implements
    :class:`~ossfs_py.reading.secondhome.BlockBackend`. It accepts no others.
    """

    def __init__(self, version: ObjectVersion, lent: LentFile) -> None:
        super().__init__(version, lent.spans)
        self._lent = lent

    def load_into(self, start: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from the file.

        Raises:
            BlockLostError: the file has other bytes by now.
        """
        try:
            done = read_fully(self._lent.fd, buffer, start)
        except OSError as exc:
            raise self._lost(start) from exc
        if done < len(buffer) or not self._lent.unchanged():
            raise self._lost(start)

    def keep(self, start: int, view: memoryview) -> bool:  # noqa: ARG002 - the protocol's
        """False: the file is not this backend's own."""
        return False

    def note_kept(self, start: int, end: int) -> None:
        """Nothing is kept."""

    def note_skipped(self, size: int) -> None:
        """Nothing would have been kept."""

    def close(self) -> None:
        """Give the file back."""
        self._lent.give_back()

    def _lost(self, start: int) -> BlockLostError:
        return BlockLostError(f"what was written of {self._version.key!r} at {start} has changed")


class JustWritten:
    """The files that were stored last, as far as they are in files of their own. Belongs to the
    trio thread.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[ObjectVersion, tuple[LentFile, float]] = OrderedDict()
        """With the time until which each is kept, on trio's clock."""
        self._bytes = 0

    @staticmethod
    def wants(version: ObjectVersion) -> bool:
        """Whether a version is worth it."""
        return version.has_etag and version.size <= _LONGEST_BYTES

    def keep(self, version: ObjectVersion, lent: LentFile) -> None:
        """Keep a version that is wanted, in place of those that were stored first; gives ``lent``
        back later.
        """
        self.forget(version)
        whole = ExtentSet()
        whole.add(0, version.size)
        if lent.spans != whole:
            lent.give_back()
            return
        self._kept[version] = lent, trio.current_time() + _KEPT_SECONDS
        self._bytes += version.size
        while len(self._kept) > _MOST_FILES or self._bytes > _MOST_BYTES:
            self.forget(next(iter(self._kept)))

    def take(self, version: ObjectVersion) -> LentBackend | None:
        """A backend with all bytes of a version, which is not kept here any more."""
        kept = self._kept.get(version)
        if kept is not None and kept[1] <= trio.current_time():
            self.forget(version)
        lent = self._taken(version)
        return None if lent is None else LentBackend(version, lent)

    def copied(self, version: ObjectVersion, copy: ObjectVersion) -> None:
        """The store has copied a version, which will be gone soon: keep it as the copy."""
        if version in self._kept and copy.size == version.size and self.wants(copy):
            lent = self._taken(version)
            if lent is not None:
                self.keep(copy, lent)

    def forget(self, version: ObjectVersion) -> None:
        """Give a version's file back, if it is kept."""
        lent = self._taken(version)
        if lent is not None:
            lent.give_back()

    async def run(self) -> None:
        """Give back what nobody has asked for, until cancelled."""
        while True:
            await trio.sleep(_KEPT_SECONDS)
            now = trio.current_time()
            for version in [each for each, (_, until) in self._kept.items() if until <= now]:
                self.forget(version)

    def close(self) -> None:
        """Give all back."""
        while self._kept:
            self.forget(next(iter(self._kept)))

    def _taken(self, version: ObjectVersion) -> LentFile | None:
        kept = self._kept.pop(version, None)
        if kept is None:
            return None
        self._bytes -= version.size
        return kept[0]
