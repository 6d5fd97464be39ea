"""Threads that copy long answers into the kernel, so that nobody else waits for that.

The copy holds no lock, but waking a thread does: 15 to 60 us a time on two cores, as the kernel
often lets it run in place of the one that wakes it and still has the lock. So an answer is held
until the next request is looked for. If there is none, the trio thread sends it itself, and wakes
nobody.
"""

import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

from ossfs_py.errors import is_mount_gone, is_withdrawn
from ossfs_py.runtime.scattered import Answer, Scattered
from ossfs_py.runtime.slabs import LentMemory

log = logging.getLogger(__name__)

_WORTH_A_THREAD_BYTES: Final = 128 * 1024
"""The kernel's readahead where nobody has set it: answers of streams are left to threads, as the
trio thread has more to do. Shorter answers cost more with a thread than without: waking it takes
18 us, and Python's lock changes hands four times.
"""
_MOST_HELD_BYTES: Final = 1024**2
"""Copied in 0.1 to 0.2 ms: the trio thread answers nobody meanwhile."""
_MOST_THREADS = 8
"""A core copies 6 to 10 GB/s into the kernel: 400 Gbit/s need this many."""

_Waiting: TypeAlias = tuple[bytes, Answer, Sequence[LentMemory]]
"""Header, data, and the memory that the data lies in."""


def thread_count(cores: int) -> int:
    """Number of threads on a machine with so many cores."""
    return max(1, min(_MOST_THREADS, cores))


class ReplyThreads:
    """Writes answers to the kernel's descriptor, in any order.

    ``failed`` is called with the exception that ends one, in that thread, or that keeps an answer
    from being sent.
    """

    def __init__(self, device: int, count: int, failed: Callable[[BaseException], None]) -> None:
        self._device = device
        self._failed = failed
        self._answers: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._held: _Waiting | None = None
        """What the trio thread sends itself if no other request has come."""
        self._threads = [
            threading.Thread(target=self._work, name=f"reply-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, header: bytes, data: Answer) -> None:
        """Send ``header`` and ``data``, at once or soon; their memory must not be reused before.

        Belongs to the trio thread, as do the next three.
        """
        if len(data) < _WORTH_A_THREAD_BYTES:
            write_answer(self._device, header, data)
        else:
            self._answers.put((header, data, _lent(data)))

    def hold(self, header: bytes, data: Answer) -> None:
        """As :meth:`put`, but the answer may wait for :meth:`send_held` or :meth:`pass_held`. One
        that was held before goes to a thread.
        """
        if not _WORTH_A_THREAD_BYTES <= len(data) <= _MOST_HELD_BYTES:
            self.put(header, data)
            return
        self.pass_held()
        self._held = (header, data, _lent(data))

    def send_held(self) -> bool:
        """Send the answer that is held, in this thread; False: none is."""
        held, self._held = self._held, None
        if held is None:
            return False
        try:
            self._send(*held)
        except BaseException as exc:  # noqa: BLE001 - as in a thread
            self._failed(exc)
        return True

    def pass_held(self) -> None:
        """Leave the answer that is held to a thread."""
        held, self._held = self._held, None
        if held is not None:
            self._answers.put(held)

    def close(self) -> None:
        """Return when every answer is written, has taken too long, or no thread is left to write
        it.
        """
        self.pass_held()
        for _thread in self._threads:
            self._answers.put(None)
        for thread in self._threads:
            thread.join(timeout=5)
        with suppress(queue.Empty):
            while True:
                answer = self._answers.get_nowait()
                for memory in answer[2] if answer is not None else ():
                    memory.hand_back()

    def _work(self) -> None:
        try:
            while (answer := self._answers.get()) is not None:
                self._send(*answer)
                # Nothing here may keep a reference to memory that was given back.
                del answer
        except BaseException as exc:  # noqa: BLE001 - whoever reads would wait for ever
            self._failed(exc)

    def _send(self, header: bytes, data: Answer, lent: Sequence[LentMemory]) -> None:
        try:
            write_answer(self._device, header, data)
        finally:
            for memory in lent:
                memory.hand_back()


def _lent(data: Answer) -> Sequence[LentMemory]:
    """The memory that ``data`` lies in, lent until it is handed back."""
    lent: Sequence[LentMemory] = ()
    if isinstance(data, memoryview):
        if isinstance(data.obj, LentMemory):
            lent = (data.obj,)
    elif isinstance(data, Scattered):
        lent = [view.obj for view in data.views if isinstance(view.obj, LentMemory)]
    for memory in lent:
        memory.lend()
    return lent


def write_answer(device: int, header: bytes, data: Answer = b"") -> None:
    """Send an answer to the kernel; drop it if nobody waits for it any more."""
    try:
        if isinstance(data, Scattered):
            os.writev(device, (header, *data.views))
        elif data:
            os.writev(device, (header, data))
        else:
            os.write(device, header)
    except OSError as exc:
        if is_withdrawn(exc) or is_mount_gone(exc):
            log.debug("nobody waits for an answer any more: %s", exc.strerror)
        else:
            log.error("the kernel refused an answer of %d bytes: %s", len(data), exc.strerror)  # noqa: TRY400
