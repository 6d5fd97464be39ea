"""Descriptors opened on a symbolic link before anybody knew that it is one.

s3fs stores a link as an object with the target as its content. Its metadata says that it is a link;
LIST shows neither. So a name listed as a small file may turn out to be a link when its first bytes
arrive, together with the metadata. No program gets the target as content: the descriptor continues
with the file that the link leads to, as if open(2) had followed it. The kernel would have checked
whether the program may read that file, and now it did not; so we check. Unless the answer is a
plain yes, the program gets ESTALE, and the next open of the path goes through the kernel.
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
"""This user may read everything, as far as the kernel is concerned."""


class LinkFollower:
    """Replaces links by the files they lead to. Belongs to the trio thread."""

    def __init__(self, namespace: Namespace, opener: Opener, kernel: KernelCache) -> None:
        self._namespace = namespace
        self._opener = opener
        self._kernel = kernel

    async def settle(self, opened: OpenInode, readers: Iterable[int]) -> bool:
        """Check a possible link before its first bytes are given to ``readers``, the users who have
        it open. If it is a link, continue with the file that it leads to.

        Returns whether the file is longer now than before. The kernel has to be told then, or else
        it would take the end of the link for the end of the file. It learns the end of a shorter
        file from the answer.

        Raises:
            VersionChangedError: it is a link, and the kernel has to check the access to its target.
            StoreError: the bytes could not be read.
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
            opened.superseded = True  # so that the next READ gets nothing either
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
            return None  # it is being written, and not all of it is in the store
        directories = [namespace.attributes_known(each) for each in passed]
        file = namespace.attributes_known(target)
        for uid in readers:
            if not _may(uid, file, stat.S_IROTH):
                return None
            if not all(_may(uid, each, stat.S_IXOTH) for each in directories):
                return None
        return info


def _may(uid: int, attributes: Attributes, bit: int) -> bool:
    """Whether a user has access, whatever its groups are. ``bit`` is the bit for others."""
    mode = attributes.mode
    if uid == _ROOT_USER:
        return True
    if uid == attributes.uid:
        return bool(mode & bit << 6)
    return bool(mode & bit) and bool(mode & bit << 3)
