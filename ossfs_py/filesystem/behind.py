"""Work that goes on after its caller stopped waiting."""

import logging
from collections.abc import Awaitable, Callable

import outcome
import trio

from ossfs_py.errors import OssfsError

log = logging.getLogger(__name__)


class BackgroundCall:
    """A call that runs in a task of its own."""

    def __init__(self, call: Callable[[], Awaitable[None]]) -> None:
        self._call = call
        self._done = trio.Event()
        self._outcome: outcome.Outcome[None] | None = None
        self._is_awaited = False

    async def wait(self) -> None:
        """Wait until the call has ended. If the wait is cancelled, the call goes on.

        Raises:
            Whatever the call raised.
        """
        self._is_awaited = True
        try:
            await self._done.wait()
        except BaseException:
            self._is_awaited = False
            raise
        if isinstance(self._outcome, outcome.Error):
            raise self._outcome.error

    async def run(self) -> None:
        """Make the call. The task runs this."""
        try:
            self._outcome = await outcome.acapture(self._call)
            if isinstance(self._outcome, outcome.Error):
                self._tell(self._outcome.error)
        finally:
            self._done.set()

    def _tell(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            raise error
        if self._is_awaited:
            return
        if isinstance(error, OssfsError | OSError):
            log.warning("%s; nobody was waiting for it", error)
        else:
            log.error("a call that nobody waited for failed unexpectedly", exc_info=error)


class Behind:
    """Background tasks of a mount. Belongs to the trio thread.

    The tasks belong to trio's own nursery, not to that of a request, so that they outlive the
    request.
    """

    def __init__(self) -> None:
        self._running: set[BackgroundCall] = set()
        self._lot = trio.lowlevel.ParkingLot()

    def start(self, call: Callable[[], Awaitable[None]]) -> BackgroundCall:
        """Make the call in a task of its own."""
        work = BackgroundCall(call)
        self._running.add(work)
        trio.lowlevel.spawn_system_task(self._run, work)
        return work

    async def _run(self, work: BackgroundCall) -> None:
        try:
            await work.run()
        finally:
            self._running.discard(work)
            if not self._running:
                self._lot.unpark_all()

    async def settled(self) -> None:
        """Wait until no task is running."""
        while self._running:
            await self._lot.park()
