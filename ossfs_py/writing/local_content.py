"""The common part of contents that keep all new bytes on this machine until they are committed."""

from collections.abc import Callable

from ossfs_py.writing.content import Target
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.staging import Staging


class LocalContent:
    """The part of :class:`Content` that is the same for :class:`SmallContent` and
    :class:`DiskContent`: no byte is only in an unfinished upload.
    """

    def __init__(
        self, context: WriteContext, target: Target, writer: Callable[[], int], *, changed: bool
    ) -> None:
        """``target`` returns the commit request for the file, None if nobody will commit it;
        ``writer`` returns the user whose bytes are being written.
        """
        self._context = context
        self._target = target
        self._writer = writer
        self._changed = changed
        self._secured = False
        """Whether the journal has it as a whole file."""
        self._disowned = False

    @property
    def changed(self) -> bool:
        """Whether the store has other bytes, or none, under the file's key."""
        return self._changed

    @property
    def bound(self) -> bool:
        """Always False: all bytes are here or in an object."""
        return False

    @property
    def lost(self) -> bool:
        """Always False, for the same reason."""
        return False

    @property
    def streaming(self) -> bool:
        """Always False: bytes that were sent are here as well."""
        return False

    def _staging_now(self, ident: str = "") -> Staging:
        """A staging file that is made at once, on this thread; ``ident`` as for
        :meth:`Journal.create_staging`.
        """
        context = self._context
        fresh = context.journal.create_staging(ident)
        return Staging(context.journal, context.local, fresh, context.room, self._writer)
