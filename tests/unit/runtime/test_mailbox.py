"""Work that is handed to threads."""

import os
import threading
from collections import Counter

import pytest

from ossfs_py.runtime.mailbox import Mailbox

THREADS, ITEMS = 4, 20_000
WAIT_SECONDS = 60


def test_each_item_is_taken_once_by_threads_that_sleep_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mailbox: Mailbox[int | None] = Mailbox()
    seen: list[Counter[int]] = [Counter() for _ in range(THREADS)]
    taken = threading.Semaphore(0)
    opened: list[int] = []
    closed: list[int] = []
    make, close = os.eventfd, os.close

    def noted_make(initial: int, flags: int) -> int:
        opened.append(made := make(initial, flags))
        return made

    def noted_close(descriptor: int) -> None:
        closed.append(descriptor)
        close(descriptor)

    monkeypatch.setattr(os, "eventfd", noted_make)
    monkeypatch.setattr(os, "close", noted_close)

    def take(mine: Counter[int]) -> None:
        for item in mailbox.taken():
            if item is None:
                return
            mine[item] += 1
            taken.release()

    threads = [threading.Thread(target=take, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    for item in range(ITEMS):
        mailbox.put(item)
        if item % 5 == 0:  # all may be asleep before the next one comes
            assert taken.acquire(timeout=WAIT_SECONDS)
    for _ in range(ITEMS - ITEMS // 5):
        assert taken.acquire(timeout=WAIT_SECONDS)
    for _ in threads:
        mailbox.put(None)
    for thread in threads:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
    assert sum(seen, Counter()) == Counter(range(ITEMS))
    assert len(opened) == THREADS
    assert set(opened) <= set(closed)


def test_items_put_by_several_threads_all_arrive() -> None:
    mailbox: Mailbox[int] = Mailbox()
    putters = [
        threading.Thread(target=lambda: [mailbox.put(1) for _ in range(ITEMS)]) for _ in range(3)
    ]
    for putter in putters:
        putter.start()
    items = mailbox.taken()
    assert sum(next(items) for _ in range(3 * ITEMS)) == 3 * ITEMS
    for putter in putters:
        putter.join(WAIT_SECONDS)
    assert not list(mailbox.left())


@pytest.mark.parametrize("count", [0, 3])
def test_what_no_thread_has_taken_can_be_taken_back_in_its_order(count: int) -> None:
    mailbox: Mailbox[int] = Mailbox()
    for item in range(count):
        mailbox.put(item)
    assert list(mailbox.left()) == list(range(count))
