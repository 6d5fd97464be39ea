"""Persistent threads that make blocking calls on behalf of the trio loop.

A hop through ``trio.to_thread`` costs 75-116 us; handing a job to a persistent thread and waking
the loop once for all results that are ready costs about 18 us (measured on two cores).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar, cast

import outcome
import trio

log = logging.getLogger(__name__)

T = TypeVar("T")

_START_AGAIN_SECONDS = 1.0
"""After the system had no thread to give."""

Result: TypeAlias = outcome.Outcome[Any]
Done: TypeAlias = Callable[[Result], None]
Inline: TypeAlias = Callable[[Done, Callable[[], None]], bool]
"""Begins a call without a thread, and never waits. It calls the first function with the outcome
later, or the second if a thread has to make the call after all. False: it did not begin.
"""


class Job:
    """A call that waits for a thread, or runs on one."""

    __slots__ = ("_pool", "begun", "cancelled", "fn", "inline", "on_done", "urgent")

    def __init__(
        self,
        pool: "Workers",
        fn: Callable[[], Any],
        on_done: Done,
        *,
        urgent: bool,
        inline: Inline | None,
    ) -> None:
        self._pool = pool
        self.fn = fn
        self.on_done = on_done
        self.urgent = urgent
        self.inline = inline
        self.begun = False
        self.cancelled = False

    def promote(self) -> None:
        """Let a background job overtake every other one: somebody waits for it now."""
        if not (self.urgent or self.begun or self.cancelled):
            self.urgent = True
            self._pool._urgent.append(self)

    def cancel(self) -> bool:
        """Take back a job that has not begun; False when it has (it runs to its end)."""
        if self.begun:
            return False
        self.cancelled = True
        return True


class Workers:
    """A fixed number of threads with an urgent and a background queue.

    Jobs are queued on the trio side and handed out only while a thread is free, so an urgent job
    (a reader waits) overtakes every background job (prefetch) that has not begun. All methods
    belong to the trio thread that constructed the object.
    """

    def __init__(self, name: str, count: int) -> None:
        if count < 1:
            raise ValueError("a worker pool needs at least one thread")
        self.count = count
        self.running = 0
        """Calls in progress, with a thread or without."""
        self._in_threads = 0
        self._token = trio.lowlevel.current_trio_token()
        self._urgent: deque[Job] = deque()
        self._background: deque[Job] = deque()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._finished: deque[tuple[Done, outcome.Outcome[Any]]] = deque()
        self._threads: list[threading.Thread] = []
        self._asked_threads = 0
        """How many threads there are, or will be soon."""
        self._to_start: SimpleQueue[bool] = SimpleQueue()
        """True: another thread is needed; False: none any more."""
        self._name = name
        self._closed = False
        self._starter = threading.Thread(target=self._start, name=f"{name}-starter", daemon=True)
        self._starter.start()

    @property
    def closed(self) -> bool:
        """Whether nothing can be submitted any more."""
        return self._closed

    @property
    def waiting(self) -> int:
        """Jobs that no thread has begun; promoted ones may be counted twice for a moment."""
        return len(self._urgent) + len(self._background)

    def submit(
        self,
        fn: Callable[[], Any],
        on_done: Done,
        *,
        urgent: bool = True,
        inline: Inline | None = None,
    ) -> Job:
        """Run ``fn`` on a thread, then call ``on_done`` with its outcome on the trio thread.

        ``on_done`` must neither raise nor block; it is not called for a job that was cancelled.
        ``inline`` is tried first when it is the job's turn: a thread costs more than a short call.
        """
        if self._closed:
            raise RuntimeError(f"worker pool {self._name!r} is closed")
        job = Job(self, fn, on_done, urgent=urgent, inline=inline)
        (self._urgent if urgent else self._background).append(job)
        self._dispatch()
        return job

    async def run(
        self, fn: Callable[..., T], *args: Any, urgent: bool = True, inline: Inline | None = None
    ) -> T:
        """Call ``fn(*args)`` on a thread and return its result or raise its exception.

        ``inline`` as of :meth:`submit`.

        Cancelled while the job waits for a thread, the job never runs; cancelled later, it runs
        to its end and its outcome is dropped.
        """
        task = trio.lowlevel.current_task()
        waiting = True

        def on_done(result: Result) -> None:
            if waiting:
                trio.lowlevel.reschedule(task, result)

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            nonlocal waiting
            waiting = False
            job.cancel()
            return trio.lowlevel.Abort.SUCCEEDED

        call = partial(fn, *args) if args else fn
        job = self.submit(call, on_done, urgent=urgent, inline=inline)
        return cast(T, await trio.lowlevel.wait_task_rescheduled(abort))

    async def run_to_end(self, fn: Callable[..., T], *args: Any, inline: Inline | None = None) -> T:
        """As :meth:`run`, waited for even when cancelled; ``inline`` as of :meth:`submit`.

        A shielded cancel scope around :meth:`run` does the same and takes half as long again.
        """
        task = trio.lowlevel.current_task()

        def on_done(result: Result) -> None:
            trio.lowlevel.reschedule(task, result)

        self.submit(partial(fn, *args) if args else fn, on_done, inline=inline)
        return cast(T, await trio.lowlevel.wait_task_rescheduled(_not_now))

    def tell(self, fn: Callable[[], None]) -> None:
        """Call ``fn``, which must neither raise nor block, on the trio thread; for any thread."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(fn)

    def close(self) -> None:
        """Let the threads end after the jobs they have begun; queued jobs never run."""
        self._closed = True
        self._urgent.clear()
        self._background.clear()
        self._jobs.put(None)
        self._to_start.put(False)

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the threads after :meth:`close`; whether all of them ended in time."""
        self._starter.join(timeout_seconds)  # it adds to the threads
        for thread in self._threads:
            thread.join(timeout_seconds)
        return not any(thread.is_alive() for thread in (self._starter, *self._threads))

    def _dispatch(self) -> None:
        while self.running < self.count:
            if self._urgent:
                job = self._urgent.popleft()
            elif self._background:
                job = self._background.popleft()
            else:
                return
            if job.begun or job.cancelled:
                continue  # promoted jobs stand in both queues
            job.begun = True
            self.running += 1
            to_thread = partial(self._to_thread, job)
            if job.inline is None or not job.inline(partial(self._ended, job.on_done), to_thread):
                to_thread()

    def _to_thread(self, job: Job) -> None:
        if self._closed:
            return  # as for a job that waits in a queue
        self._in_threads += 1
        # A thread whose call has ended takes the next one before the trio thread hears of it.
        if self._in_threads - len(self._finished) > self._asked_threads:
            self._asked_threads += 1
            self._to_start.put(True)
        self._jobs.put(job)

    def _start(self) -> None:
        """Start threads. ``Thread.start`` waits until the new thread has run, which takes as long
        as it does to get a processor: the trio thread must not.
        """
        while self._to_start.get():
            name = f"{self._name}-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            while not self._has_started(thread) and not self._closed:
                time.sleep(_START_AGAIN_SECONDS)

    def _has_started(self, thread: threading.Thread) -> bool:
        try:
            thread.start()
        except RuntimeError as exc:
            log.error("no thread %s: %s", thread.name, exc)  # noqa: TRY400 - no defect of ours
            return False
        self._threads.append(thread)
        return True

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            result = outcome.capture(job.fn)
            self._finished.append((job.on_done, result))
            # Frees the job's buffers while this thread waits for its next job.
            del job, result
            try:
                self._token.run_sync_soon(self._collect, idempotent=True)
            except trio.RunFinishedError:
                return
        self._jobs.put(None)  # for the next thread

    def _collect(self) -> None:
        while self._finished:
            on_done, result = self._finished.popleft()
            self._in_threads -= 1
            self._ended(on_done, result)

    def _ended(self, on_done: Done, result: Result) -> None:
        self.running -= 1
        self._dispatch()
        on_done(result)


def _not_now(_raise_cancel: object) -> trio.lowlevel.Abort:
    """A cancellation is delivered at the next checkpoint."""
    return trio.lowlevel.Abort.FAILED
