"""What other clients do to objects that are open here: over each data path, without a kernel."""

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from ossfs_py.errors import (
    BucketMissingError,
    ListingFailedError,
    NoSuchEntryError,
    ObjectMissingError,
    StaleInodeError,
    StoreError,
    StoreUnavailableError,
    VersionChangedError,
)
from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.writing.recovery import Recovery
from tests.support.fake_store import FakeStore
from tests.support.filesystems import METADATA_TTL_SECONDS, UID, Mounted, on_mount
from tests.support.mounting import DATA_PATHS
from tests.support.writing import TINY_PARTS

FILE = ("file",)
APPEND = os.O_WRONLY | os.O_APPEND

Run = Callable[..., FakeStore]


@pytest.fixture(params=DATA_PATHS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs a test on a mount of each data path."""
    return lambda test, **options: on_mount(str(request.param), tmp_path, test, **options)


# -- readers settle on a version with their first byte -----------------------------------------


@pytest.mark.parametrize("new", [b"new", b"n", b"a new and longer one"])
def test_a_file_replaced_before_the_first_byte_is_read_as_the_new_one(run: Run, new: bytes) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"old")
        opened = await m.open(FILE)
        m.store.seed("file", new)
        m.store.take_requests()
        assert await m.read(opened) == new
        assert m.store.take_requests().get("head") == 1
        assert (await m.stat(FILE)).size == len(new)
        assert await m.read(opened, 1, 100) == new[1:]
        await m.close(opened)

    run(test)


@pytest.mark.parametrize("error", [ObjectMissingError("gone"), VersionChangedError("changed")])
def test_a_store_that_denies_a_version_which_it_has_is_asked_once_more(
    run: Run, error: StoreError
) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        opened = await m.open(FILE)
        m.store.fail("get_range_into", error)
        m.store.take_requests()
        assert await m.read(opened) == b"content"
        assert m.store.take_requests() == {"get_range_into": 2, "head": 1}
        await m.close(opened)

    run(test)


@pytest.mark.parametrize("error", [ObjectMissingError("gone"), VersionChangedError("changed")])
def test_a_store_that_denies_it_again_is_believed(run: Run, error: StoreError) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        opened = await m.open(FILE)
        m.store.fail("get_range_into", error, times=2)
        with pytest.raises(VersionChangedError):
            await m.read(opened)
        await m.close(opened)
        assert await m.read_file(FILE) == b"content"

    run(test)


@pytest.mark.parametrize("is_shorter", [True, False])
def test_a_file_replaced_again_by_a_shorter_one_is_not_read_while_the_kernel_forgets_its_size(
    run: Run, *, is_shorter: bool
) -> None:
    """It would fill the answer up with zeros, to the size that it was told before it forgets it."""
    third = b"3" * (10 if is_shorter else 30)

    async def test(m: Mounted) -> None:
        m.store.seed("file", b"1" * 10)
        async with m.at(FILE):
            m.store.seed("file", b"2" * 20)
            m.channel.is_slow = True
            opened = await m.open(FILE, os.O_RDWR)  # asks: the kernel is to forget the first size
        assert (await m.stat(FILE)).size == 20
        m.store.seed("file", third)
        if is_shorter:
            with pytest.raises(VersionChangedError):
                await m.fs.read(opened.handle, 0, 100)
        else:
            assert bytes(await m.fs.read(opened.handle, 0, 100)) == third
        await m.close(opened)
        m.channel.is_slow = False
        m.channel.catch_up()
        assert await m.read_file(FILE) == third

    run(test)


def test_the_kernel_does_not_know_the_size_of_an_older_version_when_a_file_is_opened(
    run: Run,
) -> None:
    """It would take the end of that one for the end of the file."""

    async def test(m: Mounted) -> None:
        m.store.seed("file", b"1" * 10)
        async with m.at(FILE) as number:
            m.store.seed("file", b"2" * 20)
            m.channel.is_slow = True
            await m.expire()
            opened = await m.fs.open(number, os.O_RDONLY, UID)
            assert number in m.channel.expired
            assert await m.fs.read(opened.handle, 0, 100) == b"2" * 20
            await m.fs.release(opened.handle)

    run(test)


def test_nor_when_a_file_goes_on_with_a_version_that_a_listing_told_of(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"1" * 10)
        async with m.at(FILE) as number:
            opened = await m.fs.open(number, os.O_RDONLY, UID)
            m.store.seed("file", b"2" * 20)
            m.channel.is_slow = True
            await m.names(())
            assert number not in m.channel.expired
            assert m.fs.read_nowait(opened.handle, 0, 100) is None
            assert await m.fs.read(opened.handle, 0, 100) == b"2" * 20
            assert number in m.channel.expired
            await m.fs.release(opened.handle)

    run(test)


class LateStore(FakeStore):
    """A store whose answers to reads arrive long after it has read the bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.taken, self.arrive = threading.Event(), threading.Event()

    def get_range_into(
        self, version: ObjectVersion, start: int, buffer: memoryview
    ) -> ObjectInfo | None:
        info = super().get_range_into(version, start, buffer)
        self.taken.set()
        assert self.arrive.wait(60)
        return info


@pytest.mark.parametrize("is_killed", [False, True], ids=["waited for", "nobody waits for"])
@pytest.mark.parametrize("new", [b"n", b"a new and longer one"], ids=["shorter", "longer"])
def test_first_bytes_are_of_the_version_whose_size_the_kernel_was_told(
    run: Run, new: bytes, *, is_killed: bool
) -> None:
    """The object is replaced while they are on their way, and the kernel asks for the size: it
    would end the bytes of one version where the other ends.
    """
    store = LateStore()

    async def test(m: Mounted) -> None:
        store.seed("file", b"old one")
        opened = await m.open(FILE)
        got: list[bytes] = []

        program = trio.CancelScope()

        async def read() -> None:
            with program:
                got.append(bytes(await m.fs.read(opened.handle, 0, 100)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            assert await trio.to_thread.run_sync(store.taken.wait, 60)
            if is_killed:
                program.cancel()
            store.seed("file", new)
            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, trio.testing.MockClock)
            clock.jump(METADATA_TTL_SECONDS + 1)
            assert (await m.stat(FILE)).size == len(new)
            store.arrive.set()
        await m.bench.idle()
        if is_killed:
            assert m.fs.read_nowait(opened.handle, 0, 100) is None
            got.append(bytes(await m.fs.read(opened.handle, 0, 100)))
        assert got == [new]
        assert await m.read(opened) == new
        await m.close(opened)

    run(test, store=store)


def test_a_file_deleted_before_the_first_byte_is_not_there(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"old")
        opened = await m.open(FILE)
        m.store.erase("file")
        for _ in range(2):  # the kernel asks twice, the program is given the second answer
            with pytest.raises(NoSuchEntryError):
                await m.read(opened)
        await m.close(opened)
        assert not await m.exists(FILE)

    run(test)


def test_a_reader_that_was_given_bytes_is_never_given_those_of_another_version(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"o" * 900_000)
        first, second = await m.open(FILE), await m.open(FILE)
        assert await m.read(first, 0, 10) == b"o" * 10
        m.store.seed("file", b"n" * 900_000)
        for reader in (first, second):  # one inode of the kernel: one size, and its pages
            with pytest.raises(VersionChangedError):
                await m.read(reader, 700_000, 10)
        assert await m.read_file(FILE) == b"n" * 900_000
        await m.close(first)
        await m.close(second)

    run(test)


def test_reading_a_known_file_costs_one_request(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        await m.stat(FILE)
        m.store.take_requests()
        assert await m.read_file(FILE) == b"content"
        assert m.store.take_requests() == {"get_range_into": 1}

    run(test)


# -- open for writing sees what is there now -----------------------------------------------------


def test_opening_for_writing_asks_once_and_not_for_what_was_made_here(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        await m.stat(FILE)
        m.store.take_requests()
        opened = await m.open(FILE, os.O_RDWR)
        assert m.store.take_requests() == {"head": 1}
        await m.close(opened)
        made = await m.open(("made",), os.O_WRONLY | os.O_CREAT)
        m.store.take_requests()
        again = await m.open(("made",), os.O_WRONLY)
        assert m.store.take_requests() == {}
        await m.close(again)
        await m.close(made)

    run(test)


def test_two_hosts_that_append_in_turn_lose_no_line(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"a\n")
        for number in range(3):
            await m.read_file(FILE)
            m.store.seed("file", m.store.content("file") + b"theirs %d\n" % number)
            ours = await m.open(FILE, APPEND)
            await m.write(ours, 0, b"ours %d\n" % number)
            await m.close(ours)
        assert m.store.content("file").splitlines() == [
            b"a",
            b"theirs 0",
            b"ours 0",
            b"theirs 1",
            b"ours 1",
            b"theirs 2",
            b"ours 2",
        ]
        assert await m.read_file(FILE) == m.store.content("file")

    run(test)


def test_what_is_appended_at_the_same_time_comes_after_theirs(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"a\n")
        ours = await m.open(FILE, APPEND)
        await m.write(ours, 0, b"ours\n")
        m.store.seed("file", b"something quite different\n")
        await m.fsync(ours)
        assert m.store.content("file") == b"something quite different\nours\n"
        # The kernel still believes that the file ends where it did for it.
        await m.fs.write(ours.handle, len(b"a\nours\n"), b"more\n")
        await m.fs.write(ours.handle, len(b"a\nours\nmore\n"), b"and more\n")
        await m.close(ours)
        assert m.store.content("file") == b"something quite different\nours\nmore\nand more\n"
        assert await m.read_file(FILE) == m.store.content("file")

    run(test)


@pytest.mark.parametrize("times", [4, 12])
def test_an_end_is_appended_again_however_often_others_are_faster(run: Run, times: int) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"0")
        ours = await m.open(FILE, APPEND)
        await m.write(ours, 0, b"!")
        left = times

        def overtake(method: str, key: str) -> None:
            nonlocal left
            if method in ("put", "complete") and key == "file" and left:
                left -= 1
                m.store.seed("file", m.store.content("file") + b"+")

        m.store.on_request = overtake
        await m.close(ours)
        m.store.on_request = None
        assert m.store.content("file") == b"0" + b"+" * times + b"!"

    run(test)


def test_what_is_appended_to_a_file_that_others_deleted_makes_it_anew(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"a\n")
        ours = await m.open(FILE, APPEND)
        await m.write(ours, 0, b"ours\n")
        m.store.erase("file")
        await m.close(ours)
        assert m.store.content("file") == b"ours\n"

    run(test)


def test_a_file_made_by_an_append_that_others_made_too_keeps_their_lines(run: Run) -> None:
    async def test(m: Mounted) -> None:
        ours = await m.open(FILE, APPEND | os.O_CREAT)
        await m.write(ours, 0, b"ours\n")
        m.store.seed("file", b"theirs\n")
        await m.close(ours)
        assert m.store.content("file") == b"theirs\nours\n"

    run(test)


def test_a_reader_of_what_was_appended_to_meets_no_mixture(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"a\n")
        reader = await m.open(FILE)
        assert await m.read(reader) == b"a\n"
        ours = await m.open(FILE, APPEND)
        await m.write(ours, 0, b"ours\n")
        m.store.seed("file", b"THEIRS\n")
        await m.flush(ours)
        assert m.store.content("file") == b"THEIRS\nours\n"
        with pytest.raises(VersionChangedError):
            await m.fs.read(reader.handle, 0, 100)
        assert await m.read_file(FILE) == b"THEIRS\nours\n"
        await m.release(ours)
        await m.close(reader)

    run(test)


# -- other changes of a part ---------------------------------------------------------------------


@pytest.mark.parametrize("change", ["middle", "truncate"])
def test_a_part_is_never_changed_over_a_version_that_was_not_seen(run: Run, change: str) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"0123456789")
        ours = await m.open(FILE, os.O_RDWR)
        if change == "middle":
            await m.write(ours, 3, b"xx")
        else:
            await m.truncate(ours, 4)
        m.store.seed("file", b"theirs")
        with pytest.raises(VersionChangedError):
            await m.fsync(ours)
        with pytest.raises(VersionChangedError):
            await m.flush(ours)
        await m.release(ours)
        assert m.store.content("file") == b"theirs"
        (kept,) = Recovery(m.bench.writes.journal, TINY_PARTS).list()
        assert kept.key == "file"
        assert await m.read_file(FILE) == b"theirs"

    run(test)


@pytest.mark.parametrize("is_let_go", [True, False], ids=["let go", "being let go"])
@pytest.mark.parametrize("is_read", [True, False], ids=["read", "not read"])
def test_whoever_opens_a_file_after_a_change_was_refused_goes_on_with_what_is_there(
    run: Run, *, is_let_go: bool, is_read: bool
) -> None:
    """Also while somebody has it open for reading, or the kernel has not told of the last close."""

    async def test(m: Mounted) -> None:
        m.store.seed("file", b"0123456789")
        reader = await m.open(FILE) if is_read else None
        if reader is not None:
            assert await m.read(reader) == b"0123456789"
        ours = await m.open(FILE, os.O_RDWR)
        await m.write(ours, 3, b"xx")
        m.store.seed("file", b"theirs\n")
        with pytest.raises(VersionChangedError):
            await m.flush(ours)
        if is_let_go:
            await m.release(ours)
        assert (await m.stat(FILE)).size == len(b"theirs\n")
        assert await m.read_file(FILE) == b"theirs\n"
        more = await m.open(FILE, APPEND)
        await m.write(more, 0, b"more\n")
        await m.close(more)
        assert m.store.content("file") == b"theirs\nmore\n"
        if not is_let_go:
            with pytest.raises(VersionChangedError):
                await m.write(ours, 0, b"yy")
            await m.release(ours)
        if reader is not None:
            with contextlib.suppress(VersionChangedError):
                assert await m.read(reader) in (b"0123456789", b"012xx56789")
            await m.close(reader)
        (kept,) = Recovery(m.bench.writes.journal, TINY_PARTS).list()
        assert kept.key == "file"
        assert await m.read_file(FILE) == b"theirs\nmore\n"

    run(test)


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("is_given_bytes", [True, False])
def test_what_no_writer_is_left_to_store_is_set_aside_though_somebody_reads_the_file(
    run: Run, *, is_new: bool, is_given_bytes: bool
) -> None:
    async def test(m: Mounted) -> None:
        if not is_new:
            m.store.seed("file", b"a\n")
        ours = await m.open(FILE, APPEND | os.O_CREAT)
        reader = await m.open(FILE)
        await m.write(ours, 0, b"ours\n")
        if is_given_bytes:
            assert (await m.read(reader)).endswith(b"ours\n")
        for call in ("put", "start_multipart"):
            m.store.fail(call, StoreUnavailableError("gone", operation=call), times=100)
        with pytest.raises(StoreUnavailableError):
            await m.close(ours)
        m.store.mend()
        (kept,) = Recovery(m.bench.writes.journal, TINY_PARTS).list()
        assert kept.key == "file"
        await m.fs.sync()  # nothing is left that it could store
        if is_given_bytes or is_new:
            with pytest.raises(VersionChangedError):
                await m.read(reader)
        else:
            assert await m.read(reader) == b"a\n"
        more = await m.open(FILE, APPEND | os.O_CREAT)
        await m.write(more, 0, b"more\n")
        await m.close(more)
        await m.close(reader)
        assert m.store.content("file") == (b"" if is_new else b"a\n") + b"more\n"
        assert await m.read_file(FILE) == m.store.content("file")

    run(test)


def test_a_path_that_could_not_be_cut_off_leaves_nothing_though_somebody_reads_the_file(
    run: Run,
) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"0123456789")
        reader = await m.open(FILE)
        assert await m.read(reader, 0, 3) == b"012"

        def overtake(method: str, _key: str) -> None:
            if method != "head":
                m.store.on_request = None
                m.store.seed("file", b"theirs, and longer")

        m.store.on_request = overtake
        with pytest.raises(VersionChangedError):
            await m.change(FILE, size=7)
        await m.change(FILE, size=7)  # as the kernel does
        assert m.store.content("file") == b"theirs,"
        await m.close(reader)
        assert m.store.content("file") == b"theirs,"
        assert not Recovery(m.bench.writes.journal, TINY_PARTS).list()

    run(test)


@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_TRUNC])
def test_whoever_stores_a_whole_new_content_last_wins(run: Run, flags: int) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"0123456789")
        ours = await m.open(FILE, flags)
        await m.write(ours, 0, b"ours")
        m.store.seed("file", b"theirs")
        await m.close(ours)
        assert m.store.content("file") == b"ours"

    run(test)


