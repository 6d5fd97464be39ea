"""Threads that copy long answers into the kernel, so that the copy does not hold the lock."""

import logging
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias

from ossfs_py.errors import is_mount_gone, is_withdrawn
from ossfs_py.runtime.slabs import LentMemory

log = logging.getLogger(__name__)

WORTH_A_THREAD_BYTES: Final = 128 * 1024
"""The kernel's readahead where nobody has set it: answers of streams are left to threads, as the
trio thread has more to do. Shorter answers cost more with a thread than without: waking it takes
18 us, and Python's lock changes hands four times.
"""
_MOST_THREADS = 8
"""A core copies 6 to 10 GB/s into the kernel: 400 Gbit/s need this many."""

_Answer: TypeAlias = tuple[bytes, memoryview | bytes, LentMemory | None]


def thread_count(cores: int) -> int:
    """Number of threads on a machine with so many cores."""
    return max(1, min(_MOST_THREADS, cores))


class ReplyThreads:
    """Writes answers to the kernel's descriptor, in any order.

    ``failed`` is called in a thread, with the exception that ends it.
    """

    def __init__(self, device: int, count: int, failed: Callable[[BaseException], None]) -> None:
        self._device = device
        self._failed = failed
        self._answers: queue.SimpleQueue[_Answer | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"reply-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, header: bytes, data: memoryview | bytes) -> None:
        """Send ``header`` and ``data`` soon; their memory must not be reused before that.

        Belongs to the trio thread.
        """
        memory = data.obj if isinstance(data, memoryview) else None
        if isinstance(memory, LentMemory):
            memory.lend()
            self._answers.put((header, data, memory))
        else:
            self._answers.put((header, data, None))

    def close(self) -> None:
        """Return when every answer is written, has taken too long, or no thread is left to write
        it.
        """
        for _thread in self._threads:
            self._answers.put(None)
        for thread in self._threads:
            thread.join(timeout=5)
        with suppress(queue.Empty):
            while True:
                answer = self._answers.get_nowait()
                if answer is not None and answer[2] is not None:
                    answer[2].hand_back()

    def _work(self) -> None:
        try:
            while (answer := self._answers.get()) is not None:
                header, data, memory = answer
                try:
                    write_answer(self._device, header, data)
                finally:
                    # Nothing here may keep a reference to memory that was given back.
                    del answer, data
                    if memory is not None:
                        memory.hand_back()
        except BaseException as exc:  # noqa: BLE001 - whoever reads would wait for ever
            self._failed(exc)


def write_answer(device: int, header: bytes, data: memoryview | bytes = b"") -> None:
    """Send an answer to the kernel; drop it if nobody waits for it any more."""
    try:
        if data:
            os.writev(device, (header, data))
        else:
            os.write(device, header)
    except OSError as exc:
        if is_withdrawn(exc) or is_mount_gone(exc):
            log.debug("nobody waits for an answer any more: %s", exc.strerror)
        else:
            log.error("the kernel refused an answer of %d bytes: %s", len(data), exc.strerror)  # noqa: TRY400
