"""What contents have in common that keep all new bytes on this machine until they are committed."""

from collections.abc import Callable

from ossfs_py.writing.content import Target
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.staging import Staging


class LocalContent:
    """The part of :class:`Content` that is the same for :class:`SmallContent` and
    :class:`DiskContent`: none of their bytes is in an unfinished upload only.
    """

    def __init__(
        self, context: WriteContext, target: Target, writer: Callable[[], int], *, changed: bool
    ) -> None:
        """``target`` tells how the file will be committed, None if nobody will; ``writer`` tells
        which user's bytes those are that are written at the moment.
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
        """Never: all bytes are here or in an object."""
        return False

    @property
    def lost(self) -> bool:
        """Never, for the same reason."""
        return False

    @property
    def streaming(self) -> bool:
        """Never: what was sent is here as well."""
        return False

    def _staging_now(self, ident: str = "") -> Staging:
        """A staging file that is made at once, on this thread; ``ident`` as of
        :meth:`Journal.create_staging`.
        """
        context = self._context
        fresh = context.journal.create_staging(ident)
        return Staging(context.journal, context.local, fresh, context.room, self._writer)
