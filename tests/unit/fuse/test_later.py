"""READs that wait without a task: each is answered once, by its bytes or by its handler."""

from collections.abc import Callable

import pytest
import trio

from ossfs_py.fuse import later as later_module
from ossfs_py.fuse.later import LaterReads, Read
from ossfs_py.runtime.scattered import Answer
from tests.support.trio_tests import in_trio


class Mount:
    """The adapter, the kernel and the handlers around it."""

    def __init__(self) -> None:
        self.asks = True
        self.data: bytes | None = b"bytes"
        self.then: list[Callable[[], None]] = []
        self.answered: list[tuple[int, bytes]] = []
        self.handled: list[int] = []
        self.later = LaterReads(self, self._answer, self._handle)

    def ask(self, fh: int, off: int, size: int, then: Callable[[], None]) -> bool:
        if self.asks:
            self.then.append(then)
        return self.asks

    def read_known(
        self,
        fh: int,
        off: int,
        size: int,
        began: float | None = None,
    ) -> Answer | None:
        assert began is not None, "the wait belongs to the time that the READ took"
        return None if self.data is None else self.data[off : off + size]

    def _answer(self, unique: int, data: Answer) -> None:
        self.answered.append((unique, bytes(data) if isinstance(data, bytes) else b""))

    def _handle(self, unique: int, read: Read) -> None:
        assert (read.handle, read.offset) == (7, 0)
        self.handled.append(unique)


def test_bytes_that_come_are_the_answer() -> None:
    mount = Mount()
    assert mount.later.begin(1, 7, 0, 4)
    assert mount.later.begin(2, 7, 0, 9)
    assert mount.answered == []
    mount.then[1]()
    mount.then[0]()
    assert mount.answered == [(2, b"bytes"), (1, b"byte")]
    assert mount.handled == []


def test_what_cannot_be_asked_for_is_left_to_the_handler_at_once() -> None:
    mount = Mount()
    mount.asks = False
    assert not mount.later.begin(1, 7, 0, 4)
    mount.later.end()
    assert (mount.answered, mount.handled) == ([], [])


def test_a_request_that_failed_is_left_to_the_handler() -> None:
    mount = Mount()
    mount.data = None
    assert mount.later.begin(1, 7, 0, 4)
    mount.then[0]()
    assert (mount.answered, mount.handled) == ([], [1])


def test_the_end_leaves_all_to_their_handlers_and_begins_no_more() -> None:
    mount = Mount()
    assert mount.later.begin(1, 7, 0, 4)
    mount.later.end()
    assert not mount.later.begin(2, 7, 0, 4)
    mount.then[0]()
    assert (mount.answered, mount.handled) == ([], [1])


def test_a_closed_descriptor_gets_no_answer() -> None:
    mount = Mount()
    assert mount.later.begin(1, 7, 0, 4)
    mount.later.drop()
    mount.then[0]()
    assert not mount.later.begin(2, 7, 0, 4)
    assert (mount.answered, mount.handled) == ([], [])


@in_trio
async def test_what_is_late_is_left_to_the_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what begins after a pause in which nothing was watched."""
    monkeypatch.setattr(later_module, "LATE_SECONDS", 0.01)
    mount = Mount()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount.later.watch)
        for unique in (1, 2):
            await trio.testing.wait_all_tasks_blocked(0.03)
            assert mount.later.begin(unique, 7, 0, 4)
            with trio.fail_after(30):
                while unique not in mount.handled:  # noqa: ASYNC110 - no event tells
                    await trio.sleep(0.01)
            mount.then[-1]()  # too late: it is answered already
        nursery.cancel_scope.cancel()
    assert (mount.answered, mount.handled) == ([], [1, 2])
