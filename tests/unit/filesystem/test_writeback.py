"""The queue of closed files: order, bound, waiting."""

import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from ossfs_py.filesystem.calm import CALM_SECONDS, LONGEST_BUSY_SECONDS
from ossfs_py.filesystem.writeback import GATHER_SECONDS, WriteBackQueue
from ossfs_py.telemetry.metrics import Metrics
from tests.support.filesystems import Mounted, on_mount


class File:
    """A closed file of a size."""

    def __init__(self, size: int) -> None:
        self._size = size

    def size(self) -> int:
        return self._size


def pending_bytes(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("ossfs_write_back_pending_bytes")


async def run_until_empty(
    queue: WriteBackQueue[File], upload: Callable[[File], Awaitable[None]]
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run, upload)
        await queue.wait_empty()
        nursery.cancel_scope.cancel()


def test_uploads_begin_in_the_order_of_the_closes() -> None:
    async def main() -> None:
        queue: WriteBackQueue[File] = WriteBackQueue(Metrics())
        files = [File(1) for _ in range(100)]
        begun: list[File] = []

        async def upload(file: File) -> None:
            begun.append(file)
            await trio.lowlevel.checkpoint()

        for file in files:
            queue.add(file)
        await run_until_empty(queue, upload)
        assert sorted(begun, key=files.index) == files
        for place, file in enumerate(begun):
            assert abs(files.index(file) - place) < 16  # begun together, they run in any order

    trio.run(main)


def test_a_full_queue_makes_the_next_close_wait_for_an_upload() -> None:
    async def main() -> None:
        metrics = Metrics()
        queue: WriteBackQueue[File] = WriteBackQueue(metrics, max_files=2)
        queue.add(File(30))
        queue.add(File(12))
        assert pending_bytes(metrics) == 42
        gate, waited = trio.Event(), trio.Event()

        async def upload(_file: File) -> None:
            await gate.wait()

        async def close() -> None:
            await queue.wait_for_room()
            waited.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.run, upload)
            nursery.start_soon(close)
            await trio.testing.wait_all_tasks_blocked()
            assert not waited.is_set()
            assert pending_bytes(metrics) == 42
            gate.set()
            await waited.wait()
            await queue.wait_empty()
            assert pending_bytes(metrics) == 0
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_many_small_files_are_uploaded_side_by_side_and_few_large_ones() -> None:
    async def main() -> None:
        for size, expected in ((1000, 16), (60 * 1024**2, 4)):
            queue: WriteBackQueue[File] = WriteBackQueue(Metrics(), gather_seconds=0)
            running: list[File] = []

            async def upload(file: File, running: list[File] = running) -> None:
                running.append(file)
                await trio.sleep_forever()

            for _ in range(30):
                queue.add(File(size))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(queue.run, upload)
                await trio.testing.wait_all_tasks_blocked()
                assert len(running) == expected
                nursery.cancel_scope.cancel()

    trio.run(main)


def begun_with(queue: WriteBackQueue[File], test: Callable[[list[float]], Awaitable[None]]) -> None:
    """Run a test on a clock of its own, with the times at which uploads began."""
    begun: list[float] = []

    async def upload(_file: File) -> None:
        begun.append(trio.current_time())
        await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.run, upload)
            await test(begun)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_file_waits_for_what_is_done_to_it_until_somebody_waits_for_the_queue() -> None:
    queue: WriteBackQueue[File] = WriteBackQueue(Metrics())

    async def test(begun: list[float]) -> None:
        queue.add(File(1))
        await trio.sleep(GATHER_SECONDS * 0.9)
        assert begun == []
        await trio.sleep(GATHER_SECONDS * 0.2)
        assert begun == [GATHER_SECONDS]
        queue.add(File(1))
        await queue.wait_empty()
        assert begun == [GATHER_SECONDS, GATHER_SECONDS * 1.1]

    begun_with(queue, test)


def test_while_files_are_made_none_is_sent_but_none_waits_for_ever() -> None:
    queue: WriteBackQueue[File] = WriteBackQueue(Metrics())

    async def test(begun: list[float]) -> None:
        for _ in range(10):
            queue.add(File(1))
            await trio.sleep(CALM_SECONDS / 2)
        assert begun == []
        await trio.sleep(CALM_SECONDS)
        made_until = trio.current_time()
        assert len(begun) > 0
        await queue.wait_empty()
        begun.clear()
        for _ in range(60):
            queue.add(File(1))
            await trio.sleep(CALM_SECONDS / 2)
        assert begun[0] - made_until == pytest.approx(LONGEST_BUSY_SECONDS)

    begun_with(queue, test)