@pytest.mark.parametrize("size", [7, 10], ids=["shorter", "as long as it was"])
def test_a_path_that_is_cut_off_is_the_one_that_is_there(run: Run, size: int) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"0123456789")
        await m.stat(FILE)
        m.store.seed("file", b"another version")
        try:
            await m.change(FILE, size=size)
        except (VersionChangedError, StaleInodeError):
            await m.change(FILE, size=size)  # as the kernel does
        assert m.store.content("file") == b"another version"[:size]

    run(test)


def test_two_writers_here_and_one_elsewhere(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"")
        one, two = await m.open(FILE, APPEND), await m.open(FILE, APPEND)
        async with trio.open_nursery() as nursery:
            for number in range(5):
                await m.write(one, 0, b"1")
                m.store.seed("file", m.store.content("file") + b"%d" % (3 + number))
                nursery.start_soon(m.fsync, one)
                await m.write(two, 0, b"2")
                await m.fsync(two)
        await m.close(one)
        await m.close(two)
        stored = m.store.content("file")
        assert (stored.count(b"1"), stored.count(b"2"), len(stored)) == (5, 5, 15)

    run(test)


# -- names that were absent a moment ago ---------------------------------------------------------


@pytest.mark.parametrize("flags", [os.O_WRONLY, APPEND, os.O_RDWR])
def test_an_empty_file_made_where_others_stored_one_meanwhile_leaves_theirs(
    run: Run, flags: int
) -> None:
    """As touch(1) does: it opens what is there, or makes it."""

    async def test(m: Mounted) -> None:
        assert not await m.exists(FILE)
        m.store.seed("file", b"theirs", metadata={"mode": str(0o100600)})
        await m.close(await m.open(FILE, flags | os.O_CREAT))
        assert m.store.content("file") == b"theirs"
        assert await m.read_file(FILE) == b"theirs"
        assert (await m.stat(FILE)).mode & 0o777 == 0o600

    run(test, negative_ttl_seconds=60.0)


