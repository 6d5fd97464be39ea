"""Descriptors that were opened on a symbolic link, before anybody knew that it is one.

s3fs keeps a link as an object whose content is its target and whose metadata says that it is a
link; LIST tells neither. So what was listed as a small file may turn out to be a link when its
first bytes come, and its metadata with them. Nobody is given the target as content: the descriptor
goes on with the file that the link leads to, as if it had been followed at open(2). The kernel,
which would have done that, has not asked whether the program may read that file; so we do. Where
the answer is not a plain yes the program is told ESTALE, and whoever opens the path again goes
through the kernel.
"""

import stat
from collections.abc import Iterable

from ossfs_py.errors import FilesystemError, VersionChangedError
from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.filesystem.openinode import OpenInode
from ossfs_py.filesystem.openinodes import Opener
from ossfs_py.model import Attributes, ObjectInfo
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.namespace import Namespace

_ROOT_USER = 0
"""Reads everything, as far as the kernel is concerned."""


class LinkFollower:
    """Belongs to the trio thread."""

    def __init__(self, namespace: Namespace, opener: Opener, kernel: KernelCache) -> None:
        self._namespace = namespace
        self._opener = opener
        self._kernel = kernel

    async def settle(self, opened: OpenInode, readers: Iterable[int]) -> bool:
        """Before the first bytes of what may be a link are given to ``readers``, the users who
        have it open: see that it is a file, or go on with the file that it leads to.

        Whether it is longer now than it was: the kernel is to be told, or else it would take the
        end of the link for the end of the file. The end of a shorter one it learns from the answer.

        Raises:
            VersionChangedError: it is a link, and its target is not to be read without the kernel.
            StoreError: the bytes could not be had.
        """
        inode = opened.inode
        told = await opened.file.told()
        if not opened.may_be_link:
            return False  # another READ was faster
        if told is None or not self._namespace.is_link(told):
            opened.may_be_link = False
            if told is not None:
                self._namespace.learn_kind(inode, told)
            return False
        text = bytes(await opened.file.read(0, told.size))
        target = await self._readable_target(inode, told, text, readers)
        if not opened.may_be_link:
            return False
        with self._kernel.postponed(inode):
            self._namespace.learn_kind(inode, told)
        if target is None:
            opened.superseded = True  # nor is the next READ to be given anything
            raise VersionChangedError("the file is a symbolic link", key=told.key)
        opened.may_be_link = False
        await self._opener.become(opened, target)
        return target.size > told.size

    async def _readable_target(
        self, inode: Inode, told: ObjectInfo, text: bytes, readers: Iterable[int]
    ) -> ObjectInfo | None:
        """The stored file that a link leads to, if each of the users may read it."""
        namespace = self._namespace
        try:
            passed, target = await namespace.follow(inode, told, text)
            info = await namespace.refresh_version(target)
        except FilesystemError:
            return None
        if target.size_source is not None:
            return None  # it is being written, and is not all in the store
        directories = [namespace.attributes_known(each) for each in passed]
        file = namespace.attributes_known(target)
        for uid in readers:
            if not _may(uid, file, stat.S_IROTH):
                return None
            if not all(_may(uid, each, stat.S_IXOTH) for each in directories):
                return None
        return info


def _may(uid: int, attributes: Attributes, bit: int) -> bool:
    """Whether a user may do that whatever groups it is in. ``bit`` is the one for others."""
    mode = attributes.mode
    if uid == _ROOT_USER:
        return True
    if uid == attributes.uid:
        return bool(mode & bit << 6)
    return bool(mode & bit) and bool(mode & bit << 3)
