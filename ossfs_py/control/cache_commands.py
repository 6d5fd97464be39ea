"""The commands of a mount with a disk cache: warm-up, what is cached, evict, rehash, clear."""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from ossfs_py.control.server import Arguments, Command, ControlError, Progress
from ossfs_py.control.warming import WarmUps, telling
from ossfs_py.datapath.cache import CacheDataPath
from ossfs_py.datapath.diskcache.inspection import CacheInspector, VerifyProgress
from ossfs_py.datapath.filling import FillProgress
from ossfs_py.model import ObjectVersion
from ossfs_py.runtime.workers import Workers

T = TypeVar("T")


class CacheCommands:
    """The commands of one mount. Belongs to the trio thread.

    ``cache`` is None on a mount of another data path: every command then says so.
    """

    def __init__(self, warm_ups: WarmUps, cache: CacheDataPath | None, files: Workers) -> None:
        self._warm_ups = warm_ups
        self._cache = cache
        self._files = files

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
        told = await self._warm_ups.warm_up(_Cached(cache, self._files), arguments, progress)
        await cache.note_metrics()
        return told

    async def _check(self, arguments: Arguments, progress: Progress) -> Mapping[str, Any]:
        cached = _Cached(self._needed(), self._files)
        return await self._warm_ups.check(cached, arguments, progress)

    async def _evict(self, arguments: Arguments, _progress: Progress) -> Mapping[str, Any]:
        cache = self._needed()
        versions, missing = await self._warm_ups.versions(arguments.texts("paths"))
        freed, kept = 0, []
        for path, version in versions.items():
            freed += await cache.evict(version)
            if await self._files.run(cache.blocks.share, version):
                kept.append(path)
        return {"files": len(versions), "freed_bytes": freed, "in_use": kept, "missing": missing}

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
            await telling(tell, lambda: self._inspect(lambda inspector: inspector.verify(note)))
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


class _Cached:
    name = "cache"
    gone = "it was evicted again: the cache is too small for all of it"

    def __init__(self, cache: CacheDataPath, files: Workers) -> None:
        self._cache = cache
        self._files = files

    async def fill(
        self, versions: Iterable[ObjectVersion], tasks: int, progress: FillProgress
    ) -> None:
        await self._cache.filler.fill(versions, tasks, progress)

    async def shares(self, versions: list[ObjectVersion]) -> list[int]:
        share = self._cache.blocks.share
        return await self._files.run(lambda: [share(version) for version in versions])
