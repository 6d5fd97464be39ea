"""Readers of a file that another host appends to.

In a bucket an append makes another object under the same name. A program with the file open holds
an old version, and that version does not grow. A program that keeps a log open and waits for more
(``tail -f``, the data server of TensorBoard) would wait for ever. So when the kernel asks for the
size of such a file, or the store refuses its version, we check whether the object under the name
now begins with all bytes of the old version. If it does, the open file continues with the new
version: bytes that a program has read do not change, there are only more of them.

This is proved, never guessed: by the MD5 of the old version if that is its ETag, else by comparing
the bytes of it that are cached here. Each new version is checked once.
"""

import hashlib
import re

from ossfs_py.datapath.base import OpenFile
from ossfs_py.errors import (
    FilesystemError,
    ObjectMissingError,
    StoreError,
    VersionChangedError,
)
from ossfs_py.filesystem.openinode import OpenInode
from ossfs_py.filesystem.openinodes import Opener
from ossfs_py.model import ObjectVersion
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.namespace import Namespace

FOLLOWED_BYTES = 64 * 1024**2
"""Larger old versions are not compared: the comparison downloads all of it, again after each
append. Event files of TensorBoard have 0.1 to 10 MiB.
"""
_STEP_BYTES = 1024**2
"""Bytes compared at once: their MD5 takes 1.5 ms."""
_MD5 = re.compile(r"[0-9a-f]{32}")


class GrowthFollower:
    """Belongs to the trio thread."""

    def __init__(self, namespace: Namespace, opener: Opener) -> None:
        self._namespace = namespace
        self._opener = opener

    async def follow(self, opened: OpenInode) -> bool:
        """Let a file whose name others took continue with the object that has the name now. Returns
        whether it does.

        Costs nothing while no new object is known under the name. Raises nothing: a read of the old
        version gets any error. If this is cancelled, the file stays as it is.
        """
        inode = opened.inode
        if not inode.stale or inode.lost_from is None:
            return False
        async with opened.lock:
            before = opened.file.version
            if (
                before is None
                or before.size > FOLLOWED_BYTES
                or opened.file.dirty
                or opened.superseded
            ):
                return False
            try:
                successor = await self._namespace.lookup(inode.lost_from, inode.name)
                return await self._go_on(opened, before, successor)
            except (FilesystemError, StoreError):
                return False

    async def _go_on(self, opened: OpenInode, before: ObjectVersion, successor: Inode) -> bool:
        if self._namespace.may_be_link(successor):
            await self._namespace.ensure_metadata(successor)
        info = successor.info
        if (
            info is None
            or info.key != before.key  # a link was followed: its name stands for another file
            or successor.kind is not Kind.FILE
            or successor.stale
            or info.size <= before.size
            or info.etag == opened.unlike
        ):
            return False
        file = self._opener.file_of(opened, info.version)
        try:
            if not await _begins_with(file, opened.file, before):
                opened.unlike = info.etag
                return False
            await self._opener.grow(opened, file, info)
        finally:
            if opened.file is not file:
                await file.close()
        return True


async def _begins_with(file: OpenFile, old: OpenFile, before: ObjectVersion) -> bool:
    """Whether ``file`` begins with all bytes of a version.

    Raises:
        StoreError: bytes of the new version could not be read.
    """
    etag = before.etag.strip('"')
    return (_MD5.fullmatch(etag) is not None and await _md5(file, before.size) == etag) or (
        await _is_same(file, old, before.size)
    )


async def _md5(file: OpenFile, size_bytes: int) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for offset in range(0, size_bytes, _STEP_BYTES):
        digest.update(await file.read(offset, min(_STEP_BYTES, size_bytes - offset)))
    return digest.hexdigest()


async def _is_same(file: OpenFile, old: OpenFile, size_bytes: int) -> bool:
    """Whether two files begin alike, as far as known here: the store no longer has the old one."""
    for offset in range(0, size_bytes, _STEP_BYTES):
        size = min(_STEP_BYTES, size_bytes - offset)
        try:
            known = bytes(await old.read(offset, size))
        except (VersionChangedError, ObjectMissingError):
            return False
        if len(known) < size or await file.read(offset, size) != known:
            return False
    return True
