"""Random operations on DirtyFile beside a plain bytearray, with a store that fails now and then."""

import tempfile
from pathlib import Path

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ossfs_py.errors import StoreUnavailableError
from ossfs_py.model import CommitRequest
from ossfs_py.runtime.arrived import Arrived, Written, parted
from ossfs_py.store.base import Capabilities
from tests.support.fake_store import FakeStore
from tests.support.writing import Commits, Writing, idle, writing

REQUEST = CommitRequest("file")
DOWN = StoreUnavailableError("down")
FAILING = ["put", "start_multipart", "upload_part", "copy_part", "complete", "get_range_into"]
LIMIT = 300

Operation = tuple[str, int, int]

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 40), st.just(0)),
        st.tuples(st.just("append"), st.integers(1, 40), st.just(0)),
        st.tuples(st.just("write"), st.integers(0, LIMIT), st.integers(1, 40)),
        st.tuples(st.just("arrive"), st.integers(1, 40), st.integers(1, 80)),
        st.tuples(st.just("promptly"), st.integers(1, 40), st.integers(-40, 5)),
        st.tuples(st.just("read"), st.integers(0, LIMIT), st.integers(1, 80)),
        st.tuples(st.just("nowait"), st.integers(0, LIMIT), st.integers(1, 80)),
        st.tuples(st.just("truncate"), st.integers(0, LIMIT), st.just(0)),
        st.tuples(st.just("commit"), st.just(0), st.just(0)),
        st.tuples(st.just("idle"), st.just(0), st.just(0)),
        st.tuples(st.just("fail"), st.integers(0, len(FAILING) - 1), st.integers(1, 3)),
        st.tuples(st.just("cancel"), st.just(0), st.just(0)),
        st.tuples(st.just("rename"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("reopen"), st.just(0), st.just(0)),
        st.tuples(st.just("borrow"), st.integers(1, LIMIT), st.integers(1, LIMIT)),
    ),
    min_size=1,
    max_size=40,
)


