"""Reads whose request is on its way while this mount itself replaces the object, late answers of
the store included: nobody else changes the file, so nobody may be told that others did.
"""

import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from ossfs_py.errors import StoreUnavailableError, VersionChangedError
from ossfs_py.model import Body, CommitRequest, ObjectInfo, ObjectVersion
from ossfs_py.writing.context import WriteLimits
from tests.support.data_paths import BLOCK_BYTES
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Descriptor, Mounted, Names, on_mount
from tests.support.mounting import DATA_PATHS

Run = Callable[[Callable[[Mounted], Awaitable[None]]], FakeStore]
Change = Callable[[Mounted, Descriptor], Awaitable[None]]

FILE: Names = ("file",)
HALF = 2 * BLOCK_BYTES
OLD = b"o" * 2 * HALF
NEW = b"n" * 2 * HALF
LIMITS = WriteLimits()
PATIENCE_SECONDS = 60.0


class SlowStore(FakeStore):
    """A store whose answers take as long as a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.answers = threading.Event(), threading.Event()
        """Until they are set, nothing is given of the second half, nor told of a new object."""
        self.read_came, self.made = threading.Event(), threading.Event()
        self.loses_next = False
        """Whether the next answer about a new object never comes."""
        self.lost: ObjectVersion | None = None

    def get_range_into(
        self, version: ObjectVersion, start: int, buffer: memoryview
    ) -> ObjectInfo | None:
        if start >= HALF:
            self.read_came.set()
            assert self.reads.wait(PATIENCE_SECONDS)
        return super().get_range_into(version, start, buffer)

    def put(self, request: CommitRequest, body: Body) -> ObjectVersion:
        if request.condition.repeated and self.lost is not None:
            return self.lost
        return self._told_of(super().put(request, body))

    def copy(self, source: ObjectVersion, key: str, **options: Any) -> ObjectVersion:
        return self._told_of(super().copy(source, key, **options))

    def _told_of(self, made: ObjectVersion) -> ObjectVersion:
        self.made.set()
        assert self.answers.wait(PATIENCE_SECONDS)
        if self.loses_next:
            self.loses_next, self.lost = False, made
            raise StoreUnavailableError("the connection broke")
        return made


async def happened(event: threading.Event) -> None:
    assert await trio.to_thread.run_sync(event.wait, PATIENCE_SECONDS)


async def overwritten(m: Mounted, writer: Descriptor) -> None:
    await m.write(writer, 0, NEW)
    await m.fsync(writer)


async def half_written(m: Mounted, writer: Descriptor) -> None:
    await m.write(writer, HALF, NEW[HALF:])
    await m.fsync(writer)


async def emptied_first(m: Mounted, writer: Descriptor) -> None:
    await m.truncate(writer, 0)
    await overwritten(m, writer)


async def mode_changed(m: Mounted, _writer: Descriptor) -> None:
    await m.change(FILE, mode=0o600)


async def while_read(m: Mounted, writer: Descriptor, change: Change, *, is_late: bool) -> bytes:
    """What a reader of the second half is given whose request reaches the store after the change
    was carried out there; ``is_late``: before the answer about that.
    """
    store = m.store
    assert isinstance(store, SlowStore)
    reader = await m.open(FILE)
    got: list[bytes] = []
    is_over = trio.Event()

    async def read() -> None:
        got.append(await m.read(reader, HALF))

    async def replace() -> None:
        await change(m, writer)
        is_over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await happened(store.read_came)
        if not is_late:
            store.answers.set()
        nursery.start_soon(replace)
        await (happened(store.made) if is_late else is_over.wait())
        store.reads.set()
        network = m.bench.writes.context.network
        while network.running > is_late:
            await network.run(int, urgent=False)
        # The store has answered the reader.
        await trio.testing.wait_all_tasks_blocked()
        store.answers.set()
    await m.close(reader)
    return got[0]


@pytest.fixture(params=DATA_PATHS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs a test over each data path, on a store of that kind with the old content."""

    def run_one(test: Callable[[Mounted], Awaitable[None]]) -> FakeStore:
        store = SlowStore()
        store.seed("file", OLD)
        return on_mount(str(request.param), tmp_path, test, store=store, limits=LIMITS)

    return run_one


@pytest.mark.parametrize("is_late", [False, True], ids=["answered", "not answered yet"])
@pytest.mark.parametrize("was_read", [False, True], ids=["first byte", "read before"])
@pytest.mark.parametrize(
    ("begun", "change"),
    [
        (0, overwritten),
        (0, half_written),
        (0, emptied_first),
        (0, mode_changed),
        (HALF, overwritten),
        (HALF, half_written),
        (HALF, emptied_first),
    ],
)
def test_a_read_is_answered_whose_version_is_replaced_from_here_meanwhile(
    run: Run, is_late: bool, was_read: bool, begun: int, change: Change
) -> None:
    """And what is written afterwards is stored: the name was not taken for lost."""

    async def test(m: Mounted) -> None:
        writer = await m.open(FILE, os.O_RDWR)
        if was_read:
            assert await m.read(writer, 0, 10) == OLD[:10]
        if begun:
            await m.write(writer, 0, NEW[:begun])
        got = await while_read(m, writer, change, is_late=is_late)
        assert got in (OLD[HALF:], NEW[HALF:])
        await m.write(writer, 0, b"more")
        await m.close(writer)
        assert (await m.read_file(FILE)).startswith(b"more")

    assert run(test).content("file").startswith(b"more")


@pytest.mark.parametrize("begun", [0, HALF])
def test_a_read_is_answered_when_the_answer_about_its_new_version_is_lost(
    run: Run, begun: int
) -> None:
    async def lost(m: Mounted, writer: Descriptor) -> None:
        with pytest.raises(StoreUnavailableError):
            await overwritten(m, writer)

    async def test(m: Mounted) -> None:
        m.store.loses_next = True
        writer = await m.open(FILE, os.O_RDWR)
        if begun:
            await m.write(writer, 0, NEW[:begun])
        assert await while_read(m, writer, lost, is_late=True) == NEW[HALF:]
        await m.close(writer)

    assert run(test).content("file") == NEW


def test_a_read_fails_whose_version_others_replace_while_a_commit_runs(run: Run) -> None:
    """And so does the commit: its change is one of what they replaced."""

    async def overtaken(m: Mounted, writer: Descriptor) -> None:
        await m.write(writer, 0, b"ours")
        m.store.seed("file", b"theirs")
        with pytest.raises(VersionChangedError):
            await m.fsync(writer)

    async def test(m: Mounted) -> None:
        writer = await m.open(FILE, os.O_RDWR)
        with pytest.RaisesGroup(VersionChangedError):
            await while_read(m, writer, overtaken, is_late=False)
        with pytest.raises(VersionChangedError):
            await m.close(writer)

    assert run(test).content("file") == b"theirs"
