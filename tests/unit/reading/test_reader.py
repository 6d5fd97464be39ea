"""Reading a version: every byte once, never a wrong one, whatever the order."""

import io
import random
import time
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from threading import Event
from types import SimpleNamespace

import outcome
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from ossfs_py.errors import BadHandleError, StoreUnavailableError, VersionChangedError
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.reader import VersionReader
from ossfs_py.reading.streams import MIB
from ossfs_py.runtime.scattered import Scattered
from ossfs_py.runtime.slabs import LentMemory
from ossfs_py.runtime.workers import Done, Job
from tests.support.pattern_store import PatternStore, pattern, reading_over


async def read(reader: VersionReader, start: int, end: int) -> bytes:
    data = reader.read_nowait(start, end)
    return bytes(data if data is not None else await reader.read(start, end))


def test_sequential_read_fetches_each_byte_once() -> None:
    async def main() -> None:
        store = PatternStore()
        shared = reading_over(store)
        size = 40 * MIB + 12345
        reader = VersionReader(shared, ObjectVersion("k", "e", size))
        for start in range(0, size, 128 * 1024):
            end = min(size, start + 128 * 1024)
            assert await read(reader, start, end) == pattern(start, end - start)
        assert store.served == size
        reader.close()
        assert shared.memory.used_bytes == 0

    trio.run(main)


def test_eight_readers_at_once_fetch_each_byte_once() -> None:
    async def main() -> None:
        store = PatternStore()
        size = 16 * MIB
        reader = VersionReader(reading_over(store), ObjectVersion("k", "e", size))

        async def whole() -> None:
            for start in range(0, size, 256 * 1024):
                assert await read(reader, start, start + 256 * 1024) == pattern(start, 256 * 1024)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(whole)
        assert store.served == size

    trio.run(main)


def test_interleaved_streams_fetch_each_byte_once() -> None:
    async def main() -> None:
        store = PatternStore()
        quarter = 16 * MIB
        reader = VersionReader(reading_over(store), ObjectVersion("k", "e", 4 * quarter))
        for offset in range(0, quarter, 256 * 1024):
            for lane in range(4):
                start = lane * quarter + offset
                assert await read(reader, start, start + 256 * 1024) == pattern(start, 256 * 1024)
        assert store.served == 4 * quarter

    trio.run(main)


