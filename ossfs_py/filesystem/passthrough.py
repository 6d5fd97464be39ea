"""Files that the kernel reads for programs by itself (FUSE passthrough, Linux 6.9).

A large object that is complete on local disk, and verified there, then costs no request and no copy
here. Only read-only mounts do this: readers that bypass the daemon would not see the writes of a
program.

The kernel (fs/fuse/iomode.c) wants all descriptors of an inode to agree: either it reads all of
them from one local file, or it sends all their reads to the daemon. The first open of an inode
decides, and the others follow until the last close; else open(2) fails with EIO. A program that
bypasses the page cache (O_DIRECT) still reads through the daemon.

Such a file counts as one whose bytes were given out (``Inode.settled``). So an object that others
store under its name later is another inode, with another number. Programs with the file open keep a
complete file of the old version.
"""

import os
from dataclasses import dataclass

from ossfs_py.datapath.base import PlainFile
from ossfs_py.errors import StaleInodeError
from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.filesystem.openinode import OpenInode

_ASKING = os.O_ACCMODE | os.O_TRUNC | os.O_APPEND | os.O_DIRECT
"""Opens with one of these flags read through the daemon."""


@dataclass(slots=True)
class _Served:
    """An inode that the kernel reads by itself."""

    opened: OpenInode
    plain: PlainFile
    number: int
    """The kernel's number for the local file."""
    users: int = 0


class Passthrough:
    """The inodes that the kernel reads by itself. Belongs to the trio thread."""

    def __init__(self, kernel: KernelCache, *, is_on: bool) -> None:
        self._kernel = kernel
        self.is_on = is_on
        """Whether the kernel may read files by itself."""
        self._served: dict[int, _Served] = {}
        self._asking: dict[int, int] = {}
        """The number of descriptors of each other open inode."""

    async def joined(self, opened: OpenInode, flags: int) -> int | None:
        """For a new descriptor, the kernel's number for the local file that it reads; None if it
        has to read through the daemon, which :meth:`asks` counts. Pair with :meth:`left`.

        Raises:
            StaleInodeError: the kernel reads another version of the inode.
        """
        if not self.is_on:
            return None
        inode = opened.inode
        served = self._served.get(inode.number)
        if served is None and not flags & _ASKING and inode.number not in self._asking:
            await self._begin(opened)
            served = self._served.get(inode.number)
        if served is None:
            return None
        if served.opened is not opened:
            raise StaleInodeError(f"{inode.name!r} is another version now")
        served.users += 1
        inode.settled = True
        return served.number

    def asks(self, opened: OpenInode) -> None:
        """A new descriptor reads through the daemon."""
        if self.is_on:
            number = opened.inode.number
            self._asking[number] = self._asking.get(number, 0) + 1

    def left(self, opened: OpenInode, local: int | None) -> None:
        """A descriptor is gone, for which :meth:`joined` returned ``local``."""
        number = opened.inode.number
        if local is None:
            asking = self._asking.get(number, 0) - 1
            if asking > 0:
                self._asking[number] = asking
            else:
                self._asking.pop(number, None)
            return
        served = self._served[number]
        served.users -= 1
        if not served.users:
            del self._served[number]
            self._end(served)

    def close(self) -> None:
        """Nothing is open any more."""
        while self._served:
            self._end(self._served.popitem()[1])

    async def _begin(self, opened: OpenInode) -> None:
        """Let the kernel read the inode by itself, if that is possible."""
        plain = await opened.file.plain()
        if plain is None:
            return
        number = opened.inode.number
        local = None
        # Others may have opened it in the meantime, in either way.
        if number not in self._served and number not in self._asking and not opened.superseded:
            local = self._kernel.reads_itself(plain.fd)
        if local is None:
            plain.close()
        else:
            self._served[number] = _Served(opened, plain, local)

    def _end(self, served: _Served) -> None:
        self._kernel.reads_no_more(served.number)
        served.plain.close()
