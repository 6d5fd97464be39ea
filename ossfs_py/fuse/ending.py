"""READs that wait for the store, which end when the mount does."""

from collections.abc import Awaitable
from typing import TypeVar

import trio

from ossfs_py.errors import MountEndedError

R = TypeVar("R")


class EndableReads:
    """The READs of one mount that wait. Belongs to the trio thread."""

    def __init__(self) -> None:
        self._waiting: set[trio.CancelScope] = set()
        self._is_ended = False

    async def waited_for(self, read: Awaitable[R]) -> R:
        """The result of ``read``.

        Raises:
            MountEndedError: :meth:`end` was called.
        """
        with trio.CancelScope() as waiting:
            self._waiting.add(waiting)
            if self._is_ended:
                waiting.cancel()
            try:
                return await read
            finally:
                self._waiting.discard(waiting)
        raise MountEndedError("the mount was taken down")

    def end(self) -> None:
        """No program is left to read: cancel reads that still wait for the store.

        The kernel's own readahead outlives the file that it was for. It could keep an unmounted
        mount alive for as long as requests to an unavailable store are retried.
        """
        self._is_ended = True
        for waiting in self._waiting:
            waiting.cancel()
