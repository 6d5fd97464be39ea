"""The trash: this module alone decides which content a mount keeps before it is lost.

====================================  =========================================================
unlink, a rename over the name        the object is copied before it is deleted or replaced
a commit of other content (O_TRUNC,   the object that it takes the place of is copied before,
truncate, a write in the middle)      once for each time that the file is opened: what the same
                                      programs have stored in between is not kept
a commit that only appends            nothing: all bytes are still there
a change of attributes, a rename      nothing: the bytes are still there
unlink of what write-back has not     nothing: the store never had it
uploaded
rmdir                                 nothing: a directory has no content
other clients, a version of others    nothing: this mount does not see it, or has not asked
that came between copy and commit
====================================  =========================================================

The store makes the copies, and nothing is deleted or overwritten before its copy exists: an object
that the store refuses to copy stays. Closed files are removed in the background (``putoff``), so a
refusal may come after rm has ended. The file then exists again, and from then on each rm waits for
its own copy and gets the store's answer, until a copy succeeds.
"""

import logging
import time

from ossfs_py.errors import ObjectMissingError, OssfsError, StoreUnavailableError
from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.namespace.metadata import decode, format_time
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore
from ossfs_py.writing.kept import KeptCopy, keep_copy, parse_kept, require_room

__all__ = ["KeptCopy", "Trash", "parse_kept", "with_time"]

log = logging.getLogger(__name__)


class Trash:
    """Keeps content that would be lost. Belongs to the trio thread.

    ``prefix`` is the prefix of the copies, with a slash at its end; "": nothing is kept.
    """

    def __init__(self, store: ObjectStore, workers: Workers, prefix: str = "") -> None:
        self.prefix = prefix
        self._store = store
        self._workers = workers
        self._refuses = False

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return bool(self.prefix)

    def require_room(self, key: str) -> None:
        """Raises NameTooLongError if a copy of the key's object would have too long a name."""
        if self.is_on:
            require_room(self.prefix, key)

    async def before_removal(self, key: str) -> bool:
        """A closed file is about to be removed in the background.

        Returns whether its copy already exists, which is the case while the store refuses copies.

        Raises:
            NameTooLongError: the copy would have too long a name.
            StoreError: the store still refuses to copy.
        """
        self.require_room(key)
        if not self._refuses:
            return False
        await self.keep(key)
        return True

    async def keep(
        self, key: str, known: ObjectInfo | None = None, *, spared: ObjectVersion | None = None
    ) -> ObjectInfo | None:
        """Copy a key's object, unless it is ``spared``; this takes one more request if the object
        is not ``known``. Returns the copied object.

        Raises:
            NameTooLongError
            StoreError: there is no copy; the log says so.
        """
        if not self.is_on:
            return None
        info = known
        if info is None:
            info = await self._workers.run(_present, self._store, key)
        if info is None or (spared is not None and info.etag == spared.etag):
            return None
        return await self.keep_object(self.prefix, info, time.time_ns())

    async def keep_object(
        self, prefix: str, info: ObjectInfo, removed_ns: int
    ) -> ObjectInfo | None:
        """Copy an object below the prefix that was the trash's when it was removed.

        Returns what was copied; None if the object is gone.

        Raises:
            As :meth:`keep`.
        """
        try:
            copied = await self._workers.run(keep_copy, self._store, prefix, info, removed_ns)
        except StoreUnavailableError:
            raise
        except OssfsError as exc:
            self._refuses = True
            log.error(  # noqa: TRY400
                "%r is not deleted nor overwritten, as no copy of it can be kept: %s", info.key, exc
            )
            raise
        self._refuses = False
        return copied


def _present(store: ObjectStore, key: str) -> ObjectInfo | None:
    """The present object of a key; blocks.

    Raises:
        StoreError
    """
    try:
        return store.head(key)
    except ObjectMissingError:
        return None


def with_time(info: ObjectInfo, mtime_ns: int) -> dict[str, str]:
    """The metadata of a kept copy that is brought back. A copy has its own date, and a file without
    a date in its metadata was as old as its object.
    """
    stored = dict(info.metadata or {})
    if decode(stored).mtime_ns is None:
        stored["mtime"] = format_time(mtime_ns)
    return stored
