"""Warm-ups of whatever a mount keeps bytes in: the requests, progress, and what is missing."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import trio

from ossfs_py.control.server import Arguments, ControlError, Progress
from ossfs_py.datapath.filling import FillProgress
from ossfs_py.errors import NoSuchEntryError, OssfsError
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.model import ObjectVersion

log = logging.getLogger(__name__)

T = TypeVar("T")

_TICK_SECONDS = 0.2
"""How often progress is reported: often enough for a smooth bar."""
_BATCH_FILES = 200
"""Files checked in one call on a thread, some 10 ms."""
_MAX_TASKS = 512
"""As many as --concurrency allows."""


class Warmed(Protocol):
    """The files to warm up."""

    name: str
    """As sentences call it."""
    gone: str
    """Why some of a file is missing again that was brought there."""

    async def fill(
        self, versions: Iterable[ObjectVersion], tasks: int, progress: FillProgress
    ) -> None:
        """Bring versions there; ``progress`` notes those that cannot be fetched."""
        ...

    async def shares(self, versions: list[ObjectVersion]) -> list[int]:
        """How many bytes of each version are there."""
        ...


class WarmUps:
    """Warm-ups of one mount. Belongs to the trio thread. ``jobs`` ends before the mount does;
    ``tasks`` are its requests at a time, unless a warm-up says another number.
    """

    def __init__(self, filesystem: Filesystem, jobs: trio.Nursery, tasks: int) -> None:
        self._filesystem = filesystem
        self._jobs = jobs
        self._tasks = tasks

    async def warm_up(
        self, warmed: Warmed, arguments: Arguments, progress: Progress
    ) -> Mapping[str, Any]:
        """Bring the files of a request there.

        Raises:
            ControlError: the request makes no sense.
        """
        tasks = arguments.number("threads", self._tasks)
        if not 1 <= tasks <= _MAX_TASKS:
            raise ControlError(f"the number of threads must be from 1 to {_MAX_TASKS}")
        paths = arguments.texts("paths")
        if arguments.flag("background"):
            self._jobs.start_soon(self._alone, warmed, paths, tasks)
            return {"files": len(paths)}
        state = FillProgress()

        async def tell() -> None:
            await progress(_counts(state))

        versions, missing = await telling(tell, lambda: self._fill(warmed, paths, tasks, state))
        return {
            **_counts(state),
            "files": len(versions),
            "bytes": sum(version.size for version in versions.values()),
            "missing": missing,
        }

    async def check(
        self, warmed: Warmed, arguments: Arguments, progress: Progress
    ) -> Mapping[str, Any]:
        """Tell how much of each file of a request is there."""
        versions, missing = await self.versions(arguments.texts("paths"))
        async for batch in _shares(warmed, versions):
            await progress(
                {
                    "files": [
                        {"path": path, "bytes": version.size, "cached_bytes": share}
                        for path, version, share in batch
                    ]
                }
            )
        return {"missing": missing}

    async def versions(
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

    async def _fill(
        self, warmed: Warmed, paths: list[str], tasks: int, state: FillProgress
    ) -> tuple[dict[str, ObjectVersion], list[dict[str, str]]]:
        versions, missing = await self.versions(paths)
        await warmed.fill(dict.fromkeys(versions.values()), tasks, state)
        for path, version in versions.items():
            if version.key in state.missing:
                missing.append({"path": path, "reason": state.missing[version.key]})
        whole = {path: each for path, each in versions.items() if each.key not in state.missing}
        # Files that were there, until later ones took their place.
        async for batch in _shares(warmed, whole):
            for path, version, share in batch:
                if share < version.size:
                    missing.append({"path": path, "reason": warmed.gone})
        return versions, missing

    async def _alone(self, warmed: Warmed, paths: list[str], tasks: int) -> None:
        began = time.monotonic()
        state = FillProgress()
        try:
            _versions, missing = await self._fill(warmed, paths, tasks, state)
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
            log.warning(
                "not all of %r is in the %s: %s", entry["path"], warmed.name, entry["reason"]
            )


async def telling(tell: Callable[[], Awaitable[None]], work: Callable[[], Awaitable[T]]) -> T:
    """Do the work, and report progress regularly."""

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


async def _shares(
    warmed: Warmed, versions: dict[str, ObjectVersion]
) -> AsyncIterator[list[tuple[str, ObjectVersion, int]]]:
    """How many bytes of each file are there, some files at a time."""
    found = list(versions.items())
    for first in range(0, len(found), _BATCH_FILES):
        batch = found[first : first + _BATCH_FILES]
        shares = await warmed.shares([version for _, version in batch])
        yield [(path, each, share) for (path, each), share in zip(batch, shares, strict=True)]


def _counts(state: FillProgress) -> dict[str, int]:
    return {
        "files_done": state.files_done,
        "bytes_done": state.bytes_done,
        "fetched_bytes": state.fetched_bytes,
    }
