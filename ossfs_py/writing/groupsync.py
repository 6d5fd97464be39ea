"""Makes data of write-back survive a power loss: in groups, in the background."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

import trio

from ossfs_py.runtime.workers import Workers
from ossfs_py.writing.filerenames import FileRenameRecord
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.markers import MarkerRecord
from ossfs_py.writing.removals import RemovalRecord
from ossfs_py.writing.staging import Staging

log = logging.getLogger(__name__)

_EVERY_SECONDS = 0.5
"""Half of the promised second; the disk may take the other half."""


class GroupSync:
    """Syncs staging files, their records, and small entries (small files, removals, markers) to
    disk within about a second.

    A close that waited for its own fsync would wait 10 ms and more on a disk that others use as
    well, and so would the next one. Files that were uploaded before their turn are skipped. Belongs
    to the trio thread.
    """

    def __init__(self, journal: Journal, local: Workers) -> None:
        self._journal = journal
        self._local = local
        self._waiting: dict[Staging, None] = {}
        self._small: set[str] = set()
        """Ids of small entries that have to survive a power loss."""
        self._some = trio.Event()

    def add(self, staging: Staging) -> None:
        """Sync a recorded file, in its state by then, with the next group."""
        self._waiting[staging] = None
        self._some.set()

    def add_small(self, ident: str) -> None:
        """Sync the journal's entry of an id with the next group, unless :meth:`drop_small` is
        called before.
        """
        self._small.add(ident)
        self._some.set()

    def drop_small(self, ident: str) -> None:
        """The entry is not needed any more."""
        self._small.discard(ident)

    @property
    def is_slow(self) -> bool:
        """Whether a small entry would wait for the disk."""
        return self._journal.is_slow

    async def keep(self, call: Callable[[], None]) -> None:
        """Let the journal store a small entry: at once, or in a thread while the disk is slow.

        Raises:
            Whatever the call raises.
        """
        if self.is_slow:
            await self._local.run_to_end(call)
        else:
            call()

    async def record_removal(self, record: RemovalRecord) -> None:
        """Record a removal in the journal, and sync it with the next group.

        Raises:
            OSError: the journal cannot be written.
        """
        await self.keep(partial(self._journal.record_removal, record, durable=False))
        self.add_small(record.ident)

    def record_removal_nowait(self, record: RemovalRecord) -> None:
        """As :meth:`record_removal`, while the disk is not slow."""
        self._journal.record_removal(record, durable=False)
        self.add_small(record.ident)

    async def record_marker(self, record: MarkerRecord) -> None:
        """As :meth:`record_removal`, for an empty object that is not stored yet; replaces its
        record.
        """
        await self.keep(partial(self._journal.record_marker, record))
        self.add_small(record.ident)

    def record_marker_nowait(self, record: MarkerRecord) -> bool:
        """As :meth:`record_marker`; False: it has to wait for the disk, or fails."""
        if self._journal.is_slow:
            return False
        try:
            self._journal.record_marker(record)
        except OSError:
            return False
        self.add_small(record.ident)
        return True

    async def forget_marker(self, ident: str) -> None:
        """The object is stored, or not needed any more.

        Raises:
            OSError: the journal cannot be written.
        """
        self.drop_small(ident)
        await self.keep(partial(self._journal.forget_marker, ident))

    async def record_file_rename(self, record: FileRenameRecord) -> None:
        """As :meth:`record_removal`, for a stored file that has a new name here."""
        await self.keep(partial(self._journal.record_file_rename, record))
        self.add_small(record.ident)

    async def forget_file_rename(self, ident: str) -> None:
        """The store has it under its new name, or it has its old name again.

        Raises:
            OSError: the journal cannot be written.
        """
        self.drop_small(ident)
        await self.keep(partial(self._journal.forget_file_rename, ident))

    async def run(self) -> None:
        """Work until cancelled; a group in progress is finished."""
        while True:
            await self._some.wait()
            await trio.sleep(_EVERY_SECONDS)
            await self.sync()

    async def sync(self) -> None:
        """Sync waiting entries now. Errors of the disk are logged: the bytes can still be uploaded,
        and the next mount finds them if only the daemon dies.
        """
        group = [one for one in self._waiting if one.recorded and not one.uses.closed]
        self._waiting.clear()
        small, self._small = self._small, set()
        self._some = trio.Event()
        for one in group:
            one.uses.enter()
        try:
            if group or small:
                await self._local.run_to_end(self._sync, group, bool(small))
        except OSError as exc:
            log.error("what write-back took would not survive a power loss now: %s", exc)  # noqa: TRY400
        finally:
            for one in group:
                one.uses.leave()

    def _sync(self, group: Sequence[Staging], small: bool) -> None:
        for one in group:
            # An uploaded file needs no sync.
            if one.recorded:
                one.sync()
        if group:
            self._journal.sync_staging()
        if small:
            self._journal.sync_small()
