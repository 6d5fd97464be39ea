"""A daemon of a mount that is killed at each request to the store of a call, and the next one."""

import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import trio
import trio.testing

from ossfs_py.filesystem.survival import FoundOut, MountIdentity, Negotiated, open_survival
from ossfs_py.filesystem.surviving import SurvivingFilesystem
from ossfs_py.model import ObjectVersion
from ossfs_py.namespace.inode import ROOT_NUMBER
from ossfs_py.writing.recovery import Recovery, tidy_leftovers
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Mounted, mounted
from tests.support.writing import TINY, TINY_PARTS

UID, GID = 7, 8
FACTS = MountIdentity("bucket", "/m", "http://store")
BEFORE = bytes(range(100))
ADDED = b"a line that is there once\n"


@dataclass
class Moment:
    """What there was when a daemon died."""

    name: str
    memory: bytes
    state: Path
    store: "WatchedStore"


class WatchedStore(FakeStore):
    """Takes down what there is before and after each of its calls, while it is told to."""

    def __init__(self) -> None:
        super().__init__(min_part_bytes=TINY_PARTS.min_part)
        self.moments: list[Moment] | None = None
        self.memory, self.root = -1, Path()

    def _enter(self, method: str, key: str) -> None:
        super()._enter(method, key)
        self.take_down(f"before {method} {key}")

    def _write(
        self,
        key: str,
        content: bytes,
        metadata: Mapping[str, str],
        content_type: str | None,
        parts: int = 0,
    ) -> ObjectVersion:
        made = super()._write(key, content, metadata, content_type, parts)
        self.take_down(f"after writing {key}")
        return made

    def delete(self, key: str) -> None:
        super().delete(key)
        self.take_down(f"after deleting {key}")

    def take_down(self, name: str) -> None:
        """Somebody is killed now."""
        with self._lock:  # of the store: nothing is written meanwhile
            self._take_down(name)

    def _take_down(self, name: str) -> None:
        if self.moments is None:
            return
        number = len(self.moments)
        state = self.root.parent / f"{self.root.name}-{number}"
        shutil.copytree(self.root / "state", state / "state", copy_function=_copied)
        store = WatchedStore()
        store.be_like(self)
        memory = os.pread(self.memory, os.fstat(self.memory).st_size, 0)
        self.moments.append(Moment(name, memory, state, store))


def made(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    return directory


def _copied(source: str, target: str) -> None:
    """A file may go while it is copied."""
    with suppress(FileNotFoundError):
        shutil.copyfile(source, target)


@asynccontextmanager
async def life(
    memory: int,
    root: Path,
    store: WatchedStore,
    data_path: str = "temp",
    *,
    sent_seconds: float = 0.0,
    between: Callable[[SurvivingFilesystem], Awaitable[None]] | None = None,
    early: Callable[[SurvivingFilesystem], Awaitable[None]] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Mounted, SurvivingFilesystem]]:
    """A daemon, from its start to where it is asked something. ``between`` is awaited when it knows
    what is stored, and has not stored yet what is owed; ``early`` is called before it knows.
    """
    made(root)
    store.memory, store.root = memory, root
    survival = open_survival(memory)
    survival.serve(FACTS, FoundOut("/m", None))
    async with mounted(
        data_path,
        root,
        store,
        make=SurvivingFilesystem,
        limits=TINY,
        takes_over=False,
        posix_metadata=True,
        **options,
    ) as one:
        fs, journal = cast(SurvivingFilesystem, one.fs), one.bench.writes.journal
        records, left = survival.writers, survival.left
        owned = journal.owned_records(records.dirty_owners(left))
        known = survival.known_before()
        dirty = {each: told for each, told in owned.items() if records.goes_on(left, told, known)}
        kept = {record.ident for record in dirty.values()}
        claimed = journal.claim_leftovers(kept, partial(records.drops, left))
        assert all(record.complete for record in journal.unsaved_records() if not record.vanished)
        fs.resume(survival, dirty, journal.leftover_markers(), is_all=not claimed)

        async def tidy() -> None:
            await trio.to_thread.run_sync(tidy_leftovers, journal, store, fs.read_keys())
            fs.take_over()

        fs.late_seconds, fs.sent_seconds = 0.0, sent_seconds
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fs.run)
            if early is not None:
                nursery.start_soon(early, fs)
                await trio.testing.wait_all_tasks_blocked(0.05)
            await fs.settle(tidy, renaming=False)
            if between is not None:
                await between(fs)
            for ident in claimed:
                await trio.to_thread.run_sync(Recovery(journal).upload, ident, store)
            fs.show_names()
            if survival.negotiated is None:
                survival.note_negotiated(Negotiated(b"request", b"answer", b"told"))
            yield one, fs
            nursery.cancel_scope.cancel()


