"""Calls about versions: list them, restore one, undelete objects.

None of these calls loses anything: a restored version is copied over the later one, which
stays a version; and an undeleted object has its delete marker removed, so that it is exactly what
it was, its time and its metadata included. Where markers may not be removed (MFA Delete, or no
right to) it is copied, too. What is back already is passed over: a command that was broken off goes
on when it is given again.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from ossfs_py.control.server import Arguments, Command, ControlError, Progress
from ossfs_py.errors import (
    AccessDeniedError,
    NoSuchEntryError,
    NotADirectoryPathError,
    ObjectMissingError,
    StoreError,
    UnsavedDataError,
)
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.filesystem.writers import WRITER, WRITTEN
from ossfs_py.model import HistoryEntry, HistoryMark, HistoryQuery, ObjectInfo
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore

log = logging.getLogger(__name__)

_SHOWN_VERSIONS = 1000
"""One key's; each costs a request, as no listing tells who wrote it."""
_AT_ONCE = 16


@dataclass
class _Deleted:
    """A key that was deleted: its delete markers, and the version below them."""

    key: str
    deleted_ns: int
    markers: list[str] = field(default_factory=list)
    version: HistoryEntry | None = None


class VersionCommands:
    """The commands of one mount. Belongs to the trio thread.

    ``prefix`` is the mount's; keys that begin with ``reserved`` are its own.
    """

    def __init__(
        self,
        filesystem: Filesystem,
        store: ObjectStore,
        network: Workers,
        *,
        prefix: str,
        reserved: str,
    ) -> None:
        self._filesystem = filesystem
        self._store = store
        self._network = network
        self._prefix = prefix
        self._reserved = reserved

    def table(self) -> dict[str, Command]:
        """Every command by its name."""
        return {"versions": self._versions, "restore": self._restore, "undelete": self._undelete}

    # -- versions -------------------------------------------------------------------------------

    async def _versions(self, arguments: Arguments, _progress: Progress) -> Mapping[str, Any]:
        path = arguments.text("path")
        entries = await self._history_of(path)
        if not entries:
            raise ControlError(f"{path!r} has no versions: no file ever had this name")
        shown = entries[:_SHOWN_VERSIONS]
        rows: list[dict[str, Any]] = [{} for _ in shown]
        limit = trio.CapacityLimiter(_AT_ONCE)

        async def tell(place: int, entry: HistoryEntry) -> None:
            async with limit:
                rows[place] = await self._row(entry)

        async with trio.open_nursery() as nursery:
            for place, entry in enumerate(shown):
                nursery.start_soon(tell, place, entry)
        return {"key": self._key_of(path), "versions": rows, "more": len(entries) - len(shown)}

    async def _row(self, entry: HistoryEntry) -> dict[str, Any]:
        row: dict[str, Any] = {
            "version_id": entry.version_id,
            "latest": entry.is_latest,
            "time": entry.mtime_ns / 1e9,
            "deleted": entry.info is None,
        }
        if entry.info is None:
            return row
        metadata: Mapping[str, str] = {}
        try:
            told = await self._network.run(self._store.head, entry.key, entry.version_id)
            metadata = told.metadata or {}
        except StoreError as exc:
            log.info("who wrote version %s stays unknown: %s", entry.version_id, exc)
        return row | {
            "bytes": entry.info.size,
            "etag": entry.info.etag,
            "storage_class": entry.info.storage_class,
            "writer": metadata.get(WRITER),
            "written": metadata.get(WRITTEN),
        }

    # -- restore --------------------------------------------------------------------------------

    async def _restore(self, arguments: Arguments, _progress: Progress) -> Mapping[str, Any]:
        path = arguments.text("path")
        wanted, at_ns = arguments.text("version", ""), arguments.number("at_ns", 0)
        self._require_may_overwrite(path)
        await self._require_saved(path)
        await self._settle()
        entries = await self._history_of(path)
        if not entries:
            raise ControlError(f"{path!r} has no versions: no file ever had this name")
        entry = _chosen(path, entries, wanted, at_ns)
        if not entry.is_latest:
            info = await self._version(entry)
            await self._network.run(self._copy_back, info)
            await self._seen(path)
            log.info("%r is version %s again", info.key, entry.version_id)
        return {
            "version_id": entry.version_id,
            "time": entry.mtime_ns / 1e9,
            "bytes": entry.info.size if entry.info is not None else 0,
            "restored": not entry.is_latest,
        }

    async def _settle(self) -> None:
        """Wait until the store has what write-back owes it (uploads and removals), so that it is in
        the history."""
        try:
            await self._filesystem.sync()
        except UnsavedDataError as exc:
            log.info("the history is asked for although %s", exc)

    def _require_may_overwrite(self, path: str) -> None:
        self._filesystem.protection.require_writable()
        self._filesystem.protection.refuse("overwrite", "restoring", f"/{path}")

    async def _version(self, entry: HistoryEntry) -> ObjectInfo:
        try:
            return await self._network.run(self._store.head, entry.key, entry.version_id)
        except ObjectMissingError as exc:
            raise ControlError(f"version {entry.version_id} was removed just now") from exc

    async def _require_saved(self, path: str) -> None:
        """Refuse a file that is being written: its writer would overwrite the restored version at
        close."""
        try:
            found = await self._filesystem.describe(path)
        except (NoSuchEntryError, NotADirectoryPathError):
            return
        if found.kind == "directory":
            raise ControlError(f"{path!r} is a directory: undelete brings trees back")
        if found.unsaved:
            raise ControlError(
                f"{path!r} is being written, or not uploaded yet: close it, and 'ossfs-py sync'"
            )

    def _copy_back(self, info: ObjectInfo) -> None:
        self._store.copy(info.version, info.key, like=info)

    # -- undelete -------------------------------------------------------------------------------

    async def _undelete(self, arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        since_ns, dry_run = arguments.number("since_ns", 0), arguments.flag("dry_run")
        totals = {"files": 0, "bytes": 0, "without_version": 0}
        failed: dict[str, str] = {}
        await self._settle()
        for path in arguments.texts("paths"):
            if not dry_run:
                self._require_may_overwrite(path)
            try:
                async for batch in self._deleted_below(path, since_ns):
                    lost = [each for each in batch if each.version is None]
                    found = [each for each in batch if each.version is not None]
                    if not dry_run:
                        failed |= await self._bring_back_all(found)
                    rows = [self._told(each) for each in found if each.key not in failed]
                    totals["without_version"] += len(lost)
                    totals["files"] += len(rows)
                    totals["bytes"] += sum(row["bytes"] for row in rows)
                    await progress({"files": rows, "done": totals["files"]})
            finally:
                if not dry_run:
                    with trio.CancelScope(shield=True):
                        await self._seen(path)
        return {**totals, "failed": failed}

    def _told(self, deleted: _Deleted) -> dict[str, Any]:
        info = deleted.version.info if deleted.version is not None else None
        return {
            "path": deleted.key[len(self._prefix) :],
            "bytes": info.size if info is not None else 0,
            "deleted": deleted.deleted_ns / 1e9,
        }

    async def _deleted_below(self, path: str, since_ns: int) -> AsyncIterator[list[_Deleted]]:
        """The deleted files at a path and in the tree below it, a page at a time."""
        key = self._key_of(path)
        current: _Deleted | None = None
        found: list[_Deleted] = []
        scopes = [self._entries(key, alone=True)] if path.strip("/") else []
        scopes.append(self._entries(key + "/" if path.strip("/") else key))
        for scope in scopes:
            async for entries in scope:
                for entry in entries:
                    if current is None or current.key != entry.key:
                        if current is not None and _is_gone(current, since_ns):
                            found.append(current)
                        current = _Deleted(entry.key, entry.mtime_ns)
                    if current.version is None:
                        if entry.info is None:
                            current.markers.append(entry.version_id)
                        else:
                            current.version = entry
                if found:
                    yield found
                    found = []
        if current is not None and _is_gone(current, since_ns):
            yield [current]

    async def _bring_back_all(self, deleted: list[_Deleted]) -> dict[str, str]:
        """The files that could not be brought back, and why."""
        failed: dict[str, str] = {}
        limit = trio.CapacityLimiter(_AT_ONCE)

        async def bring(each: _Deleted) -> None:
            async with limit:
                try:
                    await self._network.run(self._bring_back, each)
                except StoreError as exc:
                    failed[each.key] = str(exc)

        async with trio.open_nursery() as nursery:
            for each in deleted:
                nursery.start_soon(bring, each)
        return failed

    def _bring_back(self, deleted: _Deleted) -> None:
        """Blocking; on a worker thread."""
        try:
            for marker in deleted.markers:
                self._store.delete_version(deleted.key, marker)
        except AccessDeniedError as exc:
            log.info("%r is copied, as its delete marker stays: %s", deleted.key, exc)
            if deleted.version is not None:
                self._copy_back(self._store.head(deleted.key, deleted.version.version_id))

    # -- inside ---------------------------------------------------------------------------------

    def _key_of(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise ControlError(f"{path!r} is not a path below the mountpoint")
        return self._prefix + path.strip("/")

    async def _history_of(self, path: str) -> list[HistoryEntry]:
        """All that happened to the file of a path, the newest first."""
        key = self._key_of(path)
        return [entry async for page in self._entries(key, alone=True) for entry in page]

    async def _entries(self, key: str, *, alone: bool = False) -> AsyncIterator[list[HistoryEntry]]:
        """The events of the keys that begin with ``key``, or of that one key (``alone``)."""
        mark: HistoryMark | None = None
        while True:
            query = HistoryQuery(key, after=mark)
            page = await self._network.run(self._store.list_versions, query)
            entries = [entry for entry in page.entries if not entry.key.startswith(self._reserved)]
            own = [entry for entry in entries if entry.key == key] if alone else entries
            yield own
            mark = page.following
            # A key sorts before all that it is the beginning of.
            if mark is None or (alone and mark.key != key):
                return

    async def _seen(self, path: str) -> None:
        """The mount looks at once."""
        try:
            await self._filesystem.refresh(path)
        except (NoSuchEntryError, NotADirectoryPathError, StoreError) as exc:
            log.info("%r is not looked at again: %s", path, exc)


def _is_gone(deleted: _Deleted, since_ns: int) -> bool:
    return bool(deleted.markers) and deleted.deleted_ns >= since_ns


def _chosen(path: str, entries: list[HistoryEntry], wanted: str, at_ns: int) -> HistoryEntry:
    """The requested version: by its id, by a time, or else the one before the current one.

    Raises:
        ControlError: there is none.
    """
    if wanted:
        found = [entry for entry in entries if entry.version_id == wanted]
        missing = f"{path!r} has no version {wanted!r}"
    elif at_ns:
        found = [entry for entry in entries if entry.mtime_ns <= at_ns][:1]
        missing = f"{path!r} has no version that old"
    else:
        found = [entry for entry in entries if entry.info is not None and not entry.is_latest][:1]
        missing = f"{path!r} has no version before the current one"
    if not found:
        raise ControlError(missing)
    if found[0].info is None:
        raise ControlError(f"{path!r} was deleted then: there is nothing to restore")
    return found[0]
