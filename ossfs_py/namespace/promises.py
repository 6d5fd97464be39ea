"""What a rename tells to whom: the journal, the open files, and the program that waits for it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeAlias

from ossfs_py.model import ObjectVersion
from ossfs_py.namespace.inode import Inode


class RenameLog(Protocol):
    """Remembers across a crash which directories are being renamed. Methods block shortly."""

    def record_rename(
        self,
        old_prefix: str,
        new_prefix: str,
        *,
        is_copied: bool,
        over_directory: bool,
        etags: Mapping[str, str],
        is_promised: bool,
        durable: bool,
    ) -> None:
        """Copies below ``new_prefix``, where nothing is yet but perhaps an empty directory, begin
        now; or ``is_copied``: they are made, and from now on the rename counts. ``etags`` has those
        of copies of what is open, by those of what was copied. ``is_promised``: the rename counts
        in any case. Without ``durable`` it survives the daemon, but perhaps no power loss.
        """
        ...

    def forget_rename(self, old_prefix: str) -> None:
        """It is over, one way or the other."""
        ...


OnCopied: TypeAlias = Callable[[list[tuple[Inode, ObjectVersion, ObjectVersion]]], Awaitable[None]]
"""Called with inodes, the version that was copied, and the copy: the bytes are the same. Of a
directory, only with those that are open."""
OnMoved: TypeAlias = Callable[[], Awaitable[None]]
"""Told that an inode, and all below it, have their new names. A rename of a directory is
remembered until this has returned."""


class Promise(Protocol):
    """What a program is told before the store has its rename."""

    def is_made(self) -> None:
        """The rename will be carried out, now or by the next mount."""
        ...

    async def keep_file(self, version: ObjectVersion, new_key: str) -> None:
        """Remember across a crash that an object is a file's whose key is ``new_key`` now.

        Raises:
            OSError: the journal cannot be written.
        """
        ...

    async def forget_file(self) -> None:
        """It is over, one way or the other."""
        ...
