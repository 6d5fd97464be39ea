"""What write-back has taken outlasts a power loss: in groups, behind those who closed files."""

import logging
from collections.abc import Sequence
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
    """Brings staging files, their records, removals and markers to the disk within about a second.

    A close that waited for its own fsync would wait 10 ms and more on a disk that others use as
    well, and so would the next one. Files that were uploaded before their turn are left alone.
    Belongs to the trio thread.
    """

    def __init__(self, journal: Journal, local: Workers) -> None:
        self._journal = journal
        self._local = local
        self._waiting: dict[Staging, None] = {}
        self._removals: list[RemovalRecord] = []
        self._markers: dict[str, None] = {}
        self._some = trio.Event()

    def add(self, staging: Staging) -> None:
        """Let a recorded file, as it is by then, be brought to the disk with the next group."""
        self._waiting[staging] = None
        self._some.set()

    async def record_removal(self, record: RemovalRecord) -> None:
        """Let the journal know of a removal, and the disk with the next group.

        Raises:
            OSError: the journal cannot be written.
        """
        await self._local.run(partial(self._journal.record_removal, record, durable=False))
        self._removals.append(record)
        self._some.set()

    async def record_marker(self, record: MarkerRecord) -> None:
        """As :meth:`record_removal`, of an empty object that is owed, in place of what was known
        of it.
        """
        await self._local.run(self._journal.record_marker, record)
        self._markers[record.ident] = None
        self._some.set()

    async def forget_marker(self, ident: str) -> None:
        """The store has it, or nobody wants it any more.

        Raises:
            OSError: the journal cannot be written.
        """
        await self._local.run(self._journal.forget_marker, ident)

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
        removals, self._removals = self._removals, []
        markers, self._markers = self._markers, {}
        self._some = trio.Event()
        for one in group:
            one.uses.enter()
        try:
            if group or removals or markers:
                await self._local.run_to_end(self._sync, group, removals, list(markers))
        except OSError as exc:
            log.error("what write-back took would not survive a power loss now: %s", exc)  # noqa: TRY400
        finally:
            for one in group:
                one.uses.leave()

    def _sync(
        self,
        group: Sequence[Staging],
        removals: Sequence[RemovalRecord],
        markers: Sequence[str],
    ) -> None:
        for one in group:
            # Uploaded meanwhile, it needs no disk any more.
            if one.recorded:
                one.sync()
        if group:
            self._journal.sync_staging()
        if removals:
            self._journal.sync_removals(removals)
        if markers:
            self._journal.sync_markers(markers)