def test_what_memory_has_no_more_room_for_is_sent_at_once() -> None:
    short = False
    queue: WriteBackQueue[File] = WriteBackQueue(Metrics(), is_short=lambda: short)

    async def test(begun: list[float]) -> None:
        nonlocal short
        queue.add(File(1))
        await trio.sleep(GATHER_SECONDS / 2)
        assert begun == []
        short = True
        queue.add(File(1))
        await trio.testing.wait_all_tasks_blocked()
        assert begun == [GATHER_SECONDS / 2] * 2

    begun_with(queue, test)


def test_who_makes_thousands_of_files_without_write_back_is_told_of_it_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(m: Mounted) -> None:
        for number in range(2100):
            await m.write_file((f"f{number}",), b"x")

    with caplog.at_level(logging.INFO):
        on_mount("direct", tmp_path, test, negative_ttl_seconds=60.0)
    assert sum("--write-back" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("write_back", [True, False])
def test_a_directory_keeps_its_time_while_what_is_in_it_is_stored(
    tmp_path: Path, *, write_back: bool
) -> None:
    """tar and rsync set it when all files are closed; and tar refuses a directory whose time
    changes while it is read."""

    async def test(m: Mounted) -> None:
        await m.mkdir(("d",))
        made = await m.stat(("d",))
        opened = await m.open(("d", "file"), os.O_WRONLY | os.O_CREAT)
        filled = await m.stat(("d",))
        assert filled.mtime_ns > made.mtime_ns
        await m.write(opened, 0, b"content")
        await m.close(opened)
        assert (await m.stat(("d",))).mtime_ns == filled.mtime_ns
        await m.change(("d",), mtime_ns=1_234_567_890)
        await m.fs.sync()
        assert m.store.content("d/file") == b"content"
        assert (await m.stat(("d",))).mtime_ns == 1_234_567_890
        assert await m.names(("d",)) == ["file"]
        assert (await m.stat(("d",))).mtime_ns == 1_234_567_890

    on_mount("temp", tmp_path, test, write_back=write_back)


def test_a_directory_keeps_its_time_while_another_in_it_waits_for_the_store(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        await m.mkdir(("d",))
        await m.mkdir(("d", "e"))
        await m.change(("d",), mtime_ns=1_234_567_890)
        for _ in range(3):
            await m.bench.later(2)  # what it says of absent names is too old
            assert not await m.exists(("d", "absent"))
            assert await m.names(("d",)) == ["e"]
            assert (await m.stat(("d",))).mtime_ns == 1_234_567_890
        m.store.seed("d/others", b"")
        await m.expire()
        assert sorted(await m.names(("d",))) == ["e", "others"]
        assert (await m.stat(("d",))).mtime_ns > 1_234_567_890

    # Nothing is sent: the inner directory stays one that the store has not heard of.
    on_mount("temp", tmp_path, test, write_back=True, takes_over=False)


def test_directories_and_links_wait_too_while_programs_make_files(tmp_path: Path) -> None:
    """Each would take the processor and the lock from the program that goes on."""

    async def test(m: Mounted) -> None:
        sent: list[str] = []
        m.store.on_request = lambda method, key: sent.append(key) if method == "put" else None
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.rate = 0.0  # on a slow machine, too, no pause is taken for the end
        await m.mkdir(("d",))
        await m.symlink(b"to", ("link",))
        for number in range(12):  # for longer than a directory gathers changes
            await m.write_file((f"{number}",), b"x")
            await m.bench.later(CALM_SECONDS / 2)
        assert sent == []
        await m.bench.later(CALM_SECONDS * 1.1)
        while "d/" not in sent or "link" not in sent:
            await trio.lowlevel.checkpoint()
        for number in range(60):
            await m.mkdir((f"e{number}",))
            await m.bench.later(CALM_SECONDS / 2)
        assert "e0/" in sent
        clock.rate = 1.0
        await m.fs.sync()

    on_mount("temp", tmp_path, test, write_back=True)
