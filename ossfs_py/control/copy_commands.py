"""Copies that the store makes by itself: no byte of them crosses the network.

The mount that gets the copies requests them. The sources may be below another prefix of the same
bucket, which another mount shows. Copies that exist already are skipped, so an interrupted command
continues when it is run again. Memory is bounded by two pages of a listing, however large the tree
is.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from ossfs_py.control.server import Arguments, Command, ControlError, Progress
from ossfs_py.control.targets import look_again, require_saved
from ossfs_py.errors import (
    IntegrityError,
    NameTooLongError,
    ObjectMissingError,
    StoreError,
    VersionChangedError,
)
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.model import CommitRequest, ListQuery, ObjectInfo
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore
from ossfs_py.store.keyorder import is_behind

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class CopyPlace:
    """The place of a mount's objects: two mounts of one place can copy from one another."""

    store: str
    bucket: str
    prefix: str
    reserved: str
    """The prefix of the mount's own keys."""
    is_past: bool


@dataclass
class _Outcome:
    files: int = 0
    size_bytes: int = 0
    there_already: int = 0

    def told(self) -> dict[str, int]:
        return {"files": self.files, "bytes": self.size_bytes, "there_already": self.there_already}


class CopyCommands:
    """The commands of one mount. Belongs to the trio thread."""

    def __init__(
        self, filesystem: Filesystem, store: ObjectStore, network: Workers, place: CopyPlace
    ) -> None:
        self._filesystem = filesystem
        self._store = store
        self._network = network
        self._place = place

    def table(self) -> dict[str, Command]:
        """Every command by its name."""
        return {"place": self._tell_place, "copy": self._copy}

    async def _tell_place(self, _arguments: Arguments, _progress: Progress) -> Mapping[str, Any]:
        place = self._place
        return {
            "store": place.store,
            "bucket": place.bucket,
            "prefix": place.prefix,
            "reserved": place.reserved,
            "is_past": place.is_past,
        }

    async def _copy(self, arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        """Copy ``source``, a key of this bucket, to ``path``; with ``recursive`` what is below."""
        source, path = arguments.text("source"), arguments.text("path").strip("/")
        reserved = arguments.text("reserved")
        if ".." in path.split("/") or not path:
            raise ControlError(f"{path!r} is not a path below the mountpoint")
        self._filesystem.protection.require_writable()
        target = self._place.prefix + path
        outcome, failed = _Outcome(), dict[str, str]()
        if arguments.flag("recursive"):
            source, target = source.rstrip("/") + "/" if source else "", target + "/"
            if target.startswith(source):
                raise ControlError("a directory cannot be copied into itself")
            pages = self._pages(source, target, reserved)
        else:
            if source == target:
                raise ControlError("a file cannot be copied onto itself")
            await require_saved(self._filesystem, path)
            pages = self._one(source, target)
        try:
            async for objects, there in pages:
                await self._copy_page(objects, there, (source, target), outcome, failed)
                await progress(outcome.told())
        finally:
            with trio.CancelScope(shield=True):
                await look_again(self._filesystem, path)
        return {**outcome.told(), "failed": failed}

    # -- what there is ----------------------------------------------------------------------------

    async def _one(
        self, source: str, target: str
    ) -> AsyncIterator[tuple[list[ObjectInfo], dict[str, ObjectInfo]]]:
        try:
            info = await self._network.run(self._store.head, source)
        except ObjectMissingError as exc:
            raise ControlError(f"there is no such file in the bucket: {source}") from exc
        try:
            there = {target: await self._network.run(self._store.head, target)}
        except ObjectMissingError:
            there = {}
        yield [info], there

    async def _pages(
        self, source: str, target: str, reserved: str
    ) -> AsyncIterator[tuple[list[ObjectInfo], dict[str, ObjectInfo]]]:
        """The objects of a tree, and what is at the target under the same names already."""
        token: str | None = None
        after = target  # the keys of both trees have one order
        while True:
            query = ListQuery(source, delimiter="", token=token)
            page = await self._network.run(self._store.list_page, query)
            objects = [info for info in page.objects if not info.key.startswith(reserved)]
            there: dict[str, ObjectInfo] = {}
            if objects:
                last = target + objects[-1].key[len(source) :]
                there = await self._between(target, after, last)
                after = last
                yield objects, there
            if page.next_token is None or page.next_token == token:
                return
            token = page.next_token

    async def _between(self, prefix: str, after: str, last: str) -> dict[str, ObjectInfo]:
        """Objects below a prefix from behind ``after`` up to ``last``, and perhaps some more;
        the marker itself too.
        """
        found: dict[str, ObjectInfo] = {}
        query = ListQuery(prefix, delimiter="", start_after=None if after == prefix else after)
        while True:
            page = await self._network.run(self._store.list_page, query)
            found |= {info.key: info for info in page.objects}
            reached = page.objects[-1].key if page.objects else ""
            if page.next_token is None or reached == last or is_behind(reached, last):
                return found
            query = ListQuery(prefix, delimiter="", token=page.next_token)

    # -- copying ----------------------------------------------------------------------------------

    async def _copy_page(
        self,
        objects: list[ObjectInfo],
        there: Mapping[str, ObjectInfo],
        places: tuple[str, str],
        outcome: _Outcome,
        failed: dict[str, str],
    ) -> None:
        source, target = places
        limit = trio.CapacityLimiter(_AT_ONCE)

        async def copy(info: ObjectInfo) -> None:
            key = target + info.key[len(source) :]
            present = there.get(key)
            if present is not None and _is_copy(info, present):
                outcome.there_already += 1
                return
            if present is not None and self._filesystem.protection.forbids("overwrite"):
                failed[key] = "it exists, and the mount is protected (--protect overwrite)"
                return
            async with limit:
                try:
                    if present is not None and not key.endswith("/"):
                        await self._filesystem.trash.keep(key, present)
                    await self._network.run(self._copy_one, info, key)
                except (NameTooLongError, StoreError) as exc:
                    failed[key] = str(exc)
                    return
            outcome.files += 1
            outcome.size_bytes += info.size

        async with trio.open_nursery() as nursery:
            for info in objects:
                nursery.start_soon(copy, info)

    def _copy_one(self, info: ObjectInfo, key: str) -> None:
        """Blocking; on a worker thread."""
        if key.endswith("/") and info.size == 0:
            # SeaweedFS answers a copy of a marker with success and makes nothing.
            marker = self._store.head(info.key)
            said = CommitRequest(key, marker.metadata or {}, marker.content_type, like=marker)
            self._store.put(said, b"")
            return
        try:
            made = self._store.copy(info.version, key, like=info)
        except VersionChangedError:
            info = self._store.head(info.key)
            made = self._store.copy(info.version, key, like=info)
        # Of multipart and encrypted objects copies have ETags of their own.
        if made.etag != info.etag and self._store.head(key).size != info.size:
            raise IntegrityError("the copy has another size", operation="CopyObject", key=key)


def _is_copy(source: ObjectInfo, present: ObjectInfo) -> bool:
    """Whether the existing object is already the requested copy.

    An equal ETag proves it. Copies in parts have another ETag; then a younger object of the same
    size counts.
    """
    if source.size != present.size:
        return False
    if "-" in source.etag or "-" in present.etag:
        return present.mtime_ns >= source.mtime_ns
    return source.etag == present.etag