def test_bytes_written_where_others_stored_a_file_meanwhile_do_not_replace_it(run: Run) -> None:
    async def test(m: Mounted) -> None:
        assert not await m.exists(FILE)
        m.store.seed("file", b"theirs")
        opened = await m.open(FILE, os.O_RDWR | os.O_CREAT)
        await m.write(opened, 0, b"ours")
        with pytest.raises(VersionChangedError):
            await m.close(opened)
        assert m.store.content("file") == b"theirs"

    run(test, negative_ttl_seconds=60.0)


def test_a_whole_new_content_replaces_what_others_stored_meanwhile(run: Run) -> None:
    async def test(m: Mounted) -> None:
        assert not await m.exists(FILE)
        m.store.seed("file", b"theirs")
        await m.write_file(FILE, b"ours")
        assert m.store.content("file") == b"ours"

    run(test, negative_ttl_seconds=60.0)


def test_a_path_that_is_cut_off_is_the_one_that_is_there_whatever_is_read_meanwhile(
    run: Run,
) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"old and read")
        reader = await m.open(FILE)
        assert await m.read(reader, 0, 3) == b"old"
        m.store.seed("file", b"new and longer than before")
        with pytest.raises(StaleInodeError):
            await m.change(FILE, size=7)  # the kernel looks the path up again
        await m.change(FILE, size=7)
        assert m.store.content("file") == b"new and"
        await m.close(reader)
        assert m.store.content("file") == b"new and"

    run(test)


