"""Copying and deleting everything below a prefix: the two halves of the rename of a directory."""

import logging
from collections.abc import Callable
from typing import TypeAlias

from ossfs_py.errors import StoreError
from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.namespace.pending import map_bounded
from ossfs_py.namespace.removed import Catalogue
from ossfs_py.namespace.removing import remove_all
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore
from ossfs_py.store.markers import markers_above
from ossfs_py.store.trees import copy_object, from_the_bottom, from_the_top, pages_below

log = logging.getLogger(__name__)

_PROGRESS_KEYS = 1000

Copies: TypeAlias = dict[str, tuple[ObjectVersion, ObjectVersion]]
"""By key: what was copied, and the copy."""


class TreeCopier:
    """Copies and deletes trees, many objects at a time."""

    def __init__(
        self, store: ObjectStore, present: Catalogue, workers: Workers, *, asks: bool
    ) -> None:
        """``present``: what the store has, but for what was removed here.

        ``asks``: facts that a LIST lacks (encryption, a redirect) are requested for each object.
        Otherwise the store's defaults for copies apply.
        """
        self._store = store
        self._present = present
        self._workers = workers
        self._asks = asks
        # A quarter of the threads stays free for readers: a copy may take a minute.
        self._parallel = max(1, workers.count - workers.count // 4)

    async def everything_below(self, prefix: str) -> list[ObjectInfo]:
        """All objects below a prefix.

        Raises:
            StoreError
        """
        objects: list[ObjectInfo] = []
        pages = pages_below(self._present.list_page, prefix)
        while (page := await self._workers.run(next, pages, None)) is not None:
            objects += page
        return objects

    async def copy_all(self, objects: list[ObjectInfo], old_prefix: str, new_prefix: str) -> Copies:
        """Copy every object, or none; by key, what was copied and the copy.

        A failure takes back the copies already made: the half-filled target would stand in the
        way of the next try.
        """
        made: list[str] = []  # list.append is atomic; the copies run on several threads

        def copy(info: ObjectInfo) -> tuple[ObjectVersion, ObjectVersion] | None:
            key = new_prefix + info.key[len(old_prefix) :]
            copied = copy_object(self._store, info, key, asks=self._asks)
            if copied is not None:
                made.append(key)
            return copied

        progress = self._progress("copied", old_prefix, len(objects))
        copies: Copies = {}
        try:
            for level in from_the_top(objects):
                done = await map_bounded(
                    self._workers, copy, level, limit=self._parallel, progress=progress
                )
                copies |= {
                    info.key: copied
                    for info, copied in zip(level, done, strict=True)
                    if copied is not None
                }
        except StoreError:
            log.warning("renaming %r failed; taking back %d copies", old_prefix, len(made))
            try:
                await remove_all(self._store, self._workers, made, limit=self._parallel)
            except StoreError as exc:
                log.warning("copies below %r are left behind: %s", new_prefix, exc)
            raise
        return copies

    async def delete_all(self, keys: list[str], prefix: str) -> None:
        """Delete files first, then markers from the deepest up, also where none is known.

        SeaweedFS goes on listing an empty directory until a marker of it is deleted.
        """
        gone = {*keys, *markers_above(keys, prefix)}
        progress = self._progress("deleted", prefix, len(gone))
        for level in from_the_bottom(gone):
            await remove_all(
                self._store, self._workers, level, limit=self._parallel, progress=progress
            )

    @staticmethod
    def _progress(done: str, prefix: str, total: int) -> Callable[[int], None] | None:
        if total <= _PROGRESS_KEYS:
            return None

        def report(count: int) -> None:
            if count % _PROGRESS_KEYS == 0 or count == total:
                log.info("renaming %r: %s %d of %d objects", prefix, done, count, total)

        return report
