"""What a program does with a small file that it makes or reads, as far as that waits for nothing.

tar, git and pip make eight or more such calls for each file. None of them needs a coroutine while
write-back takes the file: the journal has the answer before the call returns. Each method here has
done it all, or nothing; then the ordinary one of :class:`Filesystem` is called, which also finds
out what is wrong. Who reads small files opens and closes each of them. Daemons of ``--restarts``
make ordinary calls only.
"""

import trio

from ossfs_py.filesystem.changes import Changes
from ossfs_py.filesystem.handles import Handles
from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.filesystem.owedentries import OwedEntries
from ossfs_py.filesystem.replies import EntryReply, OpenReply, Replies
from ossfs_py.model import NO_CHANGE, AttributeChange
from ossfs_py.namespace import names
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.namespace import Namespace


class AtOnce:
    """Calls without a coroutine. Belongs to the trio thread."""

    def __init__(
        self,
        namespace: Namespace,
        handles: Handles,
        changes: Changes,
        owed: OwedEntries,
        kernel: KernelCache,
        replies: Replies,
    ) -> None:
        self._namespace = namespace
        self._handles = handles
        self._changes = changes
        self._owed = owed
        self._kernel = kernel
        self._replies = replies
        self._protection = changes.protection
        self.flush = handles.flush_nowait
        """close(2) of a descriptor; False: nothing has happened."""
        self.release = handles.release_nowait
        """The last descriptor of an open(2) is gone; False: nothing has happened."""

    def open(self, number: int, flags: int, uid: int) -> OpenReply | None:
        """As :meth:`Filesystem.open`, for reading, of what is known; None: nothing has happened.

        Raises:
            FilesystemError: nothing has happened.
        """
        return self._handles.open_nowait(self._namespace.inode(number), flags, uid)

    def make_directory(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int
    ) -> EntryReply | None:
        """As :meth:`Filesystem.make_directory`; None: nothing has happened.

        Raises:
            FilesystemError: nothing has happened.
        """
        if not self._may_make:
            return None
        directory, began = self._namespace.inode(parent), trio.current_time()
        if self._changes.waits_within(directory):
            return None
        decoded = names.decode(name)
        made = self._owed.make_directory_nowait(directory, decoded, mode, uid, gid)
        return None if made is None else self._introduced(made, began)

    def create(
        self, parent: int, name: bytes, mode: int, flags: int, uid: int, gid: int
    ) -> tuple[OpenReply, EntryReply] | None:
        """As :meth:`Filesystem.create`, of a name that is not known; None: nothing has happened.

        Raises:
            FilesystemError: nothing has happened.
        """
        namespace = self._namespace
        if not self._may_make:
            return None
        directory, decoded = namespace.inode(parent), names.decode(name)
        if namespace.known_child(directory, decoded) is not None:
            return None
        began = trio.current_time()
        opened, inode = self._handles.make(directory, decoded, mode, flags, uid, gid)
        return opened, self._introduced(inode, began)

    @property
    def _may_make(self) -> bool:
        return not (
            self._handles.witness is not None
            or self._protection.read_only
            or self._namespace.moves.current
            or not self._kernel.is_calm  # or the reply might have to wait
        )

    def _introduced(self, inode: Inode, began: float) -> EntryReply:
        """A reply that gives the kernel a reference to what was made."""
        reply = self._replies.known(inode, began, began)
        self._namespace.remember(inode)
        return reply

    def set_attributes(
        self, number: int, change: AttributeChange, *, kills: bool
    ) -> EntryReply | None:
        """As :meth:`Filesystem.set_attributes`, of what is not stored; None: nothing has
        happened, or it has to be done again. ``kills``: set-id bits have to be cleared.

        Raises:
            OssfsError: nothing has happened.
        """
        inode = self._namespace.inode(number)
        if (
            self._protection.read_only
            or self._protection.forbids("overwrite")
            or change == NO_CHANGE
            or (kills and self._handles.mode_without_rights(inode) is not None)
        ):
            return None
        began = trio.current_time()
        if inode.kind is Kind.FILE:
            is_done = self._changes.set_attributes_nowait(inode, change)
        else:
            is_done = (
                self._handles.witness is None
                and not self._changes.waits_within(inode)
                and self._owed.change_nowait(inode, change)
            )
        if not is_done:
            return None
        return self._replies.fresh_nowait(inode, began)