@pytest.mark.parametrize("theirs", [b"theirs\n", b""])
def test_a_shell_that_makes_a_file_which_others_made_too_appends_to_theirs(
    run: Run, theirs: bytes
) -> None:
    """It closes a duplicate of its descriptor before it writes."""

    async def test(m: Mounted) -> None:
        ours = await m.open(FILE, APPEND | os.O_CREAT)
        m.store.seed("file", theirs, metadata={"colour": "blue"})
        await m.flush(ours)
        assert m.store.content("file") == theirs
        await m.write(ours, 0, b"ours\n")
        m.store.seed("file", theirs + b"more\n", metadata={"colour": "blue"})
        await m.close(ours)
        assert m.store.content("file") == theirs + b"more\nours\n"
        assert await m.read_file(FILE) == m.store.content("file")

    run(test)


@pytest.mark.parametrize("is_new", [True, False])
def test_an_append_that_failed_half_way_is_tried_over_what_it_has_seen_only(
    run: Run, is_new: bool
) -> None:
    async def test(m: Mounted) -> None:
        if not is_new:
            m.store.seed("file", b"a\n")
        ours = await m.open(FILE, APPEND | os.O_CREAT)
        await m.write(ours, 0, b"ours\n")
        m.store.seed("file", b"a\ntheirs\n")

        def fail_then(method: str, _key: str) -> None:
            if method == "head":  # it asks what to append to; what comes next is to fail
                m.store.on_request = None
                for call in ("put", "start_multipart"):
                    m.store.fail(call, StoreUnavailableError("gone", operation=call))

        m.store.on_request = fail_then
        with pytest.raises(StoreUnavailableError):
            await m.fsync(ours)
        assert m.store.content("file") == b"a\ntheirs\n"
        m.store.mend()
        await m.fsync(ours)
        assert m.store.content("file") == b"a\ntheirs\nours\n"
        await m.close(ours)

    run(test)


