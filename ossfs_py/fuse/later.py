"""READs of small files whose bytes are on their way: no task waits for each of them.

A handler that waits costs more than the rest of a small file's READ: its coroutines, another task
that reads requests meanwhile, a cancel scope and an event, and rounds of trio's loop. Here, what
to do at the end of the request to the store is noted, and then the READ is one of bytes in memory.
Everything else goes to the handler: what is not such a READ, what failed, and what is late.
"""

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Final, NamedTuple, Protocol

import trio

from ossfs_py.runtime.scattered import Answer

LATE_SECONDS: Final = 1.0
"""A handler asks the store once more after three seconds."""


class Read(NamedTuple):
    """One READ of the kernel; ``began`` by :func:`time.perf_counter`."""

    handle: int
    offset: int
    size: int
    began: float


class Reading(Protocol):
    """What is needed of the adapter."""

    def ask(self, fh: int, off: int, size: int, then: Callable[[], None]) -> bool:
        """Have the bytes fetched, and call ``then`` once; False: nothing has happened."""
        ...

    def read_known(self, fh: int, off: int, size: int, began: float | None = None) -> Answer | None:
        """The bytes, if they are in memory."""
        ...


class LaterReads:
    """Those of one mount. Belongs to the trio thread.

    ``answer`` sends bytes, which are valid during the call; ``handle`` has the handler do it.
    """

    def __init__(
        self,
        reading: Reading,
        answer: Callable[[int, Answer], None],
        handle: Callable[[int, Read], None],
    ) -> None:
        self._reading = reading
        self._answer = answer
        self._handle = handle
        self._waiting: dict[int, Read] = {}
        self._is_over = False
        self._begun: trio.Event | None = None
        """Set by the next READ, while nobody looks for late ones."""

    def begin(self, unique: int, handle: int, offset: int, size: int) -> bool:
        """Have a READ answered when its bytes are there; False: the handler has to do it."""
        began = perf_counter()
        if self._is_over or not self._reading.ask(
            handle, offset, size, partial(self._came, unique)
        ):
            return False
        self._waiting[unique] = Read(handle, offset, size, began)
        if self._begun is not None:
            self._begun.set()
            self._begun = None
        return True

    async def watch(self) -> None:
        """Leave what is late to its handler, until cancelled."""
        while True:
            if not self._waiting:
                self._begun = trio.Event()
                await self._begun.wait()
            await trio.sleep(LATE_SECONDS)
            self._leave_until(perf_counter() - LATE_SECONDS)

    def end(self) -> None:
        """Leave all to their handlers, which can be cancelled, and begin no more."""
        self._is_over = True
        self._leave_until(perf_counter())

    def drop(self) -> None:
        """Answer nothing any more: the mount's descriptor is about to be closed."""
        self._is_over = True
        self._waiting.clear()

    def _came(self, unique: int) -> None:
        read = self._waiting.pop(unique, None)
        if read is None:
            return  # its handler answers
        data = self._reading.read_known(*read)
        if data is None:
            self._handle(unique, read)
        else:
            self._answer(unique, data)

    def _leave_until(self, began: float) -> None:
        for unique, read in list(self._waiting.items()):
            if read.began <= began:
                del self._waiting[unique]
                self._handle(unique, read)
