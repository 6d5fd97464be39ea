"""How long the mount remembers which answers of the store, and how many."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import trio
from cachetools import LRUCache

from ossfs_py.model import ObjectInfo
from ossfs_py.runtime.recent import Recent

_NS_PER_SECOND = 1_000_000_000

# A program that creates an entry looks its name up first; the creation need not ask again. One
# second covers that pair of calls and no conversation between hosts.
CREATION_SECONDS = 1.0
_MAX_WARNED = 1024
_MAX_TOLD = 1024
"""The directories that the kernel knows and that are remembered, and the absent names in each."""
_MAX_CHANGES = 16_384


Remembered: TypeAlias = tuple[str, str, int, Mapping[str, str]]
"""Key, ETag and whole seconds of the last change, and the metadata of that version."""


class Absences:
    """Names that were requested and do not exist, and those of them that the kernel knows to be
    absent."""

    def __init__(self, max_entries: int, ttl_seconds: float) -> None:
        self._ttl_seconds = max(ttl_seconds, CREATION_SECONDS)
        self._asked_at: Recent[str, float] = Recent(max_entries)
        """When each was asked for; those that nobody may believe any more go with the next."""
        self._told: Recent[int, dict[str, None]] = Recent(_MAX_TOLD)

    def add(self, key: str, asked_at: float) -> None:
        """Asked at that time, the store had neither the key nor anything below it."""
        oldest = trio.current_time() - self._ttl_seconds
        while self._asked_at and next(iter(self._asked_at.values())) <= oldest:
            self._asked_at.popitem(last=False)
        self._asked_at.put(key, asked_at)

    def discard(self, key: str) -> None:
        """The name exists now."""
        self._asked_at.pop(key, None)

    def discard_below(self, prefix: str) -> None:
        """Something else has the name of the directory now."""
        for key in [key for key in self._asked_at if key.startswith(prefix)]:
            self._asked_at.pop(key, None)

    def clear(self) -> list[tuple[int, str]]:
        """Ask about every name again; returns the directories and names that the kernel knows."""
        self._asked_at.clear()
        told = [(number, name) for number, names in self._told.items() for name in names]
        self._told.clear()
        return told

    def since(self, key: str) -> float | None:
        """When the name was last found absent, if that is remembered."""
        asked_at = self._asked_at.get(key)
        if asked_at is None or asked_at <= trio.current_time() - self._ttl_seconds:
            return None
        return asked_at

    def tell(self, directory: int, name: str) -> None:
        """The kernel is told that the name is absent.

        Of too many the oldest are forgotten; what the kernel was told of them ends by itself.
        """
        names = self._told.get(directory)
        if names is None:
            names = {}
        self._told.put(directory, names)
        if len(names) >= _MAX_TOLD:
            del names[next(iter(names))]
        names[name] = None

    def untell(self, directory: int, name: str) -> bool:
        """The kernel asks again, or is to; whether it was told that the name is absent."""
        names = self._told.get(directory) if self._told else None
        if names is None or name not in names:
            return False
        del names[name]
        return True

    def told_in(self, directory: int) -> list[str]:
        """The absent names of a directory that the kernel knows."""
        return list(self._told.get(directory, ()))


class MetadataMemory:
    """User metadata by object version: asked once, however often the object is listed."""

    def __init__(self, max_entries: int) -> None:
        self._by_version: LRUCache[tuple[str, str, int], Mapping[str, str]] = LRUCache(max_entries)
        self._new: dict[tuple[str, str, int], Mapping[str, str]] | None = None

    def __len__(self) -> int:
        return len(self._by_version)

    def remember(self, info: ObjectInfo) -> None:
        """Keep the metadata of a HEAD answer."""
        if info.metadata is not None:
            version = self._version(info)
            if self._new is not None and version not in self._by_version:
                self._new[version] = info.metadata
            self._by_version[version] = info.metadata

    def forget(self, info: ObjectInfo) -> None:
        """This mount has stored the object anew: its ETag may stay, and so may the second."""
        version = self._version(info)
        self._by_version.pop(version, None)
        if self._new is not None:
            self._new.pop(version, None)

    def recall(self, answers: Iterable[Remembered]) -> None:
        """Take in answers kept on disk, and note new ones for it from now on."""
        if self._new is None:
            self._new = dict(self._by_version)
        for key, etag, seconds, metadata in answers:
            self._by_version.setdefault((key, etag, seconds), metadata)

    def take_new(self) -> list[Remembered]:
        """The answers since the last call."""
        if not self._new:
            return []
        new, self._new = self._new, {}
        return [(*version, metadata) for version, metadata in new.items()]

    def complete(self, info: ObjectInfo) -> ObjectInfo:
        """``info`` with its metadata, where that is remembered."""
        if info.metadata is not None or not self._by_version:
            return info
        metadata = self._by_version.get(self._version(info))
        return info if metadata is None else info._replace(metadata=metadata)

    @staticmethod
    def _version(info: ObjectInfo) -> tuple[str, str, int]:
        # HEAD tells whole seconds where LIST tells milliseconds. The time is part of the version
        # because the same bytes with other metadata keep their ETag on most stores.
        return info.key, info.etag, info.mtime_ns // _NS_PER_SECOND


class LocalChanges:
    """Which keys this mount changed lately, so that older answers about them are not believed."""

    def __init__(self) -> None:
        self.serial = 0
        self._by_key: Recent[str, int] = Recent(_MAX_CHANGES)

    def add(self, key: str) -> None:
        """The key changed just now."""
        self.serial += 1
        self._by_key.put(key, self.serial)

    def since(self, key: str, serial: int) -> bool:
        """Whether the key changed after the serial was read."""
        return self._by_key.get(key, 0) > serial


class Once:
    """Says yes the first time it is asked about a key."""

    def __init__(self) -> None:
        self._seen: LRUCache[str, None] = LRUCache(_MAX_WARNED)

    def first(self, key: str) -> bool:
        """Whether the key was not asked about before."""
        if key in self._seen:
            return False
        self._seen[key] = None
        return True
