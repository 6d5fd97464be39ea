"""Reads past the page cache (O_DIRECT) beside a writer of the same file."""

import mmap
import os
import random
import threading
from collections.abc import Callable

import pytest

from tests.support.workplace import Workplace

CHANGES = 400
LARGEST = 900_000


def cut_and_extend(fd: int, rng: random.Random) -> None:
    """As fsx does: cut off, extend with a hole, write somewhere."""
    what = rng.randrange(4)
    if what == 0:
        os.ftruncate(fd, rng.randrange(LARGEST))
    elif what == 1:
        os.ftruncate(fd, 0)
    else:
        os.pwrite(fd, b"x" * rng.randrange(1, 200_000), rng.randrange(LARGEST))


@pytest.mark.parametrize("stores", [False, True], ids=["only written", "stored in between"])
@pytest.mark.parametrize("began", [0, 500_000], ids=["new", "was there"])
def test_a_direct_read_beside_a_writer_that_truncates_and_extends_never_fails(
    place: Workplace, began: int, stores: bool
) -> None:
    if began:
        place.put("f", b"x" * began)
    path = place.path / "f"
    writer = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    rng = random.Random(4)
    stop = threading.Event()
    errors: list[BaseException] = []
    readers = [
        threading.Thread(target=_guarded(errors, stop, lambda seed=seed: read_on(path, seed, stop)))
        for seed in range(2)
    ]
    for reader in readers:
        reader.start()
    try:
        for number in range(CHANGES):
            cut_and_extend(writer, rng)
            if stores and number % 20 == 0:
                os.fsync(writer)
            if stop.is_set():
                break
    finally:
        stop.set()
        for reader in readers:
            reader.join()
        os.close(writer)
    for error in errors:
        raise error


def _guarded(
    errors: list[BaseException], stop: threading.Event, work: Callable[[], None]
) -> Callable[[], None]:
    def run() -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 - raised again by the test
            errors.append(exc)
            stop.set()

    return run


def read_on(path: os.PathLike[str], seed: int, stop: threading.Event) -> None:
    """Every byte is one that was written, or of a hole."""
    rng = random.Random(seed)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    allowed = frozenset(b"\0x")
    try:
        with mmap.mmap(-1, 1 << 18) as buffer:
            while not stop.is_set():
                position = rng.randrange(LARGEST) // 4096 * 4096
                size = rng.choice((4096, 65536, 1 << 18))
                with memoryview(buffer)[:size] as view:
                    got = os.preadv(fd, [view], position)
                    assert set(bytes(view[:got])) <= allowed
    finally:
        os.close(fd)
