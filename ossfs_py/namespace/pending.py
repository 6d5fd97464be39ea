"""Blocking calls in flight whose answers several tasks may wait for."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, cast

import outcome
import trio

from ossfs_py.runtime.workers import Workers

A = TypeVar("A")
T = TypeVar("T")


class Pending(Generic[T]):
    """One call on a worker thread. A waiter that is cancelled leaves it running for the others."""

    __slots__ = ("_event", "_on_settled", "_outcome")

    def __init__(
        self,
        workers: Workers,
        call: Callable[[], T],
        *,
        urgent: bool = True,
        on_settled: Callable[[], None] | None = None,
    ) -> None:
        self._event = trio.Event()
        self._outcome: outcome.Outcome[T] | None = None
        self._on_settled = on_settled
        workers.submit(call, self._settle, urgent=urgent)

    @property
    def settled(self) -> bool:
        """Whether the call has ended."""
        return self._outcome is not None

    @property
    def error(self) -> BaseException | None:
        """Why a call that has ended failed, without raising it: raised, it refers to all that is
        in the frames above, this among them.
        """
        return self._outcome.error if isinstance(self._outcome, outcome.Error) else None

    def when_settled(self, callback: Callable[[], None]) -> None:
        """Call back on the trio thread once the call has ended; set once, before that."""
        self._on_settled = callback

    def result(self) -> T:
        """The result, or the exception, of a call that has ended."""
        # unwrap() works once; this answer is for any number of tasks.
        if isinstance(self._outcome, outcome.Error):
            raise self._outcome.error
        assert isinstance(self._outcome, outcome.Value)  # noqa: S101 - ended, says the caller
        return cast(T, self._outcome.value)

    async def wait_settled(self) -> None:
        """Wait until the call has ended, however it ended."""
        await self._event.wait()

    async def wait(self) -> T:
        """The call's result, or its exception."""
        if self._outcome is None:
            await self._event.wait()
        return self.result()

    def _settle(self, result: outcome.Outcome[Any]) -> None:
        self._outcome = result
        self._event.set()
        on_settled, self._on_settled = self._on_settled, None  # it may hold what holds this
        if on_settled is not None:
            on_settled()


async def map_bounded(
    workers: Workers,
    call: Callable[[A], T],
    items: Iterable[A],
    *,
    limit: int,
    progress: Callable[[int], None] | None = None,
) -> list[T]:
    """``call`` for every item, ``limit`` at a time, behind urgent work; results in item order.

    The first failure stops the making of further calls and is raised once the calls already made
    have ended. Cancelled, those run to their end unwatched.
    """
    window: deque[Pending[T]] = deque()
    results: list[T] = []

    async def collect() -> None:
        results.append(await window.popleft().wait())
        if progress is not None:
            progress(len(results))

    try:
        for item in items:
            if len(window) >= limit:
                await collect()
            window.append(Pending(workers, lambda item=item: call(item), urgent=False))  # type: ignore[misc]
        while window:
            await collect()
    except Exception:
        for pending in window:
            await pending.wait_settled()
        raise
    return results
