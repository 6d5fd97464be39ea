"""The file system of a daemon that another one may go on for, or that goes on for another one."""

from typing import Any, NamedTuple

from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.filesystem.replies import OpenReply
from ossfs_py.filesystem.survival import Survival, sensible
from ossfs_py.model import ObjectInfo
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.namespace import DirectoryListing


class Resumed(NamedTuple):
    """How much was taken over."""

    names: int
    files: int
    directories: int


class SurvivingFilesystem(Filesystem):
    """A mounted bucket whose state is written for the daemon that comes next."""

    _unsure: frozenset[int] | set[int] = frozenset()
    """Inodes whose size the kernel was told by an earlier daemon, of a version not known here."""

    def resume(self, survival: Survival) -> Resumed:
        """Go on where an earlier daemon ended, if one has, and write from now on.

        Raises:
            SurvivalError: the records make no sense.
        """
        survival.begin(self._namespace.inodes)
        self._unsure = survival.numbers
        with sensible():
            found = survival.files()
            files = sum(self._resume_file(number, told) for number, told in found.items())
            directories = sum(
                self._resume_directory(number, inode, names)
                for number, (inode, names) in survival.directories().items()
            )
        survival.forget_found()
        self._handles.witness = survival
        self._directories.witness = survival
        self._opener.on_moved = self._handles.moved_on
        return Resumed(len(self._unsure), files, directories)

    async def open(self, number: int, flags: int, uid: int) -> OpenReply:
        """open(2) by a user."""
        if number in self._unsure:
            # What is opened may be longer than the version that the kernel knows the size of.
            await self._kernel.expire_attributes(number)
            self._unsure = self._unsure - {number}
        return await super().open(number, flags, uid)

    def _resume_file(self, number: int, told: dict[str, Any]) -> bool:
        self._numbers.skip(number)
        inode = self._namespace.inodes.find(told["inode"])
        if inode is None:
            return False
        inode.info = ObjectInfo(
            key=told["key"],
            size=told["size"],
            etag=told["etag"],
            mtime_ns=told["mtime_ns"],
            version_id=told["version_id"],
            pinned=told["version_id"] is not None,
        )
        inode.size_told = inode.info.size
        opened = self._opener.adopt(inode, inode.info.version)
        opened.may_be_link = told["may_be_link"]
        self._handles.adopt_reader(number, opened, told["uid"])
        return True

    def _resume_directory(self, number: int, inode_number: int, names: dict[int, str]) -> bool:
        self._numbers.skip(number)
        inode = self._namespace.inodes.find(inode_number)
        if inode is None:
            return False
        listing = self._namespace.list_directory(inode)
        self._directories.adopt(number, ResumedListing(listing, names))
        return True


class ResumedListing:
    """An open directory that an earlier daemon had handed out entries of.

    The listing is begun anew. ``names`` are those that stood before the offsets it may be asked
    from: what follows the name follows at the offset, whatever has come or gone before it. Where
    the name itself has gone, the offset is counted from the beginning.
    """

    def __init__(self, listing: DirectoryListing, names: dict[int, str]) -> None:
        self._listing = listing
        self._names = names
        self._shift: int | None = None
        """How much further on an entry is than it was; None: not looked at yet."""

    @property
    def directory(self) -> Inode:
        """The directory that is listed."""
        return self._listing.directory

    def rewind(self) -> None:
        """Begin again; changes made since are seen."""
        self._listing.rewind()
        self._shift = 0

    async def entries_from(self, offset: int) -> list[tuple[int, str, Inode]]:
        """A batch of (next offset, name, inode) from ``offset`` on; empty at the end.

        Raises:
            StoreError
        """
        if offset == 0:
            self.rewind()
        shift = self._shift
        if shift is None:
            shift = self._shift = await self._find(offset)
        batch = await self._listing.entries_from(max(0, offset + shift))
        return [(position - shift, name, inode) for position, name, inode in batch]

    async def _find(self, offset: int) -> int:
        wanted = self._names.get(offset)
        position = 0
        while wanted is not None and (batch := await self._listing.entries_from(position)):
            for position, name, _inode in batch:
                if name == wanted:
                    return position - offset
        return 0
