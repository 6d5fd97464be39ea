"""What write-back has taken outlasts a power loss: in groups, behind those who closed files."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

import trio

from ossfs_py.runtime.workers import Workers
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.markers import MarkerRecord
from ossfs_py.writing.removals import RemovalRecord
from ossfs_py.writing.staging import Staging

log = logging.getLogger(__name__)

_EVERY_SECONDS = 0.5
"""Half of the second that is promised; the disk may take the other half."""


class GroupSync:
    """Brings staging files, their records, and small things (small files, removals, markers) to the
    disk within about a second.

    A close that waited for its own fsync would wait 10 ms and more on a disk that others use as
    well, and so would the next one. Files that were uploaded before their turn are left alone.
    Belongs to the trio thread.
    """

    def __init__(self, journal: Journal, local: Workers) -> None:
        self._journal = journal
        self._local = local
        self._waiting: dict[Staging, None] = {}
        self._small: set[str] = set()
        """Ids of small things that are to outlast a power loss."""
        self._some = trio.Event()

    def add(self, staging: Staging) -> None:
        """Let a recorded file, as it is by then, be brought to the disk with the next group."""
        self._waiting[staging] = None
        self._some.set()

    def add_small(self, ident: str) -> None:
        """Let what the journal keeps under an id be brought to the disk with the next group, unless
        :meth:`drop_small` is called before.
        """
        self._small.add(ident)
        self._some.set()

    def drop_small(self, ident: str) -> None:
        """Nobody needs it any more."""
        self._small.discard(ident)

    async def keep(self, call: Callable[[], None]) -> None:
        """Let the journal keep something small: at once, or in a thread while the disk is slow.

        Raises:
            Whatever the call raises.
        """
        if self._journal.is_slow:
            await self._local.run_to_end(call)
        else:
            call()

    async def record_removal(self, record: RemovalRecord) -> None:
        """Let the journal know of a removal, and the disk with the next group.

        Raises:
            OSError: the journal cannot be written.
        """
        await self.keep(partial(self._journal.record_removal, record, durable=False))
        self.add_small(record.ident)

    async def record_marker(self, record: MarkerRecord) -> None:
        """As :meth:`record_removal`, of an empty object that is owed, in place of what was known
        of it.
        """
        await self.keep(partial(self._journal.record_marker, record))
        self.add_small(record.ident)

    async def forget_marker(self, ident: str) -> None:
        """The store has it, or nobody wants it any more.

        Raises:
            OSError: the journal cannot be written.
        """
        self.drop_small(ident)
        await self.keep(partial(self._journal.forget_marker, ident))

    async def run(self) -> None:
        """Work until cancelled; a group under way is brought to its end."""
        while True:
            await self._some.wait()
            await trio.sleep(_EVERY_SECONDS)
            await self.sync()

    async def sync(self) -> None:
        """Bring what waits to the disk now. What the disk refuses is told in the log: the bytes
        are still there for their upload, and for the next mount if only the daemon dies.
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
            # Uploaded meanwhile, it needs no disk any more.
            if one.recorded:
                one.sync()
        if group:
            self._journal.sync_staging()
        if small:
            self._journal.sync_small()