@dataclass
class Case:
    """A call that changes something, and what has to be so afterwards."""

    fs: SurvivingFilesystem
    store: WatchedStore
    numbers: dict[str, int] = field(default_factory=dict)
    since_ns: int | None = None
    """When the call was made first; None: it is made for the first time."""


Step = Callable[[Case], Awaitable[None]]


def told_handles(fs: SurvivingFilesystem, memory: int) -> None:
    """The kernel was told of every descriptor."""
    records = fs._records
    assert records is not None
    for number in range(1, 20):
        records.asked_by(number, 100 + number)


def dies(
    tmp_path: Path,
    prepare: Step,
    call: Step,
    check: Step,
    objects: dict[str, bytes],
    *,
    early: bool = False,
    **options: Any,
) -> int:
    """Kill a daemon at each step of ``call``; how many there were. ``options`` are its mount's.
    ``early``: the next one is asked before it knows what is stored.
    """
    store, memory = WatchedStore(), os.memfd_create("first")
    for key, content in objects.items():
        store.seed(key, content, metadata={"mtime": f"1.{len(content)}"})
    moments: list[Moment] = []
    numbers: dict[str, int] = {}
    since_ns = time.time_ns()

    async def first() -> None:
        async with life(memory, tmp_path / "first", store, **options) as (_, fs):
            case = Case(fs, store, numbers)
            await prepare(case)
            told_handles(fs, memory)
            store.moments = moments
            store.take_down("before the call")
            await call(case)
            store.take_down("before the answer")
            store.moments = None
            await check(case)

    run(first)

    async def second(moment: Moment) -> None:
        again = os.memfd_create("second")
        os.pwrite(again, moment.memory, 0)
        called = trio.Event()

        async def calls(fs: SurvivingFilesystem) -> None:
            await call(Case(fs, moment.store, dict(numbers), since_ns))
            called.set()

        asks = calls if early else None
        async with life(again, moment.state, moment.store, early=asks, **options) as (one, fs):
            case = Case(fs, moment.store, dict(numbers), since_ns)
            told_handles(fs, again)
            await (called.wait() if early else call(case))
            await check(case)
            assert not list((moment.state / "state" / "unsaved").iterdir())
            await one.bench.idle()
        os.close(again)

    for moment in moments:
        try:
            run(partial(second, moment))
        except BaseException as exc:
            exc.add_note(f"the daemon died {moment.name}")
            raise
    os.close(memory)
    return len(moments)


def run(test: Callable[[], Awaitable[None]]) -> None:
    trio.run(test, clock=trio.testing.MockClock(rate=1.0))


async def opened(case: Case, name: str, flags: int) -> None:
    """Open a file, and remember it by its name."""
    entry = await case.fs.lookup(ROOT_NUMBER, name.encode())
    reply = await case.fs.open(entry.inode, flags, UID)
    case.numbers[name] = reply.handle


async def written(case: Case, handle: int, offset: int, data: bytes) -> None:
    assert await case.fs.write(handle, offset, data) == len(data)


async def whole(case: Case, name: str) -> bytes:
    return bytes(await case.fs.read(case.numbers[name], 0, 1 << 20))


async def names(case: Case) -> list[str]:
    found: list[str] = []
    handle = case.fs.open_directory(ROOT_NUMBER)
    await case.fs.read_directory(handle, 0, lambda name, *_: not found.append(name.decode()))
    case.fs.release_directory(handle)
    return sorted(set(found) - {".", ".."})
