"""Finds out which files a dead daemon has stored, before any other change is made."""

import logging

import trio

from ossfs_py.datapath.base import OpenFile
from ossfs_py.errors import OssfsError, StoreUnavailableError
from ossfs_py.filesystem.commits import Commits
from ossfs_py.filesystem.openinode import OpenInode
from ossfs_py.filesystem.openinodes import Opener
from ossfs_py.model import ObjectInfo
from ossfs_py.namespace.namespace import Namespace

log = logging.getLogger(__name__)

_RETRY_SECONDS = 2.0
"""Pause between looks at a store that does not answer; each has its own retry budget."""
_LOOK_SECONDS = 0.25
_STEP_BYTES = 1024**2


class Settlement:
    """Finds out the state of files that an earlier daemon had open. Belongs to the trio thread.
    Nobody may change a file during that. Commits that were running when that daemon died, and have
    not arrived, are waited for ``sent_seconds``: a commit that came later would be refused, as
    there would be another object.
    """

    def __init__(
        self, namespace: Namespace, commits: Commits, opener: Opener, sent_seconds: float
    ) -> None:
        self._sent_seconds = sent_seconds
        self._namespace = namespace
        self._commits = commits
        self._opener = opener

    async def settle(self, opened: OpenInode) -> None:
        """Set one file to the state that the store has by now. Does not return while the store does
        not answer; if it refuses to describe the object, that is left to the next commit.
        """
        is_awaited = opened.sending or opened.over is not None
        deadline = trio.current_time() + (self._sent_seconds if is_awaited else 0)
        while not opened.inode.removed:
            try:
                if not await self._settle(opened) and trio.current_time() < deadline:
                    await trio.sleep(_LOOK_SECONDS)
                    continue
            except StoreUnavailableError as exc:
                log.warning("waiting for the store before anything is changed: %s", exc)
                await trio.sleep(_RETRY_SECONDS)
                continue
            except (OssfsError, OSError) as exc:
                log.warning("whether %r was stored is not known: %s", opened.inode.name, exc)
            break
        opened.rewrites = opened.sending = False
        opened.over = None
        opened.note()

    async def _settle(self, opened: OpenInode) -> bool:
        """Look once; returns whether there is anything new."""
        info = await self._namespace.version_in_store(opened.inode)
        if not opened.file.dirty:
            await self._settle_clean(opened, info)
        elif info is None or info.version in (opened.seen, opened.over):
            return False
        elif opened.over is not None:
            await self._settle_append(opened, info)
        elif await self._commits.is_stored(opened, info):
            log.info("%r was stored before the daemon before ended", info.key)
            self._commits.found_stored(opened, info)
        return True

    async def _settle_clean(self, opened: OpenInode, info: ObjectInfo | None) -> None:
        """Its object may have been copied onto itself, or under another name."""
        version, hidden = opened.file.version, opened.hidden
        if info is None or version is None or hidden is not None or version == info.version:
            return
        moved = version.key != info.key
        if (moved or opened.rewrites) and info.size == version.size:
            await opened.file.preserve(info.version)
            opened.seen = info.version
            opened.inode.learn(info)

    async def _settle_append(self, opened: OpenInode, info: ObjectInfo) -> None:
        """It was about to be appended to an object of others."""
        start, over = opened.appended_from, opened.over
        if start is None or over is None:
            return
        added = opened.file.size - start
        if info.size != over.size + added:
            return
        file = self._opener.file_of(opened, info.version)
        if await _ends_equal(opened.file, start, file, over.size):
            log.info("%r was appended to before the daemon before ended", info.key)
            await self._commits.go_on_with(opened, file, info.version)
        else:
            await file.close()


async def _ends_equal(one: OpenFile, start: int, other: OpenFile, other_start: int) -> bool:
    """Whether one file from an offset on equals another file from an offset on."""
    shift = other_start - start
    while start < one.size:
        data = bytes(await one.read(start, _STEP_BYTES))
        if not data or bytes(await other.read(start + shift, len(data))) != data:
            return False
        start += len(data)
    return True