def test_random_small_reads_fetch_little() -> None:
    async def main() -> None:
        store = PatternStore()
        size = 1024 * MIB
        reader = VersionReader(reading_over(store), ObjectVersion("k", "e", size))
        rng = random.Random(2)
        for _ in range(100):
            start = rng.randrange(size // 4096) * 4096
            assert await read(reader, start, start + 4096) == pattern(start, 4096)
        assert store.served < 30 * MIB

    trio.run(main)


def test_looks_at_the_records_of_an_archive_are_seen_coming() -> None:
    """torch.load with mmap looks at each record's header before it reads any content."""

    async def main() -> None:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
            for number in range(8):
                archive.writestr(f"archive/data/{number}", bytes(10 * MIB))
            starts = [info.header_offset for info in archive.infolist()]
        stored = content.getbuffer()

        class ArchiveStore(PatternStore):
            def get_range_into(
                self, version: ObjectVersion, start: int, buffer: memoryview
            ) -> None:
                super().get_range_into(version, start, buffer)
                buffer[:] = stored[start : start + len(buffer)]

        store = ArchiveStore()
        shared = reading_over(store)
        reader = VersionReader(shared, ObjectVersion("a.pt", "e", len(stored)))
        await read(reader, 0, 128 * 1024)
        await read(reader, len(stored) - 1000, len(stored))
        waited = 0
        for start in starts[1:]:
            page = start // 4096 * 4096
            while shared.network.running or shared.files.running:
                await trio.lowlevel.checkpoint()
            waited += reader.read_nowait(page, page + 132 * 1024) is None
            await read(reader, page, page + 132 * 1024)
        assert waited <= 3
        assert store.served <= len(stored)
        reader.close()

    trio.run(main)


def test_many_readers_progress_in_a_tiny_budget() -> None:
    async def main() -> None:
        store = PatternStore()
        shared = reading_over(store, limit=4 * MIB)

        async def whole(name: str) -> None:
            reader = VersionReader(shared, ObjectVersion(name, "e", 6 * MIB))
            for start in range(0, 6 * MIB, 128 * 1024):
                assert await read(reader, start, start + 128 * 1024) == pattern(start, 128 * 1024)
            reader.close()

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                for number in range(32):
                    nursery.start_soon(whole, f"file-{number}")
        assert shared.memory.used_bytes == 0

    trio.run(main)


def test_reading_ahead_leaves_the_memory_of_the_answer_alone() -> None:
    """Others hold so much of the budget that reading ahead could only have the block that was just
    read to its end; the threads have filled what they were given before the answer is copied.
    """

    async def main() -> None:
        shared = replace(
            reading_over(PatternStore(), limit=4 * MIB),
            network=PromptNetwork(),  # type: ignore[arg-type]
        )
        others = [shared.memory.try_acquire(MIB) for _ in range(2)]
        size, amount = 8 * MIB, 128 * 1024
        reader = VersionReader(shared, ObjectVersion("k", "e", size))
        answered_at_once = 0
        for start in range(0, size, amount):
            data = reader.read_nowait(start, start + amount)
            answered_at_once += data is not None
            if data is None:
                data = await reader.read(start, start + amount)
            assert data == pattern(start, amount)
        assert answered_at_once > 0
        assert all(others)
        reader.close()

    trio.run(main)


def test_a_read_of_two_chunks_in_memory_takes_no_copy() -> None:
    """300 of the 990 READs of an npz file had to be joined by copying them."""

    async def main() -> None:
        store = PatternStore()
        shared = reading_over(store, limit=16 * MIB)
        reader = VersionReader(shared, ObjectVersion("k", "e", 8 * MIB))
        for start in (0, MIB):
            await reader.read(start, start + MIB)
        data = reader.read_nowait(MIB // 2, MIB // 2 + MIB)
        assert isinstance(data, Scattered)
        assert len(data) == MIB
        assert [len(view) for view in data.views] == [MIB // 2, MIB // 2]
        for view in data.views:
            assert isinstance(view.obj, LentMemory)
            view.obj.lend()
        while (buffer := shared.memory.try_acquire(MIB)) is not None:
            buffer.view[:] = bytes(MIB)
        assert bytes(data) == pattern(MIB // 2, MIB)
        assert reader.read_nowait(7 * MIB + 1, 8 * MIB) is None
        reader.close()

    trio.run(main)


def test_a_small_file_read_at_once_is_asked_for_again_when_its_memory_was_given_up() -> None:
    """Without a handler, as the first time; and its memory is given back only then."""

    async def main() -> None:
        store, size = PatternStore(), 100_000
        shared = reading_over(store)
        reader = VersionReader(shared, ObjectVersion("k", "e", size))
        for fetched in (size, 2 * size):
            came = trio.Event()
            assert reader.ask(0, size, came.set)
            await came.wait()
            for _ in range(2):
                data = reader.read_nowait(0, size)
                assert isinstance(data, memoryview)
                assert data == pattern(0, size)
            assert store.served == fetched
            shared.resident.evict(size, for_prefetch=True)
            assert reader.read_nowait(0, size) is None
            assert shared.memory.used_bytes == 0
        assert reader._outlook is None, "nothing had to be foreseen"
        assert await reader.read(0, 10) == pattern(0, 10)
        assert reader._outlook is not None
        reader.close()

    trio.run(main)


def test_a_read_goes_on_into_a_chunk_that_is_not_there() -> None:
    async def main() -> None:
        store = PatternStore()
        reader = VersionReader(reading_over(store), ObjectVersion("k", "e", 64 * MIB))
        await reader.read(0, MIB)
        end = MIB + 4096
        assert reader.read_nowait(0, end) is None or store.served > MIB
        assert await reader.read(MIB // 2, end) == pattern(MIB // 2, end - MIB // 2)
        reader.close()

    trio.run(main)


def test_the_memory_of_an_answer_can_be_lent_when_it_is_returned() -> None:
    """In so little memory a block that was read to its end is given up at once: not before whoever
    was given the answer has borrowed its memory, to copy it later.
    """

    async def main() -> None:
        shared = reading_over(PatternStore(), limit=3 * MIB)
        reader = VersionReader(shared, ObjectVersion("k", "e", 2 * MIB))
        data = await reader.read(0, MIB)
        assert isinstance(data, memoryview)
        assert isinstance(data.obj, LentMemory)
        data.obj.lend()
        while (buffer := shared.memory.try_acquire(MIB)) is not None:
            buffer.view[:] = bytes(MIB)
        assert data == pattern(0, MIB)
        reader.close()

    trio.run(main)


class PromptNetwork:
    """Its threads are done before the trio thread goes on, which hears of it later."""

    def __init__(self) -> None:
        self.token = trio.lowlevel.current_trio_token()

    def submit(
        self, call: Callable[[], None], done: Done, *, urgent: bool = True, inline: object = None
    ) -> Job:
        result = outcome.capture(call)
        self.token.run_sync_soon(done, result)
        return SimpleNamespace(  # type: ignore[return-value]
            promote=lambda: None, cancel=lambda: False
        )


def test_change_of_the_object_fails_this_and_every_later_read() -> None:
    async def main() -> None:
        store = PatternStore()
        reader = VersionReader(reading_over(store), ObjectVersion("k", "e", 8 * MIB))
        await reader.read(0, 4096)
        store.fail = lambda _start: VersionChangedError("changed")
        with pytest.raises(VersionChangedError):
            await reader.read(4 * MIB, 4 * MIB + 4096)
        store.fail = lambda _start: None
        with pytest.raises(VersionChangedError):
            await reader.read(6 * MIB, 6 * MIB + 4096)

    trio.run(main)


def test_a_read_after_a_failed_one_tries_again() -> None:
    async def main() -> None:
        store = PatternStore()
        reader = VersionReader(reading_over(store), ObjectVersion("k", "e", 8 * MIB))
        store.fail = lambda _start: StoreUnavailableError("down")
        with pytest.raises(StoreUnavailableError):
            await reader.read(0, 4096)
        store.fail = lambda _start: None
        assert bytes(await reader.read(0, 4096)) == pattern(0, 4096)

    trio.run(main)


class LateStore(PatternStore):
    """The first request for the bytes at ``late`` waits until it is let go."""

    def __init__(self, late: int) -> None:
        super().__init__()
        self.late = late
        self.go_on = Event()
        self.error: Exception | None = None

    def get_range_into(self, version: ObjectVersion, start: int, buffer: memoryview) -> None:
        with self.lock:
            held, self.late = start == self.late, -1 if start == self.late else self.late
        if held:
            buffer[:] = b"?" * len(buffer)
            self.go_on.wait(120)
            if self.error is not None:
                raise self.error
        super().get_range_into(version, start, buffer)


async def drained(shared: ReadContext) -> None:
    """Wait until no request is under way."""
    while shared.network.running:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("error", [None, StoreUnavailableError("reset")])
def test_what_is_late_is_asked_again_and_the_first_answer_counts(error: Exception | None) -> None:
    async def main() -> None:
        store = LateStore(0)
        store.error = error
        shared = reading_over(store, hedge_seconds=0.05)
        reader = VersionReader(shared, ObjectVersion("k", "e", 4 * MIB))
        assert await read(reader, 0, 1000) == pattern(0, 1000)
        assert shared.metrics.hedges.values == {("sent",): 1, ("won",): 1}
        store.go_on.set()
        await drained(shared)
        # The late answer went into memory of its own, and that is given back.
        assert await read(reader, 0, 1000) == pattern(0, 1000)
        reader.close()
        assert shared.memory.used_bytes == 0
        assert shared.hedging.begin(0.0, 1)

    trio.run(main)


def test_when_the_first_request_fails_the_second_one_goes_on() -> None:
    async def main() -> None:
        store = LateStore(0)
        store.error = StoreUnavailableError("reset")
        second = Event()
        asked = 0

        def fail(start: int) -> Exception | None:
            nonlocal asked
            asked += 1
            if asked == 1:  # the second request: the first one is held before it counts
                store.go_on.set()
                second.wait(120)
            return None

        store.fail = fail
        shared = reading_over(store, hedge_seconds=0.05)
        reader = VersionReader(shared, ObjectVersion("k", "e", 500_000))
        got: list[bytes] = []

        async def one() -> None:
            got.append(await read(reader, 0, 1000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            await trio.to_thread.run_sync(store.go_on.wait, 120)
            while shared.network.running > 1:
                await trio.lowlevel.checkpoint()
            second.set()
        assert got == [pattern(0, 1000)]
        reader.close()
        await drained(shared)
        assert shared.memory.used_bytes == 0

    trio.run(main)


def test_when_everything_is_late_not_everything_is_asked_again() -> None:
    async def main() -> None:
        store = PatternStore()
        go_on = Event()
        store.fail = lambda _start: None if go_on.wait(120) else StoreUnavailableError("late")
        store.lock = nullcontext()  # type: ignore[assignment]
        shared = reading_over(store, hedge_seconds=0.02)
        readers = [VersionReader(shared, ObjectVersion(f"k{n}", "e", MIB)) for n in range(12)]
        async with trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(read, reader, 0, 1000)
            await trio.sleep(0.2)
            assert shared.metrics.hedges.values[("sent",)] <= 4
            go_on.set()
        await drained(shared)
        for reader in readers:
            reader.close()
        assert shared.memory.used_bytes == 0

    trio.run(main)


def test_cancelled_reader_leaves_the_download_to_the_others() -> None:
    async def main() -> None:
        store = PatternStore()
        reader = VersionReader(reading_over(store), ObjectVersion("k", "e", 8 * MIB))
        with trio.CancelScope() as scope:
            scope.cancel()
            await reader.read(0, 4096)
        assert bytes(await reader.read(0, 4096)) == pattern(0, 4096)
        assert len(store.spans) == 1

    trio.run(main)


def test_reader_goes_on_from_a_copy_under_another_key() -> None:
    async def main() -> None:
        store = PatternStore()
        old, new = ObjectVersion("k", "e", 8 * MIB), ObjectVersion("copy", "f", 8 * MIB)
        reader = VersionReader(reading_over(store), old)
        await reader.read(0, 4096)
        reader.rebase(new)
        assert bytes(await reader.read(5 * MIB, 5 * MIB + 10)) == pattern(5 * MIB, 10)

    trio.run(main)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 6 * MIB),
    limit=st.sampled_from([2 * MIB, 4 * MIB, 64 * MIB]),
    reads=st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from([1, 4096, 65536, 131072, 1048576])),
        max_size=30,
    ),
    sequential=st.booleans(),
)
def test_any_order_of_concurrent_reads_gives_the_plain_bytes(
    size: int, limit: int, reads: list[tuple[float, int]], sequential: bool
) -> None:
    async def main() -> None:
        shared = reading_over(PatternStore(), limit=limit)
        reader = VersionReader(shared, ObjectVersion("k", "e", size))

        async def one(start: int, length: int) -> None:
            end = min(size, start + length)
            if end > start:
                assert await read(reader, start, end) == pattern(start, end - start)

        position = 0
        async with trio.open_nursery() as nursery:
            for place, length in reads:
                start = position if sequential else int(place * size)
                position = start + length
                nursery.start_soon(one, start, length)
        reader.close()
        with trio.fail_after(120):
            while shared.network.running:
                await trio.testing.wait_all_tasks_blocked(0.001)
        assert shared.memory.used_bytes == 0

    trio.run(main)


def test_readers_who_wait_for_memory_for_the_same_bytes_do_not_keep_it_from_one_another() -> None:
    """Each of two blocks, all there is room for, is waited for by two readers before it is asked
    for: the second one of each must not hold it while waiting for memory of its own."""

    async def main() -> None:
        shared = reading_over(PatternStore(), limit=2 * MIB)
        reader = VersionReader(shared, ObjectVersion("k", "e", 16 * MIB))
        taken = [await shared.memory.acquire(MIB) for _ in range(2)]
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    for start in (0, 8 * MIB):
                        nursery.start_soon(read, reader, start, start + MIB)
                        await trio.testing.wait_all_tasks_blocked()
                for buffer in taken:
                    buffer.release()

    trio.run(main)


def test_when_the_one_who_waits_for_memory_goes_another_waits_on() -> None:
    async def main() -> None:
        shared = reading_over(PatternStore(), limit=2 * MIB)
        reader = VersionReader(shared, ObjectVersion("k", "e", 16 * MIB))
        taken = await shared.memory.acquire(2 * MIB)
        first = trio.CancelScope()

        async def killed() -> None:
            with first:
                await read(reader, 0, 1000)

        async def waits_on() -> None:
            assert await read(reader, 0, 1000) == pattern(0, 1000)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(killed)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(waits_on)
                await trio.testing.wait_all_tasks_blocked()
                first.cancel()
                await trio.testing.wait_all_tasks_blocked()
                taken.release()

    trio.run(main)


def test_two_readers_who_wait_for_the_same_bytes_ask_again_once() -> None:
    async def main() -> None:
        store = PatternStore()
        go_on = Event()
        store.fail = lambda _start: None if go_on.wait(120) else StoreUnavailableError("late")
        store.lock = nullcontext()  # type: ignore[assignment]
        shared = reading_over(store, hedge_seconds=0.02)
        reader = VersionReader(shared, ObjectVersion("k", "e", MIB))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, reader, 0, 1000)
            nursery.start_soon(read, reader, 500, 1500)
            await trio.sleep(0.2)
            assert shared.metrics.hedges.values[("sent",)] == 1
            go_on.set()
        await drained(shared)
        reader.close()
        assert shared.memory.used_bytes == 0

    trio.run(main)


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_file_closed_while_the_second_request_is_alone_leaves_it_its_memory(
    ends_well: bool,
) -> None:
    """The first of two requests failed, and nobody waits any more: a thread still writes."""

    async def main() -> None:
        store = LateStore(0)
        store.error = StoreUnavailableError("reset")
        asked, second = Event(), Event()

        def fail(_start: int) -> Exception | None:
            asked.set()
            second.wait(120)
            return None if ends_well else StoreUnavailableError("reset too")

        store.fail = fail
        store.lock = nullcontext()  # type: ignore[assignment]
        shared = reading_over(store, hedge_seconds=0.05)
        reader = VersionReader(shared, ObjectVersion("k", "e", 500_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, reader, 0, 1000)
            await trio.to_thread.run_sync(asked.wait, 10)
            nursery.cancel_scope.cancel()
        store.go_on.set()
        while shared.network.running > 1:
            await trio.lowlevel.checkpoint()
        reader.close()
        assert shared.memory.used_bytes == 500_000
        second.set()
        await drained(shared)
        assert shared.memory.used_bytes == 0
        assert shared.hedging.begin(0.0, 1)

    trio.run(main)


def test_a_read_of_a_closed_file_fails_and_does_not_wait() -> None:
    async def main() -> None:
        reader = VersionReader(reading_over(PatternStore()), ObjectVersion("k", "e", 8 * MIB))
        await reader.read(0, 4096)
        reader.close()
        with trio.fail_after(120), pytest.raises(BadHandleError):
            await reader.read(MIB, MIB + 4096)

    trio.run(main)


def test_a_close_reaches_a_reader_who_waits() -> None:
    async def main() -> None:
        store = LateStore(0)
        shared = reading_over(store)
        reader = VersionReader(shared, ObjectVersion("k", "e", 8 * MIB))
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def waits() -> None:
                with pytest.raises(BadHandleError):
                    await reader.read(0, 4096)

            await trio.testing.wait_all_tasks_blocked()
            reader.close()
        assert shared.memory.used_bytes > 0  # its thread still writes
        store.go_on.set()
        await drained(shared)
        assert shared.memory.used_bytes == 0

    trio.run(main)


class HeldNetwork:
    """Workers whose requests are answered when the test says so."""

    running = 1

    def __init__(self) -> None:
        self.answer: Callable[[], None] = lambda: None

    def submit(
        self, call: Callable[[], None], done: Done, *, urgent: bool = True, inline: object = None
    ) -> Job:
        result = outcome.capture(call)
        self.answer = lambda: done(result)
        return SimpleNamespace(promote=lambda: None)  # type: ignore[return-value]


def test_bytes_that_arrive_in_the_moment_a_reader_loses_patience_are_not_missed() -> None:
    patience_seconds = 0.01

    async def main() -> None:
        network = HeldNetwork()
        shared = replace(
            reading_over(PatternStore(), hedge_seconds=patience_seconds),
            network=network,  # type: ignore[arg-type]
        )

        async def answer() -> None:
            await trio.sleep(patience_seconds / 2)
            network.answer()

        for _ in range(40):  # which of the two tasks runs first is up to chance
            reader = VersionReader(shared, ObjectVersion("k", "e", 4096))
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(reader.read, 0, 100)
                    nursery.start_soon(answer)
                    await trio.testing.wait_all_tasks_blocked()
                    time.sleep(2 * patience_seconds)  # noqa: ASYNC251 - both are due at once
            reader.close()

    trio.run(main)


def test_two_may_ask_for_one_small_file_and_it_is_fetched_once() -> None:
    async def main() -> None:
        store = PatternStore()
        shared = reading_over(store)
        size = 100_000
        reader = VersionReader(shared, ObjectVersion("k", "e", size))
        came: list[bytes] = []
        both = trio.Event()

        def then() -> None:
            data = reader.read_nowait(0, size)
            assert data is not None
            came.append(bytes(data))
            if len(came) == 2:
                both.set()

        assert reader.ask(0, size, then)
        assert reader.ask(4096, size, then)
        with trio.fail_after(30):
            await both.wait()
        assert came == [pattern(0, size)] * 2
        assert store.served == size
        assert not reader.ask(0, size, then), "it has been read"
        reader.close()
        assert shared.memory.used_bytes == 0

    trio.run(main)


def test_who_asked_hears_of_a_failure_and_the_read_tells_which() -> None:
    async def main() -> None:
        store = PatternStore()
        store.fail = lambda _start: StoreUnavailableError("down")
        reader = VersionReader(reading_over(store), ObjectVersion("k", "e", 1000))
        over = trio.Event()
        assert reader.ask(0, 1000, over.set)
        with trio.fail_after(30):
            await over.wait()
        assert reader.read_nowait(0, 1000) is None
        with pytest.raises(StoreUnavailableError):
            await reader.read(0, 1000)
        reader.close()
        assert not reader.ask(0, 1000, over.set), "it is closed"

    trio.run(main)


def test_larger_files_are_not_asked_for() -> None:
    async def main() -> None:
        reader = VersionReader(reading_over(PatternStore()), ObjectVersion("k", "e", MIB))
        assert not reader.ask(0, 4096, trio.Event().set)
        reader.close()

    trio.run(main)
