"""Copying and deleting everything below a prefix: the two halves of the rename of a directory."""

import logging
import sys
from collections.abc import Callable
from typing import TypeAlias

from ossfs_py.errors import (
    ObjectMissingError,
    StoreError,
    StoreUnavailableError,
    VersionChangedError,
)
from ossfs_py.model import CommitRequest, ListQuery, ObjectInfo, ObjectVersion
from ossfs_py.namespace.pending import map_bounded
from ossfs_py.namespace.removed import Catalogue
from ossfs_py.namespace.removing import remove_all
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore
from ossfs_py.store.markers import markers_above

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
        token: str | None = None
        used: set[str | None] = set()
        while token not in used:
            used.add(token)
            query = ListQuery(prefix, delimiter="", token=token)
            page = await self._workers.run(self._present.list_page, query)
            objects += page.objects
            if page.next_token is None:
                return objects
            token = page.next_token
        raise StoreUnavailableError(
            "the listing goes in circles", operation="ListObjectsV2", key=prefix
        )

    async def copy_all(self, objects: list[ObjectInfo], old_prefix: str, new_prefix: str) -> Copies:
        """Copy every object, or none; by key, what was copied and the copy.

        A failure takes back the copies already made: the half-filled target would stand in the
        way of the next try.
        """
        made: list[str] = []  # list.append is atomic; the copies run on several threads

        def copy(info: ObjectInfo) -> tuple[ObjectVersion, ObjectVersion] | None:
            key = new_prefix + info.key[len(old_prefix) :]
            source = info.version
            try:
                try:
                    if key.endswith("/") and info.size == 0:
                        # SeaweedFS answers a copy of a marker with success and makes nothing.
                        marker = self._store.head(info.key)
                        said = CommitRequest(
                            key, marker.metadata or {}, marker.content_type, like=marker
                        )
                        version = self._store.put(said, b"")
                    else:
                        if self._asks:
                            info = self._store.head(info.key)
                        version = self._store.copy(source, key, like=info)
                except VersionChangedError:
                    info = self._store.head(info.key)
                    source = info.version
                    version = self._store.copy(source, key, like=info)
            except ObjectMissingError:
                return None  # deleted by another client meanwhile
            made.append(key)
            return source, version

        progress = self._progress("copied", old_prefix, len(objects))
        copies: Copies = {}
        try:
            for level in _from_the_top(objects):
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

        SeaweedFS keeps a marker, silently, whose directory still has children, and it goes on
        listing an empty directory until a marker of it is deleted.
        """
        gone = {*keys, *markers_above(keys, prefix)}
        progress = self._progress("deleted", prefix, len(gone))
        levels: dict[int, list[str]] = {}
        for key in gone:
            levels.setdefault(key.count("/") if key.endswith("/") else sys.maxsize, []).append(key)
        for level in sorted(levels, reverse=True):
            await remove_all(
                self._store, self._workers, levels[level], limit=self._parallel, progress=progress
            )

    @staticmethod
    def _progress(done: str, prefix: str, total: int) -> Callable[[int], None] | None:
        if total <= _PROGRESS_KEYS:
            return None

        def report(count: int) -> None:
            if count % _PROGRESS_KEYS == 0 or count == total:
                log.info("renaming %r: %s %d of %d objects", prefix, done, count, total)

        return report


def _from_the_top(objects: list[ObjectInfo]) -> list[list[ObjectInfo]]:
    """Markers, those of one depth together, then files: SeaweedFS loses a marker, at times, that
    comes while it makes the directory by itself for something in it.
    """
    levels: dict[int, list[ObjectInfo]] = {}
    for info in objects:
        depth = info.key.count("/") if info.key.endswith("/") else sys.maxsize
        levels.setdefault(depth, []).append(info)
    return [levels[depth] for depth in sorted(levels)]