# -- odd stores ------------------------------------------------------------------------------------


@pytest.mark.parametrize("etag", ["another", '"quoted"', "weird-12", ""])
def test_an_etag_that_changes_without_the_content_loses_nothing(run: Run, etag: str) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"o" * 9_000)
        reader, writer = await m.open(FILE), await m.open(FILE, APPEND)
        assert await m.read(reader, 0, 10) == b"o" * 10
        await m.write(writer, 0, b"ours")
        stored = m.store.objects["file"]
        m.store.objects["file"] = replace(stored, info=stored.info._replace(etag=etag))
        with contextlib.suppress(VersionChangedError):
            assert await m.read(reader, 8_000, 10) == b"o" * 10
        await m.close(writer)
        await m.close(reader)
        assert m.store.content("file") == b"o" * 9_000 + b"ours"
        assert await m.read_file(FILE) == m.store.content("file")

    run(test)


def test_what_others_wrote_with_a_clock_that_jumps_is_seen(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"first")
        assert await m.read_file(FILE) == b"first"
        for content, mtime_ns in ((b"second", 0), (b"third!", 2**62), (b"fourth", 1)):
            m.store.seed("file", content)
            stored = m.store.objects["file"]
            m.store.objects["file"] = replace(stored, info=stored.info._replace(mtime_ns=mtime_ns))
            await m.expire()
            assert await m.read_file(FILE) == content
            ours = await m.open(FILE, APPEND)
            await m.write(ours, 0, b" and ours")
            await m.close(ours)
            assert m.store.content("file") == content + b" and ours"
            assert await m.read_file(FILE) == content + b" and ours"

    run(test)


