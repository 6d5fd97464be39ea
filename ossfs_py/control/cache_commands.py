"""What a mount with a disk cache can be asked: warm-up, what is cached, evict, rehash, clear."""

import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import trio

from ossfs_py.control.server import Arguments, Command, ControlError, Progress
from ossfs_py.datapath.cache import CacheDataPath
from ossfs_py.datapath.diskcache.inspection import CacheInspector, VerifyProgress
from ossfs_py.datapath.filling import FillProgress
from ossfs_py.errors import NoSuchEntryError, OssfsError
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.model import ObjectVersion
from ossfs_py.runtime.workers import Workers

log = logging.getLogger(__name__)

T = TypeVar("T")

_TICK_SECONDS = 0.2
"""How often progress is told: often enough for a smooth bar."""
_BATCH_FILES = 200
"""Files looked at in one go on a file thread, some 10 ms."""
_MAX_TASKS = 512
"""As many as --concurrency allows."""


class CacheCommands:
    """The commands of one mount. Belongs to the trio thread.

    ``cache`` is None on a mount of another data path: every command then says so. ``jobs`` ends
    before the mount does.
    """

    def __init__(
        self,
        filesystem: Filesystem,
        cache: CacheDataPath | None,
        files: Workers,
        jobs: trio.Nursery,
        tasks: int,
    ) -> None:
        self._filesystem = filesystem
        self._cache = cache
        self._files = files
        self._jobs = jobs
        self._tasks = tasks

    def table(self) -> dict[str, Command]:
        """Every command by its name."""
        return {
            "cache.warm-up": self._warm_up,
            "cache.check": self._check,
            "cache.evict": self._evict,
            "cache.show": self._show,
            "cache.verify": self._verify,
            "cache.clear": self._clear,
        }

    # -- files -----------------------------------------------------------------------------------

    async def _warm_up(self, arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        cache = self._needed()
        tasks = arguments.number("threads", self._tasks)
        if not 1 <= tasks <= _MAX_TASKS:
            raise ControlError(f"the number of threads must be from 1 to {_MAX_TASKS}")
        paths = arguments.texts("paths")
        if arguments.flag("background"):
            self._jobs.start_soon(self._warm_up_alone, cache, paths, tasks)
            return {"files": len(paths)}
        state = FillProgress()

        async def tell() -> None:
            await progress(_counts(state))

        versions, missing = await _telling(tell, lambda: self._fill(cache, paths, tasks, state))
        await cache.note_metrics()
        return {
            **_counts(state),
            "files": len(versions),
            "bytes": sum(version.size for version in versions.values()),
            "missing": missing,
        }

    async def _fill(
        self, cache: CacheDataPath, paths: list[str], tasks: int, state: FillProgress
    ) -> tuple[dict[str, ObjectVersion], list[dict[str, str]]]:
        versions, missing = await self._versions(paths)
        await cache.filler.fill(dict.fromkeys(versions.values()), tasks, state)
        for path, version in versions.items():
            if version.key in state.missing:
                missing.append({"path": path, "reason": state.missing[version.key]})
        missing += await self._evicted_since(
            cache, {path: each for path, each in versions.items() if each.key not in state.missing}
        )
        return versions, missing

    async def _evicted_since(
        self, cache: CacheDataPath, versions: dict[str, ObjectVersion]
    ) -> list[dict[str, str]]:
        """Files that were whole in the cache, until later ones took their place."""
        reason = "it was evicted again: not everything fits the cache"
        return [
            {"path": path, "reason": reason}
            async for batch in self._shares(cache, versions)
            for path, version, share in batch
            if share < version.size
        ]

    async def _shares(
        self, cache: CacheDataPath, versions: dict[str, ObjectVersion]
    ) -> AsyncIterator[list[tuple[str, ObjectVersion, int]]]:
        """How many bytes of each file are cached, some files at a time."""
        found = list(versions.items())
        for first in range(0, len(found), _BATCH_FILES):
            batch = found[first : first + _BATCH_FILES]
            shares = await self._files.run(_shares, cache, [version for _, version in batch])
            yield [(path, each, share) for (path, each), share in zip(batch, shares, strict=True)]

    async def _warm_up_alone(self, cache: CacheDataPath, paths: list[str], tasks: int) -> None:
        began = time.monotonic()
        state = FillProgress()
        try:
            _versions, missing = await self._fill(cache, paths, tasks, state)
        except Exception:
            log.exception("warming up in the background failed")
            return
        log.info(
            "warmed up %d files, %d bytes fetched in %.1f s",
            state.files_done,
            state.fetched_bytes,
            time.monotonic() - began,
        )
        for entry in missing:
            log.warning("not all of %r is in the cache: %s", entry["path"], entry["reason"])

    async def _check(self, arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        cache = self._needed()
        versions, missing = await self._versions(arguments.texts("paths"))
        async for batch in self._shares(cache, versions):
            await progress(
                {
                    "files": [
                        {"path": path, "bytes": version.size, "cached_bytes": share}
                        for path, version, share in batch
                    ]
                }
            )
        return {"missing": missing}

    async def _evict(self, arguments: Arguments, _progress: Progress) -> Mapping[str, Any]:
        cache = self._needed()
        versions, missing = await self._versions(arguments.texts("paths"))
        freed, kept = 0, []
        for path, version in versions.items():
            freed += await cache.evict(version)
            if await self._files.run(cache.blocks.share, version):
                kept.append(path)
        return {"files": len(versions), "freed_bytes": freed, "in_use": kept, "missing": missing}

    async def _versions(
        self, paths: list[str]
    ) -> tuple[dict[str, ObjectVersion], list[dict[str, str]]]:
        """The version of every path, and the reasons for those that have none."""
        versions: dict[str, ObjectVersion] = {}
        missing: list[dict[str, str]] = []
        for path in paths:
            try:
                versions[path] = await self._filesystem.version_at(path)
            except NoSuchEntryError:
                missing.append({"path": path, "reason": "it does not exist"})
            except OssfsError as exc:
                missing.append({"path": path, "reason": str(exc)})
            await trio.lowlevel.checkpoint()
        return versions, missing

    # -- the whole directory -----------------------------------------------------------------------

    async def _show(self, _arguments: Arguments, _progress: Progress) -> Mapping[str, Any]:
        cached = await self._inspect(CacheInspector.show)
        limit = None if cached.limit_bytes == sys.maxsize else cached.limit_bytes
        return {**asdict(cached), "limit_bytes": limit, "hit_ratio": cached.hit_ratio}

    async def _verify(self, _arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        latest = VerifyProgress(0, 0, 0)

        def note(state: VerifyProgress) -> None:
            nonlocal latest
            latest = state

        async def tell() -> None:
            await progress(asdict(latest))

        return asdict(
            await _telling(tell, lambda: self._inspect(lambda inspector: inspector.verify(note)))
        )

    async def _clear(self, _arguments: Arguments, _progress: Progress) -> Mapping[str, Any]:
        return {"kept_bytes": await self._inspect(CacheInspector.clear)}

    async def _inspect(self, question: Callable[[CacheInspector], T]) -> T:
        cache = self._needed()
        try:
            return await self._files.run(lambda: question(CacheInspector(cache.blocks)))
        except OSError as exc:
            raise ControlError(f"the cache directory cannot be used: {exc.strerror}") from exc

    def _needed(self) -> CacheDataPath:
        if self._cache is None:
            raise ControlError(
                "this mount has no disk cache: mount with --data-path cache to have one"
            )
        return self._cache


def _shares(cache: CacheDataPath, versions: list[ObjectVersion]) -> list[int]:
    return [cache.blocks.share(version) for version in versions]


def _counts(state: FillProgress) -> dict[str, int]:
    return {
        "files_done": state.files_done,
        "bytes_done": state.bytes_done,
        "fetched_bytes": state.fetched_bytes,
    }


async def _telling(tell: Callable[[], Awaitable[None]], work: Callable[[], Awaitable[T]]) -> T:
    """Do the work while progress is told regularly."""

    async def repeat() -> None:
        while True:
            await tell()
            await trio.sleep(_TICK_SECONDS)

    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(repeat)
        try:
            result = await work()
        except Exception as exc:  # noqa: BLE001 - raised below, outside of any group
            failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    await tell()
    return result
