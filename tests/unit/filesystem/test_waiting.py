"""Programs that go away while they wait for close or fsync: what they wait for goes on."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from ossfs_py.errors import AccessDeniedError, StoreUnavailableError
from ossfs_py.writing.recovery import Recovery
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Descriptor, Mounted, Names, on_mount
from tests.support.mounting import DATA_PATHS
from tests.support.writing import TINY_PARTS

Run = Callable[[Callable[[Mounted], Awaitable[None]]], FakeStore]
Wait = Callable[[Mounted, Descriptor], Awaitable[None]]

CREATE = os.O_WRONLY | os.O_CREAT
FILE: Names = ("file",)
OTHER: Names = ("other",)
PATIENCE_SECONDS = 30.0


@pytest.fixture(params=DATA_PATHS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    return lambda test: on_mount(request.param, tmp_path, test)


@pytest.fixture(params=["flush", "fsync"])
def wait(request: pytest.FixtureRequest) -> Wait:
    """Either way of waiting for the store."""
    if request.param == "flush":
        return lambda m, opened: m.flush(opened)
    return lambda m, opened: m.fsync(opened)


async def given_up(m: Mounted, opened: Descriptor, wait: Wait, method: str) -> None:
    """Wait until the store is asked, and then no more."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, m, opened)
        while not m.store.requests[method]:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("size", "method"), [(4, "put"), (60, "upload_part"), (60, "complete")])
def test_an_upload_goes_on_when_nobody_waits_for_it_any_more(
    run: Run, wait: Wait, size: int, method: str
) -> None:
    async def test(m: Mounted) -> None:
        opened = await m.open(FILE, CREATE)
        await m.write(opened, 0, b"x" * size)
        gate = m.store.hold(method)
        await given_up(m, opened, wait, method)
        # The dying process closes its descriptors: that call is given up, too.
        with trio.move_on_after(0):
            await m.flush(opened)
        await m.release(opened)
        assert await m.names() == ["file"]
        gate.set()
        await m.bench.idle()
        assert await m.read_file(FILE) == b"x" * size

    assert run(test).content("file") == b"x" * size


def test_what_cannot_be_stored_for_a_program_that_is_gone_is_kept(run: Run, wait: Wait) -> None:
    async def test(m: Mounted) -> None:
        opened = await m.open(FILE, CREATE)
        await m.write(opened, 0, b"content")
        gate = m.store.hold("put")
        m.store.fail("put", AccessDeniedError("no"), times=2)
        await given_up(m, opened, wait, "put")
        await m.release(opened)
        gate.set()
        with trio.fail_after(PATIENCE_SECONDS):
            while m.fs.open_files:
                await trio.lowlevel.checkpoint()
        (record,) = Recovery(m.bench.writes.journal, TINY_PARTS).list()
        assert record.key == "file"
        assert record.size == 7

    assert run(test).keys() == []


def test_who_else_has_the_file_open_tries_again_what_failed_for_a_killed_one(
    run: Run, wait: Wait
) -> None:
    async def test(m: Mounted) -> None:
        killed, other = await m.open(FILE, CREATE), await m.open(FILE, os.O_RDWR)
        await m.write(killed, 0, b"content")
        gate = m.store.hold("put")
        m.store.fail("put", StoreUnavailableError("down"))
        await given_up(m, killed, wait, "put")
        await m.release(killed)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.fsync, other)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        assert m.store.content("file") == b"content"
        await m.close(other)

    assert run(test).content("file") == b"content"


def test_a_rename_waits_for_an_upload_that_nobody_waits_for(run: Run, wait: Wait) -> None:
    async def test(m: Mounted) -> None:
        opened = await m.open(FILE, CREATE)
        await m.write(opened, 0, b"content")
        gate = m.store.hold("put")
        await given_up(m, opened, wait, "put")
        await m.release(opened)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.rename, FILE, OTHER)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        assert await m.read_file(OTHER) == b"content"

    assert run(test).keys() == ["other"]


def test_a_mount_that_ends_waits_for_what_nobody_else_waits_for(run: Run, wait: Wait) -> None:
    async def test(m: Mounted) -> None:
        opened = await m.open(FILE, CREATE)
        await m.write(opened, 0, b"content")
        gate = m.store.hold("put")
        await given_up(m, opened, wait, "put")
        await m.release(opened)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.fs.drain)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()

    assert run(test).content("file") == b"content"