def test_whoever_opens_what_was_appended_to_is_sent_to_its_new_end(run: Run) -> None:
    """The kernel appends at the end it knows: its own bytes without those of others before."""

    async def test(m: Mounted) -> None:
        ours = await m.open(FILE, APPEND | os.O_CREAT)
        await m.write(ours, 0, b"ours\n")
        m.store.seed("file", b"theirs\n")
        await m.fsync(ours)
        with pytest.raises(StaleInodeError):
            await m.fs.open(ours.inode, APPEND, UID)
        assert (await m.stat(FILE)).size == len(b"theirs\nours\n")
        again = await m.open(FILE, APPEND)
        await m.write(again, 0, b"more\n")
        await m.close(again)
        await m.close(ours)
        assert m.store.content("file") == b"theirs\nours\nmore\n"

    run(test)


def test_a_descriptor_that_appends_never_writes_in_the_middle(run: Run) -> None:
    """Whatever the kernel takes for the end."""

    async def test(m: Mounted) -> None:
        m.store.seed("file", b"0123456789")
        ours = await m.open(FILE, APPEND)
        assert ours.past_pages
        await m.fs.write(ours.handle, 4, b"ours\n")
        await m.close(ours)
        assert m.store.content("file") == b"0123456789ours\n"

    run(test)


def test_a_bucket_that_was_deleted_and_made_again_is_worked_in_again(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"1")
        assert await m.read_file(FILE) == b"1"
        ours = await m.open(("new",), os.O_WRONLY | os.O_CREAT)
        await m.write(ours, 0, b"kept")
        m.store.objects.clear()
        for call in ("put", "start_multipart", "list_page"):
            m.store.fail(call, BucketMissingError("no such bucket", operation=call), times=100)
        await m.expire()
        with pytest.raises((NoSuchEntryError, BucketMissingError)):
            await m.read_file(FILE)
        with pytest.raises(BucketMissingError):
            await m.fsync(ours)
        with pytest.raises(ListingFailedError):
            await m.names()
        m.store.mend()
        await m.expire()
        await m.fsync(ours)
        assert m.store.content("new") == b"kept"
        await m.close(ours)
        assert await m.names() == ["new"]
        await m.write_file(FILE, b"2")
        assert m.store.content("file") == b"2"

    run(test)
