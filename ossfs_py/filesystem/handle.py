"""One descriptor of an open file, and who is told of it."""

import os
from typing import Protocol

import trio

from ossfs_py.filesystem.openinode import OpenInode


class Handle:
    """A descriptor, made by one open(2)."""

    __slots__ = (
        "appends",
        "changes",
        "flags",
        "local",
        "makes",
        "opened",
        "opened_at",
        "past_pages",
        "uid",
        "writer",
    )

    def __init__(
        self, opened: OpenInode, flags: int, uid: int, *, past_pages: bool, writer: int | None
    ) -> None:
        self.opened = opened
        self.flags = flags
        self.opened_at = trio.current_time()
        self.makes = False
        """Whether it made the file: until it is closed, its writes change no stored file."""
        self.uid = uid
        """The user who opened it."""
        self.appends = bool(flags & os.O_APPEND)
        self.writer = writer
        """The user whose share of files open for writing it counts towards; None: no user."""
        self.changes = bool(
            flags & os.O_ACCMODE != os.O_RDONLY or flags & (os.O_CREAT | os.O_TRUNC)
        )
        """Whether close(2) has something to store: creating and truncating count too."""
        self.past_pages = past_pages
        """Whether its writes bypass the kernel's page cache."""
        self.local: int | None = None
        """The kernel's number for the local file that it reads instead, if any."""


class HandleWitness(Protocol):
    """Is told of descriptors before the kernel is."""

    def opened(self, number: int, handle: Handle) -> None:
        """A descriptor is new, or its file is of another version now."""
        ...

    def released(self, number: int) -> None:
        """A descriptor was released."""
        ...
