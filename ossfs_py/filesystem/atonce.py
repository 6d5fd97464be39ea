"""What a program does with a small file that it makes, as far as that waits for nothing.

tar, git and pip make eight or more such calls for each file. None of them needs a coroutine while
write-back takes the file: the journal has the answer before the call returns. Each method here has
done it all, or nothing; then the ordinary one of :class:`Filesystem` is called, which also finds
out what is wrong. Daemons of ``--restarts`` make ordinary calls only.
"""

import trio

from ossfs_py.filesystem.changes import Changes
from ossfs_py.filesystem.handles import Handles
from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.filesystem.protection import Protection
from ossfs_py.filesystem.replies import EntryReply, OpenReply, Replies
from ossfs_py.model import NO_CHANGE, AttributeChange
from ossfs_py.namespace import names
from ossfs_py.namespace.namespace import Namespace


class AtOnce:
    """Calls without a coroutine. Belongs to the trio thread."""

    def __init__(
        self,
        namespace: Namespace,
        handles: Handles,
        changes: Changes,
        kernel: KernelCache,
        replies: Replies,
        protection: Protection,
    ) -> None:
        self._namespace = namespace
        self._handles = handles
        self._changes = changes
        self._kernel = kernel
        self._replies = replies
        self._protection = protection
        self.flush = handles.flush_nowait
        """close(2) of a descriptor; False: nothing has happened."""
        self.release = handles.release_nowait
        """The last descriptor of an open(2) is gone; False: nothing has happened."""

    def create(
        self, parent: int, name: bytes, mode: int, flags: int, uid: int, gid: int
    ) -> tuple[OpenReply, EntryReply] | None:
        """As :meth:`Filesystem.create`, of a name that is not known; None: nothing has happened.

        Raises:
            FilesystemError: nothing has happened.
        """
        namespace = self._namespace
        if (
            self._handles.witness is not None
            or self._protection.read_only
            or namespace.moves.current
            or not self._kernel.is_calm  # or the reply might have to wait
        ):
            return None
        directory, decoded = namespace.inode(parent), names.decode(name)
        if namespace.known_child(directory, decoded) is not None:
            return None
        began = trio.current_time()
        opened, inode = self._handles.make(directory, decoded, mode, flags, uid, gid)
        reply = self._replies.known(inode, began, began)
        namespace.remember(inode)
        return opened, reply

    def set_attributes(
        self, number: int, change: AttributeChange, *, kills: bool
    ) -> EntryReply | None:
        """As :meth:`Filesystem.set_attributes`, of a file that is not stored; None: nothing has
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
        if not self._changes.set_attributes_nowait(inode, change):
            return None
        return self._replies.fresh_nowait(inode, began)
