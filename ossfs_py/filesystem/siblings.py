"""Fetching, or looking up, files that will probably be opened soon, as a file beside them was
opened.

A loader that reads a training set opens file after file, and each open costs the time to the first
byte. When files of one directory are opened in listing order, or many of them in a short time, the
next ones are fetched while the program works on those it has.

The benefit is measured: a file that was not opened within ``KEPT_SECONDS`` after its fetch was
fetched in vain. A directory where that happens to half of the files is left alone for a while.
"""

from collections import deque
from typing import Protocol

import trio
from cachetools import LRUCache

from ossfs_py.datapath.base import DataPath
from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.foresight.formats import next_shard
from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.namespace import Namespace
from ossfs_py.telemetry.metrics import Metrics

SMALL_BYTES = 1024**2
"""A larger file occupies a connection for longer than the wait for its first byte."""

KEPT_SECONDS = 10.0
"""How long a fetched file waits to be opened before it counts as fetched in vain."""

_FIRST_WINDOW = 8
_MAX_WINDOW = 64
"""Files fetched ahead: two for each of the 32 connections, so that none is idle."""
_NEAR = 4
"""Opens in listing order may skip a few: labels beside images, or two programs at once."""
_ORDERED_OPENS = 2
_MANY = 8
_MANY_SECONDS = 2.0
"""So many opens in so short a time are a loader, in any order."""
_WHOLE_DIRECTORY = 1024
"""A loader soon opens every file of a directory of up to this size, so no evidence is needed."""
_MIN_JUDGED = 16
"""Files fetched in vain before a directory is judged."""
_PAUSE_SECONDS = 60.0
_MAX_DIRECTORIES = 64
_MAX_SKIPPED = 256
"""Siblings examined for one open: those already in the page cache are skipped."""
_LEAST_SKIPPED = 8
"""The same after many in a row that the kernel knows: each open of who reads a directory once more
took 0.2 ms of CPU."""
_BUDGET_SHARE = 4
"""One part in this many of the memory budget may hold files that are not open yet."""


class OpenWatcher(Protocol):
    """Acts ahead when files are opened. Belongs to the trio thread and never waits."""

    def opened(self, inode: Inode, version: ObjectVersion | None) -> None:
        """A file was opened for reading, in that version."""
        ...


class ShardLookup:
    """Looks up a model's next shard when one is opened, so that its open need not wait."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def opened(self, inode: Inode, version: ObjectVersion | None) -> None:
        """A file was opened for reading, in that version."""
        following = next_shard(inode.name)
        if version is not None and inode.parent is not None and following is not None:
            self._namespace.lookup_ahead(inode.parent, following)


class _Folder:
    """Recorded opens in one directory."""

    __slots__ = (
        "cursor",
        "fetched",
        "hits",
        "in_order",
        "last_place",
        "left",
        "looks",
        "paused_until",
        "recent",
        "wasted",
        "window",
    )

    def __init__(self) -> None:
        self.cursor = 0
        """Place of the next sibling to fetch."""
        self.left = 0
        """Siblings that a sweep in no order may still fetch."""
        self.fetched: dict[str, tuple[float, int]] = {}
        """Time and size of siblings that were fetched and not opened yet; oldest first."""
        self.hits = 0
        self.wasted = 0
        self.in_order = 0
        self.looks = _MAX_SKIPPED
        """Siblings to examine for the next open."""
        self.last_place = -_NEAR - 1
        self.recent: deque[float] = deque(maxlen=_MANY)
        self.window = _FIRST_WINDOW
        self.paused_until = 0.0


class SiblingPrefetch:
    """Fetches small files. Belongs to the trio thread; nothing here waits."""

    def __init__(
        self,
        namespace: Namespace,
        kernel: KernelCache,
        data_path: DataPath,
        metrics: Metrics,
        memory_limit_bytes: int,
    ) -> None:
        self._namespace = namespace
        self._kernel = kernel
        self._data_path = data_path
        self._budget = memory_limit_bytes // _BUDGET_SHARE
        self._held = 0
        self._folders: LRUCache[int, _Folder] = LRUCache(_MAX_DIRECTORIES)
        self._hits = metrics.small_file_prefetch.labels("used")
        self._wasted = metrics.small_file_prefetch.labels("wasted")

    def opened(self, inode: Inode, version: ObjectVersion | None) -> None:
        """A file was opened for reading, in that version."""
        directory = inode.parent
        if directory is None or version is None or not 0 < version.size <= SMALL_BYTES:
            return
        folder = self._folders.get(directory.number)
        if folder is None:
            folder = self._folders[directory.number] = _Folder()
        now = trio.current_time()
        self._account(folder, inode.name, now)
        if now < folder.paused_until:
            return
        listed = self._namespace.listed(directory)
        place = None if listed is None else listed.places.get(inode.name)
        if listed is None or place is None:
            return
        folder.in_order = folder.in_order + 1 if 0 < place - folder.last_place <= _NEAR else 0
        folder.last_place = place
        folder.recent.append(now)
        if folder.in_order >= _ORDERED_OPENS:
            if not place < folder.cursor <= place + 2 * _MAX_WINDOW:
                folder.cursor = place + 1
            folder.left = len(listed.names) - folder.cursor
        elif len(folder.recent) < _MANY or now - folder.recent[0] > _MANY_SECONDS:
            folder.left = 0
            return
        elif not folder.left and not folder.fetched:
            folder.left = len(listed.names)
            if len(listed.names) <= _WHOLE_DIRECTORY:
                folder.window = _MAX_WINDOW
        self._fetch(directory, folder, listed.names, listed.entries, now)

    def _account(self, folder: _Folder, name: str, now: float) -> None:
        found = folder.fetched.pop(name, None)
        if found is not None:
            self._held -= found[1]
            folder.hits += 1
            folder.window = min(folder.window * 2, _MAX_WINDOW)
            self._hits.inc()
        while folder.fetched:
            oldest, (since, size) = next(iter(folder.fetched.items()))
            if now - since < KEPT_SECONDS:
                break
            del folder.fetched[oldest]
            self._held -= size
            folder.wasted += 1
            self._wasted.inc()
        if folder.wasted >= _MIN_JUDGED and folder.wasted > folder.hits:
            folder.paused_until = now + _PAUSE_SECONDS
            folder.hits = folder.wasted = 0
            folder.window = _FIRST_WINDOW

    def _fetch(
        self,
        directory: Inode,
        folder: _Folder,
        names: list[str],
        entries: dict[str, ObjectInfo],
        now: float,
    ) -> None:
        for _ in range(folder.looks):
            if len(folder.fetched) >= folder.window or not folder.left:
                return
            if folder.cursor >= len(names):
                folder.cursor = 0
            name = names[folder.cursor]
            info = entries.get(name)
            if (
                info is not None
                and 0 < info.size <= SMALL_BYTES
                and name not in folder.fetched
                and not self._is_known(directory, name, info.etag)
            ):
                if self._held + info.size > self._budget:
                    return
                size = self._data_path.prefetch(info.version)
                if size is None:
                    return  # no memory left
                if size:
                    folder.fetched[name] = (now, size)
                    self._held += size
                    folder.looks = _MAX_SKIPPED
            folder.cursor += 1
            folder.left -= 1
        folder.looks = max(folder.looks // 2, _LEAST_SKIPPED)

    def _is_known(self, directory: Inode, name: str, etag: str) -> bool:
        """Whether the kernel has, or had, pages of the file, so that it will not read them soon."""
        child = directory.children.get(name)
        return child is not None and self._kernel.has_pages(child, etag)
