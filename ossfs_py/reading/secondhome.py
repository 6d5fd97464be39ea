"""A second home for fetched bytes: a temporary file or the disk cache."""

from typing import Protocol

from ossfs_py.errors import OssfsError


class BlockLostError(OssfsError):
    """Bytes that were on disk cannot be read or do not match their checksum.

    They are fetched from the store again.
    """


class BlockBackend(Protocol):
    """Bytes of one object version on local disk.

    ``load_into`` and ``keep`` block and run on file threads, never twice at a time for one span;
    everything else belongs to the trio thread and answers from memory. ``close`` comes when no
    thread is inside ``load_into`` or ``keep`` any more.
    """

    granularity_bytes: int
    """Fetched spans start and end on multiples of this (or at the end of the object)."""

    def present_until(self, offset: int) -> int:
        """End of the run of bytes on disk that holds ``offset``; ``offset`` itself if none."""
        ...

    def next_present(self, offset: int) -> int | None:
        """Where the first run on disk behind ``offset`` begins."""
        ...

    def load_into(self, start: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from disk.

        Raises:
            BlockLostError: some of the bytes are bad or gone.
        """
        ...

    def keep(self, start: int, view: memoryview) -> bool:
        """Write fetched bytes to disk; False when there was no room (nothing was kept)."""
        ...

    def note_kept(self, start: int, end: int) -> None:
        """Called on the trio thread after ``keep`` returned True: the run is present now."""
        ...

    def note_lost(self, start: int, end: int) -> None:
        """Called on the trio thread after ``load_into`` raised BlockLostError."""
        ...

    def note_skipped(self, size: int) -> None:
        """Called on the trio thread for fetched bytes that were given up before they were
        written: the disk is slower than the network.
        """
        ...

    def close(self) -> None:
        """Free what belongs to this version's open file."""
        ...