class Player:
    """Carries out operations on a file and on the model."""

    def __init__(self, made: Writing, base: bytes | None, *, memory_first: bool, rereads: bool):
        self.made = made
        self.memory_first = memory_first
        self.rereads = rereads
        self.key = "file0"
        self.model = bytearray(base or b"")
        self.byte = 0
        version = made.store.seed(self.key, base) if base is not None else None
        self.file = self.opened(version)

    def opened(self, version):
        return self.made.open(
            version,
            memory_first=self.memory_first,
            committer=Commits(lambda: CommitRequest(self.key)),
            expects_rereads=self.rereads,
        )

    def fresh(self, size: int) -> bytes:
        self.byte += size
        return bytes((self.byte + n) % 255 + 1 for n in range(size))

    async def play(self, operation: Operation) -> None:
        name, first, second = operation
        await getattr(self, f"play_{name}")(first, second)
        assert self.file.size == len(self.model)

    async def play_append(self, size: int, _: int) -> None:
        if len(self.model) + size <= LIMIT * 2:
            await self.write(len(self.model), self.fresh(size))

    async def play_write(self, offset: int, size: int) -> None:
        await self.write(offset, self.fresh(size))

    async def write(self, offset: int, written: Written) -> None:
        data = bytes(parted(written)[0])
        try:
            await self.file.write(offset, written)
        except StoreUnavailableError:
            # What was taken of it is unknown; a program that goes on writes it again.
            written = data
            self.made.store._failures.clear()
            await idle(self.made)
            try:
                await self.file.write(offset, written)
            except StoreUnavailableError:
                await idle(self.made)
                await self.file.write(offset, written)
        if offset > len(self.model):
            self.model.extend(bytes(offset - len(self.model)))
        self.model[offset : offset + len(data)] = data

    async def play_arrive(self, size: int, room: int) -> None:
        """At the end, in memory that may be kept, and is used again if it is not."""
        if len(self.model) + size > LIMIT * 2:
            return
        buffer = self.made.pool.try_acquire(max(size, room))
        if buffer is None:
            return
        data = self.fresh(size)
        buffer.view[:size] = data
        arrived = Arrived(buffer, size)
        if size % 2 or not self.file.write_nowait(len(self.model), arrived):
            await self.write(len(self.model), arrived)
        else:
            self.model += data
        if (left := arrived.left) is not None:
            left.view[:size] = bytes(size)
            left.release()

    async def play_promptly(self, size: int, ahead: int) -> None:
        """Near the end, without waiting if that is possible."""
        offset = max(len(self.model) + ahead, 0)
        data = self.fresh(size)
        before = self.file.size
        if self.file.write_nowait(offset, data):
            self.model.extend(bytes(max(offset - len(self.model), 0)))
            self.model[offset : offset + size] = data
        else:
            assert self.file.size == before
            await self.write(offset, data)

    async def play_truncate(self, size: int, _: int) -> None:
        while True:
            try:
                await self.file.truncate(size)
                break
            except StoreUnavailableError:
                self.made.store._failures.clear()
                await idle(self.made)
        if size > len(self.model):
            self.model.extend(bytes(size - len(self.model)))
        del self.model[size:]

    async def play_read(self, offset: int, size: int) -> None:
        try:
            data = bytes(await self.file.read(offset, size))
        except StoreUnavailableError:
            return
        assert data == self.model[offset : offset + size]

    async def play_nowait(self, offset: int, size: int) -> None:
        data = self.file.read_nowait(offset, size)
        if data is not None:
            assert bytes(data) == self.model[offset : offset + size]

    async def play_commit(self, _first: int, _second: int) -> None:
        try:
            await self.file.commit(CommitRequest(self.key))
        except StoreUnavailableError:
            assert self.file.dirty
        else:
            self.check_stored()

    def check_stored(self) -> None:
        assert not self.file.dirty
        if self.file.seen is not None:
            assert self.made.store.content(self.key) == self.model

    async def play_idle(self, _first: int, _second: int) -> None:
        await idle(self.made)

    async def play_fail(self, which: int, times: int) -> None:
        self.made.store.fail(FAILING[which], DOWN, times=times)

    async def play_cancel(self, _first: int, _second: int) -> None:
        with trio.move_on_after(0.0005):
            await self.play_commit(0, 0)

    async def play_rename(self, number: int, _: int) -> None:
        """As the file system does it: the dirty bytes first, then the object."""
        while self.file.dirty:
            await self.play_commit(0, 0)
        key = f"file{number}"
        if key != self.key:
            version = self.file.seen
            assert version is not None
            moved = self.made.store.copy(version, key)
            self.made.store.delete(self.key)
            self.key = key
            self.file.rebase(moved)

    async def play_borrow(self, size: int, first: int) -> None:
        """A copy of another file's object, in two steps."""
        await self.play_truncate(0, 0)
        content = bytes(n % 250 + 1 for n in range(size))
        source = self.made.store.seed("source", content)
        for end in {min(first, size), size}:
            start = len(self.model)
            if start < end and await self.file.borrow(source, start, end):
                self.model[:] = content[:end]
                assert self.file.dirty
        assert not await self.file.borrow(source, size + 1, size + 2)

    async def play_reopen(self, _first: int, _second: int) -> None:
        while self.file.dirty:
            await self.play_commit(0, 0)
        version = self.file.seen
        await self.file.close()
        self.file = self.opened(version)


@settings(max_examples=150, deadline=None)
@given(
    operations=OPERATIONS,
    base=st.one_of(st.none(), st.integers(0, LIMIT)),
    memory_first=st.booleans(),
    rereads=st.booleans(),
    part_copy=st.booleans(),
    memory_bytes=st.sampled_from([40, 100, 1000]),
)
def test_any_sequence_of_operations_stores_what_a_bytearray_would_hold(
    operations, base, memory_first, rereads, part_copy, memory_bytes
):
    store = FakeStore(
        min_part_bytes=5,
        capabilities=Capabilities(
            conditional_create=True, conditional_replace=True, part_copy=part_copy
        ),
    )
    content = None if base is None else bytes(n % 251 + 1 for n in range(base))

    async def main() -> None:
        with tempfile.TemporaryDirectory() as directory, trio.fail_after(120):
            async with writing(Path(directory), store=store, memory_bytes=memory_bytes) as made:
                player = Player(made, content, memory_first=memory_first, rereads=rereads)
                for operation in operations:
                    await player.play(operation)
                store._failures.clear()
                await player.play_idle(0, 0)
                for _ in range(3):
                    if player.file.dirty:
                        await player.play_commit(0, 0)
                player.check_stored()
            # Nothing is left behind: no memory, no file, no upload, no hidden object.
            assert made.pool.used_bytes == 0
            assert made.local_files() == []
            keys = set(store.keys()) - {"source"}
            assert keys == ({player.key} if player.file.seen is not None else set())
            assert all(upload.result is not None for upload in store.uploads.values())

    trio.run(main)
