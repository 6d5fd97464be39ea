"""Files that lose their key while they are open: hidden copies to read from.

An open object that is removed, or renamed over, is first copied on the server under a hidden key.
The copy is deleted with its last user, or by the next mount if this one cannot delete it.
"""

import logging
import uuid
from contextlib import suppress
from typing import Protocol

from ossfs_py.errors import ObjectMissingError, OssfsError, StoreError, VersionChangedError
from ossfs_py.filesystem.openinode import HiddenCopy, OpenInode
from ossfs_py.filesystem.openinodes import OpenInodes
from ossfs_py.model import ObjectVersion
from ossfs_py.namespace.inode import Inode
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore
from ossfs_py.writing.journal import Journal

log = logging.getLogger(__name__)


class LockedCommitter(Protocol):
    """The method of :class:`ossfs_py.filesystem.commits.Commits` that preserving needs."""

    async def commit_locked(self, opened: OpenInode) -> None:
        """Store the dirty bytes; the caller holds the place and the lock."""
        ...


class PreservedFiles:
    """The hidden copies of a mount. Belongs to the trio thread.

    ``scratch_prefix`` is the prefix of the copies, hidden from listings.
    """

    def __init__(
        self,
        opened: OpenInodes,
        committer: LockedCommitter,
        store: ObjectStore,
        workers: Workers,
        journal: Journal,
        scratch_prefix: str,
    ) -> None:
        self._opened = opened
        self._committer = committer
        self._store = store
        self._workers = workers
        self._journal = journal
        self._scratch_prefix = scratch_prefix

    async def preserve(self, inode: Inode) -> None:
        """Copy an open object before its key goes away, so that its readers can continue."""
        opened = self._opened.current(inode)
        if opened is None:
            return
        if opened.file.lost:
            # Bytes that are kept nowhere here can be read and changed again only as the finished
            # object.
            try:
                await self._committer.commit_locked(opened)
            except (OssfsError, OSError) as exc:
                log.warning("bytes of the removed %r are gone: %s", inode.name, exc)
        version, hidden = opened.file.version, opened.hidden
        if version is None or not version.size:
            return
        if hidden is not None and version == hidden.version:
            return
        await self.copy(opened)

    async def copy(self, opened: OpenInode) -> None:
        """Let the readers of an open file continue from a hidden copy of its object.

        Raises:
            StoreError: there is no copy; they continue to read the object.
        """
        version = opened.file.version
        if version is None:
            return
        key = f"{self._scratch_prefix}{uuid.uuid4().hex}"
        try:
            copy = await self._workers.run(self._copy_noted, version, key)
        except (VersionChangedError, ObjectMissingError):
            return  # replaced or deleted by another client: there is nothing left to preserve
        if opened not in self._opened:
            await self._delete(copy)  # its last reader has gone in the meantime
            return
        earlier, opened.hidden = opened.hidden, HiddenCopy(copy, version)
        await opened.file.preserve(copy)
        opened.note()  # before the source is deleted
        if earlier is not None:
            await self._delete(earlier.version)

    async def drop(self, opened: OpenInode) -> None:
        """Drop the hidden copy that a file reads from, if it has one."""
        if opened.hidden is not None:
            await self._delete(opened.hidden.version)

    def _copy_noted(self, version: ObjectVersion, key: str) -> ObjectVersion:
        """A hidden copy that the next mount deletes if this one cannot. On a worker thread."""
        self._journal.record_scratch(key)
        try:
            return self._store.copy(version, key)
        except (VersionChangedError, ObjectMissingError):
            self._journal.forget_scratch(key)
            raise
        except StoreError:
            # The copy may exist all the same, with nobody to read or delete it.
            with suppress(StoreError):
                self._delete_noted(key)
            raise

    async def _delete(self, copy: ObjectVersion) -> None:
        try:
            await self._workers.run(self._delete_noted, copy.key)
        except (StoreError, OSError) as exc:
            log.warning("a hidden copy is left to the next mount: %s", exc)

    def _delete_noted(self, key: str) -> None:
        self._store.delete(key)
        self._journal.forget_scratch(key)
