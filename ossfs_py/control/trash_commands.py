"""Calls about the trash: list copies, restore them, delete them for good.

A restored copy leaves the trash when the file is there again, and a file that a restore replaces is
copied to the trash first, so none of these calls but ``empty`` loses anything. An interrupted call
continues when it is repeated.
"""

import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import trio

from ossfs_py.control.server import Arguments, Command, ControlError, Progress
from ossfs_py.control.targets import look_again, require_saved
from ossfs_py.errors import (
    ConditionFailedError,
    ObjectMissingError,
    OssfsError,
    StoreError,
    UnsavedDataError,
    UnsupportedByStoreError,
)
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.filesystem.trash import KeptCopy, parse_kept, with_time
from ossfs_py.model import ByteRange, CommitRequest, Condition, ListQuery, ObjectInfo
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import MAX_DELETED_KEYS, MAX_PARTS, ObjectStore

log = logging.getLogger(__name__)

_AT_ONCE = 16
_BATCH = 1000
_SENT_BYTES = 8 * 1024**2
"""Copies up to this size are fetched and sent, if that is how overwriting is prevented."""
_PART_BYTES = 512 * 1024**2

_Kept = tuple[KeptCopy, ObjectInfo]
"""A copy, and the file that it is a copy of."""


class TrashCommands:
    """The commands of one mount. Belongs to the trio thread.

    ``prefix`` is the mount's; ``trash`` the one below which copies are kept, if any are.
    """

    def __init__(
        self,
        filesystem: Filesystem,
        store: ObjectStore,
        network: Workers,
        *,
        prefix: str,
        trash: str,
    ) -> None:
        self._filesystem = filesystem
        self._store = store
        self._network = network
        self._prefix = prefix
        self._trash = trash

    def table(self) -> dict[str, Command]:
        """Every command by its name."""
        return {
            "trash.list": self._list,
            "trash.restore": self._restore,
            "trash.empty": self._empty,
        }

    async def _list(self, arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        """All copies of a path and what is below it, the oldest day first."""
        path, since_ns = arguments.text("path"), arguments.number("since_ns", 0)
        await self._settle()
        totals = {"files": 0, "bytes": 0}
        async for batch in self._kept(path, since_ns=since_ns):
            await self._tell(batch, totals, progress)
        return totals

    async def _restore(self, arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        """Bring back the newest copy of each file, or the one with the ident that is given."""
        path, since_ns = arguments.text("path"), arguments.number("since_ns", 0)
        ident, overwrite = arguments.text("ident", ""), arguments.flag("overwrite")
        dry_run = arguments.flag("dry_run")
        self._filesystem.protection.require_writable()
        await self._settle()
        totals = {"files": 0, "bytes": 0, "there_already": 0}
        failed: dict[str, str] = {}
        done: set[str] = set()
        try:
            async for day in self._newest(path, since_ns, ident):
                left = [each for each in day if each[0].key not in done]
                done.update(each[0].key for each in left)
                for start in range(0, len(left), _BATCH):
                    batch = left[start : start + _BATCH]
                    back = await self._bring_back_kept(
                        batch, totals, failed, overwrite=overwrite, dry_run=dry_run
                    )
                    await self._tell(back, totals, progress)
        finally:
            if not dry_run:
                with trio.CancelScope(shield=True):
                    await look_again(self._filesystem, path)
        return {**totals, "failed": failed}

    async def _empty(self, arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        """Delete copies of what was removed before ``until_ns`` (0: all), for good."""
        path, until_ns = arguments.text("path"), arguments.number("until_ns", 0)
        dry_run = arguments.flag("dry_run")
        self._filesystem.protection.require_writable()
        if not dry_run:
            self._filesystem.protection.refuse("delete", "emptying the trash", f"/{path}")
        totals = {"files": 0, "bytes": 0}
        failed: dict[str, str] = {}
        async for batch in self._kept(path, until_ns=until_ns):
            keys = [info.key for _, info in batch]
            if not dry_run:
                failed |= await self._network.run(self._delete_all, keys)
            gone = [each for each in batch if each[1].key not in failed]
            await self._tell(gone, totals, progress)
        return {**totals, "failed": failed}

    async def _tell(
        self, batch: Sequence[_Kept], totals: dict[str, int], progress: Progress
    ) -> None:
        totals["files"] += len(batch)
        totals["bytes"] += sum(info.size for _, info in batch)
        rows = [
            {
                "path": kept.key[len(self._prefix) :],
                "bytes": info.size,
                "removed": kept.removed_ns / 1e9,
                "id": kept.ident,
                "key": info.key,
            }
            for kept, info in batch
        ]
        await progress({"files": rows, "done": totals["files"]})

    # -- what there is ----------------------------------------------------------------------------

    async def _kept(
        self, path: str, *, since_ns: int = 0, until_ns: int = 0
    ) -> AsyncIterator[list[_Kept]]:
        """Copies of a path and of what is below it, a page's worth at a time."""
        for day in await self._days(since_ns, until_ns):
            async for batch in self._kept_of_day(day, path):
                wanted = [
                    each
                    for each in batch
                    if since_ns <= each[0].removed_ns
                    and (not until_ns or each[0].removed_ns < until_ns)
                ]
                if wanted:
                    yield wanted

    async def _newest(self, path: str, since_ns: int, ident: str) -> AsyncIterator[list[_Kept]]:
        """The newest copy of each key that a day has, the last day first."""
        for day in reversed(await self._days(since_ns, 0)):
            newest: dict[str, _Kept] = {}
            async for batch in self._kept_of_day(day, path):
                for each in batch:
                    kept, before = each[0], newest.get(each[0].key)
                    if kept.removed_ns < since_ns or (ident and kept.ident != ident):
                        continue
                    if before is None or before[0].removed_ns <= kept.removed_ns:
                        newest[kept.key] = each
            yield list(newest.values())

    async def _days(self, since_ns: int, until_ns: int) -> list[str]:
        """The prefixes of days in which something was removed in between, the oldest first."""
        found: list[str] = []
        token: str | None = None
        while True:
            query = ListQuery(self._trash, token=token)
            page = await self._network.run(self._store.list_page, query)
            found += [
                prefix for prefix in page.prefixes if self._is_day(prefix, since_ns, until_ns)
            ]
            token = page.next_token
            if token is None:
                return found

    def _is_day(self, prefix: str, since_ns: int, until_ns: int) -> bool:
        try:
            day = datetime.strptime(prefix[len(self._trash) :] + "Z", "%Y-%m-%d/%z")
        except ValueError:
            return False  # somebody else's
        begin_ns = int(day.timestamp()) * 10**9
        end_ns = int((day + timedelta(days=1)).timestamp()) * 10**9
        return since_ns < end_ns and (not until_ns or begin_ns < until_ns)

    async def _kept_of_day(self, day: str, path: str) -> AsyncIterator[list[_Kept]]:
        key = self._key_of(path)
        scopes = [f"{day}{key}~", f"{day}{key}/"] if path.strip("/") else [f"{day}{key}"]
        for scope in scopes:
            token: str | None = None
            while True:
                query = ListQuery(scope, delimiter="", token=token)
                page = await self._network.run(self._store.list_page, query)
                yield [
                    (kept, info)
                    for info in page.objects
                    if (kept := parse_kept(self._trash, info.key)) is not None
                    and (not scope.endswith("~") or kept.key == key)
                ]
                token = page.next_token
                if token is None:
                    break

    # -- bringing back, letting go ----------------------------------------------------------------

    async def _bring_back_kept(
        self,
        batch: Sequence[_Kept],
        totals: dict[str, int],
        failed: dict[str, str],
        *,
        overwrite: bool,
        dry_run: bool,
    ) -> list[_Kept]:
        """Returns what is back, or would be."""
        back: list[_Kept] = []
        limit = trio.CapacityLimiter(_AT_ONCE)

        async def bring(kept: KeptCopy, info: ObjectInfo) -> None:
            async with limit:
                try:
                    there = await self._network.run(self._present, kept.key)
                    if there is not None and not overwrite:
                        totals["there_already"] += 1
                        return
                    if not dry_run:
                        await require_saved(self._filesystem, kept.key[len(self._prefix) :])
                        if there is not None:
                            self._filesystem.protection.refuse("overwrite", "restoring", kept.key)
                            trash = self._filesystem.trash
                            await trash.keep_object(self._trash, there, time.time_ns())
                        await self._network.run(
                            self._copy_kept_back, kept, info, there is None and not overwrite
                        )
                except ConditionFailedError:
                    totals["there_already"] += 1  # made since it was looked for
                    return
                except OssfsError as exc:
                    failed[kept.key] = str(exc)
                    return
            back.append((kept, info))

        async with trio.open_nursery() as nursery:
            for kept, info in batch:
                nursery.start_soon(bring, kept, info)
        return back

    def _present(self, key: str) -> ObjectInfo | None:
        """Blocking; on a worker thread."""
        try:
            return self._store.head(key)
        except ObjectMissingError:
            return None

    def _copy_kept_back(self, kept: KeptCopy, info: ObjectInfo, only_if_absent: bool) -> None:
        """Blocking; on a worker thread. The copy leaves the trash when the file is there.

        Raises:
            ConditionFailedError: others have made the file, as far as the store can look for that
                and copy at once.
        """
        described = self._store.head(info.key)
        request = CommitRequest(
            kept.key,
            with_time(described, kept.mtime_ns),
            described.content_type,
            Condition(only_if_absent=True),
            like=described,
        )
        can = self._store.capabilities()
        if only_if_absent and can.conditional_create and described.size <= _SENT_BYTES:
            content = bytearray(described.size)
            if content:
                self._store.get_range_into(described.version, 0, memoryview(content))
            self._store.put(request, memoryview(content))
        elif only_if_absent and can.conditional_create and can.part_copy:
            self._copy_in_parts(described, request)
        else:
            self._store.copy(
                described.version,
                request.key,
                metadata=request.metadata,
                content_type=request.content_type,
                like=described,
            )
        self._store.delete(info.key)

    def _copy_in_parts(self, source: ObjectInfo, request: CommitRequest) -> None:
        """A copy on the condition of the request, which a plain one cannot have."""
        upload = self._store.start_multipart(request)
        try:
            length = max(_PART_BYTES, -(-source.size // MAX_PARTS))
            parts = [
                self._store.copy_part(
                    upload,
                    number,
                    source.version,
                    ByteRange(start, min(start + length, source.size)),
                )
                for number, start in enumerate(range(0, source.size, length), 1)
            ]
            self._store.complete(upload, parts, request)
        except BaseException:
            self._store.abort(upload)
            raise

    def _delete_all(self, keys: Sequence[str]) -> dict[str, str]:
        """Blocking; on a worker thread. Why some could not be deleted."""
        left = list(keys)
        if len(left) > 1:
            try:
                left = [
                    key
                    for start in range(0, len(keys), MAX_DELETED_KEYS)
                    for key in self._store.delete_many(keys[start : start + MAX_DELETED_KEYS])
                ]
            except UnsupportedByStoreError:
                log.debug("this store deletes one object at a time")
        failed = {}
        for key in left:
            try:
                self._store.delete(key)
            except StoreError as exc:
                failed[key] = str(exc)
        return failed

    # -- around it --------------------------------------------------------------------------------

    def _key_of(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise ControlError(f"{path!r} is not a path below the mountpoint")
        return self._prefix + path.strip("/")

    async def _settle(self) -> None:
        """Wait until files that were just removed are in the trash."""
        try:
            await self._filesystem.sync()
        except UnsavedDataError as exc:
            log.info("the trash is asked for although %s", exc)
