"""Which calls wait for nothing: those need no protection while they wait.

These are guesses before a call. One that turns out to wait is only less protected than others: it
can be cancelled when the mount fails.
"""

from ossfs_py.datapath.base import DataPath
from ossfs_py.errors import BadHandleError
from ossfs_py.filesystem.commits import Commits
from ossfs_py.filesystem.handles import Handles
from ossfs_py.filesystem.openinodes import OpenInodes
from ossfs_py.namespace.namespace import Namespace


class Promptness:
    """Tells it for small files that write-back takes, and for new ones. Belongs to the trio
    thread.
    """

    def __init__(
        self,
        namespace: Namespace,
        opened: OpenInodes,
        handles: Handles,
        commits: Commits,
        data_path: DataPath,
    ) -> None:
        self.write = handles.write_nowait
        """Write to a descriptor, if that waits for nothing; False: nothing has happened."""
        self.room_to_land = data_path.room_to_land
        """Memory for bytes that a program is about to write; see the data path."""
        self._namespace = namespace
        self._opened = opened
        self._handles = handles
        self._commits = commits

    def of_handle(self, number: int) -> bool:
        """Whether a write, a close or the release of a descriptor waits for nothing."""
        try:
            return self._commits.flushes_at_once(self._handles.get(number).opened)
        except BadHandleError:
            return False

    def of_inode(self, number: int) -> bool:
        """Whether a change of an inode's attributes waits for nothing."""
        opened = self._opened.of_number(number)
        return opened is not None and self._commits.flushes_at_once(opened)

    def of_name(self, parent: int, name: bytes) -> bool:
        """Whether open(2) with O_CREAT waits for nothing, as no such entry is known."""
        directory = self._namespace.inodes.find(parent)
        if directory is None or self._namespace.moves.current:
            return False
        return self._namespace.known_child(directory, name.decode("utf-8", "replace")) is None

    def of_new_directory(self, parent: int, name: bytes) -> bool:
        """Whether mkdir(2) waits for nothing, as write-back takes it."""
        return self._commits.writes_back and self.of_name(parent, name)

    def of_removal(self, parent: int, name: bytes) -> bool:
        """Whether unlink(2) waits for nothing: of a stored file that nobody has open, by
        write-back.
        """
        directory = self._namespace.inodes.find(parent)
        if directory is None or not self._commits.writes_back:
            return False
        inode = self._namespace.known_child(directory, name.decode("utf-8", "replace"))
        return inode is not None and not (inode.local or inode.open_count)
