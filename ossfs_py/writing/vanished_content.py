"""The content of a file whose bytes were lost with the daemon that had them in memory."""

import hashlib
from pathlib import Path
from typing import NoReturn

from ossfs_py.errors import UnsavedDataError
from ossfs_py.model import CommitRequest, Condition, ObjectVersion
from ossfs_py.runtime.arrived import Arrived
from ossfs_py.writing.content import Base, LentFile
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.records import DirtyRecord

WHY = "its bytes were in memory only when the daemon of the mount died"


class VanishedContent:
    """Implements :class:`Content`: only a size, until the file is written anew.

    Requests for its bytes, or for adding bytes, are refused: programs would take zeros in their
    place for the file.
    """

    base: Base | None = None
    made: ObjectVersion | None = None
    changed = True
    bound = lost = streaming = all_here = False

    def __init__(self, journal: Journal, size: int, owner: str) -> None:
        """``owner`` is the owner of the open file, across daemons; the loss is reported once."""
        self._journal = journal
        self.size = size
        self._ident = hashlib.sha256(owner.encode()).hexdigest()[:32]

    def view(self, position: int, end: int) -> memoryview | None:  # noqa: ARG002 - the protocol's
        """None: there are no bytes."""
        return None

    async def piece(self, position: int, end: int) -> bytes | memoryview | None:
        """Refused, like all other requests."""
        self._refuse(position, end)

    async def write(self, offset: int, data: memoryview, arrived: Arrived | None = None) -> int:
        """Refused."""
        self._refuse(offset, data, arrived)

    def write_nowait(self, offset: int, data: memoryview, arrived: Arrived | None = None) -> bool:  # noqa: ARG002
        """False: :meth:`write` refuses it."""
        return False

    async def truncate(self, size: int) -> bool:
        """Refused, unless the new size is 0, which the owner handles."""
        self._refuse(size)

    async def on_disk(self) -> "VanishedContent":
        """Refused."""
        self._refuse()

    async def secure(self, request: CommitRequest) -> bool:
        """Refused."""
        self._refuse(request)

    async def redescribe(self, request: CommitRequest) -> None:
        """Does nothing: nothing is kept."""

    async def commit(self, request: CommitRequest, condition: Condition) -> ObjectVersion | None:
        """Refused."""
        self._refuse(request, condition)

    def committed(self, version: ObjectVersion) -> "VanishedContent":
        """Never called: none of it is stored."""
        self._refuse(version)

    def rebase(self, version: ObjectVersion) -> None:
        """Does nothing: no byte is read from an object."""

    def lend(self) -> LentFile | None:
        """None: there are no bytes."""
        return None

    def disown(self) -> None:
        """Does nothing: none of it is stored anyway."""

    def set_aside(self, request: CommitRequest, seen: ObjectVersion | None) -> Path:
        """Leave a record that says which bytes are missing."""
        record = DirtyRecord.of(self._ident, request)
        return self._journal.set_aside(
            record.replaced(base=seen, size=self.size, reason=WHY, vanished=True)
        )

    def close(self) -> None:
        """Does nothing: it holds no resources."""

    def _refuse(self, *_asked: object) -> NoReturn:
        raise UnsavedDataError(f"{WHY}: it has to be written from its beginning")
