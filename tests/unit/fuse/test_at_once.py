"""Requests about small files of write-back that take no coroutine: what a program does with each
file that it unpacks.

Each of them is answered as by its handler, and what cannot be done at once is left to that.
"""

import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ossfs_py.errors import UNKNOWN_REQUEST
from ossfs_py.filesystem.handle import Handle
from ossfs_py.fuse import wire
from ossfs_py.fuse.adapter import Adapter
from ossfs_py.fuse.lane import Lane
from ossfs_py.fuse.recorded import RecordedAdapter
from ossfs_py.fuse.relay import socket_pair
from ossfs_py.fuse.wire import Opcode
from ossfs_py.model import ObjectVersion
from ossfs_py.telemetry.accesslog import AccessLog
from ossfs_py.telemetry.metrics import Metrics
from ossfs_py.writing.context import WriteLimits
from ossfs_py.writing.segments import SegmentLog
from tests.support.filesystems import Mounted, mounted

_ATTRIBUTES_AT = {"entry": wire.OUT_HEADER.size + 40, "attributes": wire.OUT_HEADER.size + 16}
_ATTRIBUTES = struct.Struct("=QQQqqqIIIIIIIIII")
"""struct fuse_attr."""
_SETATTR = struct.Struct("=IIQQQqqqIIIIIIII")
"""struct fuse_setattr_in."""
MODE, UID, GID, SIZE, ATIME, MTIME, HANDLE, KILLS = 1, 2, 4, 8, 16, 32, 64, 1 << 11
CREATING = os.O_CREAT | os.O_EXCL | os.O_WRONLY
CONTENT = bytes(range(200)) * 30
SECONDS = 1_700_000_000
"""The time that the program sets."""


class Kernel:
    """Asks a lane, and tells whether it took a coroutine."""

    def __init__(self, lane: Lane, answers: socket.socket) -> None:
        self._lane = lane
        self._answers = answers
        self._unique = 0
        self.coroutines: list[int] = []
        """The opcodes that took one."""

    async def ask(self, opcode: int, node: int, payload: bytes) -> bytes:
        """The answer."""
        self._unique += 2
        size = wire.HEADER.size + len(payload)
        head = wire.HEADER.pack(size, opcode, self._unique, node, 7, 8, os.getpid(), 0)
        served = self._lane._taken_up(memoryview(bytearray(head + payload)))
        if served is not None:
            self.coroutines.append(opcode)
            await served
        answer = self._answers.recv(4096)
        length, _, unique = wire.OUT_HEADER.unpack_from(answer)
        assert (length, unique) == (len(answer), self._unique)
        return answer

    async def done(self, opcode: int, node: int, payload: bytes) -> bytes:
        """The answer without an error."""
        answer = await self.ask(opcode, node, payload)
        assert error_of(answer) == 0, errno.errorcode[error_of(answer)]
        return answer

    async def look_up(self, name: bytes, node: int = 1) -> bytes:
        return await self.ask(Opcode.LOOKUP, node, name + b"\0")

    async def create(self, name: bytes, flags: int = CREATING, mode: int = 0o600) -> bytes:
        asked = wire.CREATE_IN.pack(flags, 0o100000 | mode, 0o22, 0)
        return await self.ask(Opcode.CREATE, 1, asked + name + b"\0")

    async def made(self, name: bytes, flags: int = CREATING) -> tuple[int, int]:
        """Node and handle of a new file."""
        answer = await self.create(name, flags)
        assert error_of(answer) == 0
        (node,) = struct.unpack_from("=Q", answer, wire.OUT_HEADER.size)
        (handle,) = struct.unpack_from("=Q", answer, wire.OUT_HEADER.size + 128)
        return node, handle

    async def write(self, node: int, handle: int, offset: int, data: bytes) -> bytes:
        asked = wire.WRITE_IN.pack(handle, offset, len(data), 0, 0, 0, 0)
        return await self.ask(Opcode.WRITE, node, asked + data)

    async def change(
        self, node: int, handle: int, fields: int, *, mode: int = 0, uid: int = 7, size: int = 0
    ) -> bytes:
        asked = _SETATTR.pack(
            *(fields | HANDLE, 0, handle, size, 0, SECONDS, SECONDS, 0, 5, 6, 0),
            *(0o100000 | mode, 0, uid, 9, 0),
        )
        return await self.ask(Opcode.SETATTR, node, asked)

    async def make_directory(self, name: bytes, mode: int = 0o700) -> bytes:
        asked = wire.MKDIR_IN.pack(mode, 0o22)
        return await self.ask(Opcode.MKDIR, 1, asked + name + b"\0")

    async def close(self, node: int, handle: int) -> bytes:
        flushed = await self.ask(Opcode.FLUSH, node, struct.pack("=QIIQ", handle, 0, 0, 0))
        await self.done(Opcode.RELEASE, node, struct.pack("=QIIQ", handle, 0, 0, 0))
        return flushed


def error_of(answer: bytes) -> int:
    return -int(wire.OUT_HEADER.unpack_from(answer)[1])


def shown(answer: bytes, kind: str = "attributes") -> tuple[int, ...]:
    """Size, mode, uid, gid and mtime in an answer."""
    told = _ATTRIBUTES.unpack_from(answer, _ATTRIBUTES_AT[kind])
    return told[1], told[9], told[11], told[12], told[4], told[7]


@asynccontextmanager
async def asked(
    root: Path, make: Callable[[Mounted], Adapter] | None = None, **options: object
) -> AsyncIterator[tuple[Kernel, Mounted]]:
    settings = {"write_back": True, "limits": WriteLimits(), "negative_ttl_seconds": 60.0}
    async with mounted("temp", root, **{**settings, **options}) as m:  # type: ignore[arg-type]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        to_pyfuse3, relayed = socket_pair()
        with ours, theirs, to_pyfuse3, relayed:
            adapter = Adapter(m.fs, Metrics()) if make is None else make(m)
            adapter.answers_lane = True
            lane = Lane(adapter, ours.fileno(), to_pyfuse3, threads=1)
            yield Kernel(lane, theirs), m
            lane.close()


def full(*_arguments: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Witness:
    def opened(self, number: int, handle: Handle) -> None:
        pass

    def released(self, number: int) -> None:
        pass


async def unpack(kernel: Kernel, name: bytes = b"file") -> list[bytes]:
    """What tar does with a file."""
    answers = [await kernel.look_up(name)]
    node, handle = await kernel.made(name)
    answers.append(await kernel.write(node, handle, 0, CONTENT[:4096]))
    answers.append(await kernel.write(node, handle, 4096, CONTENT[4096:]))
    answers.append(await kernel.change(node, handle, ATIME | MTIME))
    answers.append(await kernel.change(node, handle, UID | GID | KILLS))
    answers.append(await kernel.change(node, handle, MODE, mode=0o644))
    answers.append(await kernel.close(node, handle))
    answers.append(await kernel.look_up(name))
    return answers


def run(test: Callable[[], Awaitable[None]]) -> None:
    trio.run(test)


def test_a_file_that_is_unpacked_takes_no_coroutine(tmp_path: Path) -> None:
    async def test() -> None:
        async with asked(tmp_path) as (kernel, m):
            await kernel.look_up(b"none")
            await kernel.look_up(b"nor")  # now the directory is listed
            kernel.coroutines.clear()
            answers = await unpack(kernel)
            assert kernel.coroutines == []
            expected = (len(CONTENT), 0o100644, 7, 9, SECONDS, 6)
            assert shown(answers[-1], "entry") == expected
            assert shown(answers[-3]) == expected
            assert m.fs.pending_uploads == 1
            assert m.fs.open_files == 1
            await m.fs.sync()
            assert m.store.content("file") == CONTENT
            metadata = m.store.head("file").metadata or {}
            assert metadata["mode"] == str(0o100644)
            assert (metadata["uid"], metadata["gid"]) == ("7", "9")
            assert metadata["mtime"] == f"{SECONDS}.000000006"
            assert m.fs.open_files == 0

    run(test)


def test_the_answers_are_those_of_the_handlers(tmp_path: Path) -> None:
    """An access log has a line from each handler: with it every request takes a coroutine."""

    def without(answer: bytes) -> bytes:
        """What differs between two files: the number of the request, and times of now."""
        if len(answer) < 100:
            return answer[:8] + answer[16:]
        kind = "attributes" if len(answer) < 130 else "entry"
        return repr(shown(answer, kind)).encode()

    async def test() -> None:
        access = AccessLog(tmp_path / "access", None)
        (tmp_path / "one").mkdir()
        (tmp_path / "other").mkdir()
        async with asked(tmp_path / "one") as (kernel, m):
            at_once = [*await unpack(kernel), await kernel.create(b"file")]
            await m.fs.sync()
            stored = m.store.head("file")
        async with asked(
            tmp_path / "other", lambda m: RecordedAdapter(m.fs, Metrics(), access)
        ) as (kernel, m):
            by_handlers = [*await unpack(kernel), await kernel.create(b"file")]
            assert len(kernel.coroutines) == len(by_handlers) + 2
            await m.fs.sync()
            other = m.store.head("file")
        access.close()
        assert list(map(without, at_once)) == list(map(without, by_handlers))
        assert error_of(at_once[-1]) == errno.EEXIST
        told, other_told = dict(stored.metadata or {}), dict(other.metadata or {})
        told.pop("ctime")
        other_told.pop("ctime")
        assert (told, stored.etag) == (other_told, other.etag)

    run(test)


async def unpack_directory(kernel: Kernel, name: bytes = b"dir") -> list[bytes]:
    """What tar does with a directory."""
    answers = [await kernel.look_up(name), await kernel.make_directory(name)]
    (node,) = struct.unpack_from("=Q", answers[-1], wire.OUT_HEADER.size)
    answers.append(await kernel.look_up(b"inside", node))
    answers.append(await kernel.change(node, 0, ATIME | MTIME))
    asked = wire.XATTR_IN.pack(24, 0) + b"security.capability\0"
    answers.append(await kernel.ask(Opcode.GETXATTR, node, asked))
    answers.append(await kernel.change(node, 0, UID | GID | KILLS))
    answers.append(await kernel.change(node, 0, MODE, mode=0o2755))
    answers.append(await kernel.look_up(name))
    return answers


def test_a_directory_that_is_unpacked_takes_no_coroutine(tmp_path: Path) -> None:
    async def test() -> None:
        async with asked(tmp_path) as (kernel, m):
            await kernel.look_up(b"none")
            await kernel.look_up(b"nor")
            kernel.coroutines.clear()
            answers = await unpack_directory(kernel)
            assert kernel.coroutines == []
            assert shown(answers[-1], "entry") == (0, 0o42755, 7, 9, SECONDS, 6)
            assert error_of(answers[4]) == errno.ENODATA
            (record,) = m.bench.writes.journal.leftover_markers()
            assert record.metadata["mode"] == str(0o42755)
            assert record.metadata["mtime"] == f"{SECONDS}.000000006"
            assert error_of(await kernel.make_directory(b"dir")) == errno.EEXIST
            await m.fs.sync()
            assert dict(m.store.head("dir/").metadata or {}) == dict(record.metadata)

    run(test)


@pytest.mark.parametrize("kind", ["slow", "full", "read by the next daemon", "read-only"])
def test_directories_that_cannot_be_made_at_once_are_left_to_the_handlers(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with asked(tmp_path, read_only=kind == "read-only") as (kernel, m):
            await kernel.look_up(b"none")
            await kernel.look_up(b"nor")
            kernel.coroutines.clear()
            if kind == "slow":
                monkeypatch.setattr(SegmentLog, "is_slow", True)
            elif kind == "read by the next daemon":
                m.fs._handles.witness = Witness()
            elif kind == "full":
                made = await kernel.make_directory(b"other")
                (node,) = struct.unpack_from("=Q", made, wire.OUT_HEADER.size)
                with monkeypatch.context() as patch:
                    patch.setattr(os, "pwritev", full)
                    assert error_of(await kernel.make_directory(b"dir")) == errno.ENOSPC
                    assert error_of(await kernel.change(node, 0, MODE)) == errno.ENOSPC
                assert kernel.coroutines == [Opcode.MKDIR, Opcode.SETATTR]
                await kernel.change(node, 0, MODE, mode=0o750)
            if kind == "read-only":
                assert error_of(await kernel.make_directory(b"dir")) == errno.EROFS
                assert kernel.coroutines == [Opcode.MKDIR]
                return
            if kind != "full":
                answers = await unpack_directory(kernel)
                assert shown(answers[-1], "entry") == (0, 0o42755, 7, 9, SECONDS, 6)
                assert {Opcode.MKDIR, Opcode.SETATTR} <= set(kernel.coroutines)
            await m.fs.sync()
            name = "other/" if kind == "full" else "dir/"
            mode = 0o40750 if kind == "full" else 0o42755
            assert (m.store.head(name).metadata or {})["mode"] == str(mode)

    run(test)


def test_pythons_ioctl_takes_no_coroutine(tmp_path: Path) -> None:
    async def test() -> None:
        async with asked(tmp_path) as (kernel, _m):
            answer = await kernel.ask(Opcode.IOCTL, 1, bytes(32))
            assert error_of(answer) == UNKNOWN_REQUEST
            assert kernel.coroutines == []

    run(test)


def test_an_empty_file_takes_no_coroutine_either(tmp_path: Path) -> None:
    async def test() -> None:
        async with asked(tmp_path) as (kernel, m):
            await kernel.look_up(b"none")
            kernel.coroutines.clear()
            await kernel.close(*await kernel.made(b"empty"))
            assert kernel.coroutines == []
            await m.fs.sync()
            assert m.store.content("empty") == b""

    run(test)


def test_a_closed_file_is_in_the_journal_with_what_is_changed_later(tmp_path: Path) -> None:
    """What rsync and git do: mode and times after the close. Then the daemon is killed."""

    async def killed(kernel: Kernel, m: Mounted) -> None:
        node, handle = await kernel.made(b"file")
        await kernel.write(node, handle, 0, CONTENT)
        assert error_of(await kernel.close(node, handle)) == 0
        for fields, mode in ((MODE, 0o640), (MODE, 0o644), (ATIME | MTIME, 0)):
            before = entries(m)
            assert error_of(await kernel.change(node, 0, fields, mode=mode)) == 0
            assert entries(m) == before + 1

    def entries(m: Mounted) -> int:
        """How many entries the journal has."""
        (log,) = (m.bench.writes.journal.directory / "segments").glob("*.log")
        return log.read_bytes().count(b'{"format":')

    async def test() -> None:
        async with asked(tmp_path) as (kernel, m):
            await killed(kernel, m)
            assert Opcode.SETATTR not in kernel.coroutines
            journal = m.bench.writes.journal
            (text,) = [each.text for each in journal._segments.adopt()[0].values()]
            assert f'"mode": "{0o100644}"' in text
            assert f'"mtime": "{SECONDS}.000000006"' in text
            assert '"complete": true' in text
            await m.fs.sync()

    run(test)


@pytest.mark.parametrize("kind", ["slow", "full", "read by the next daemon", "read-only"])
def test_what_cannot_be_done_at_once_is_left_to_the_handlers(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with asked(tmp_path, read_only=kind == "read-only") as (kernel, m):
            await kernel.look_up(b"none")
            kernel.coroutines.clear()
            if kind == "slow":
                monkeypatch.setattr(SegmentLog, "is_slow", True)
            elif kind == "read by the next daemon":
                m.fs._handles.witness = Witness()
            if kind == "read-only":
                assert error_of(await kernel.create(b"file")) == errno.EROFS
                assert kernel.coroutines == [Opcode.CREATE]
                return
            node, handle = await kernel.made(b"file")
            await kernel.write(node, handle, 0, CONTENT)
            if kind == "full":
                with monkeypatch.context() as patch:
                    patch.setattr(os, "pwritev", full)
                    refused = await kernel.change(node, handle, UID, uid=70)
                    assert error_of(refused) == errno.ENOSPC
                    assert kernel.coroutines == [Opcode.SETATTR]
            else:
                assert error_of(await kernel.change(node, handle, UID, uid=70)) == 0
            assert error_of(await kernel.close(node, handle)) == 0
            await m.fs.sync()
            assert m.store.content("file") == CONTENT
            assert (m.store.head("file").metadata or {})["uid"] == "70"
            if kind == "slow":
                assert {Opcode.WRITE, Opcode.SETATTR, Opcode.FLUSH} <= set(kernel.coroutines)
            if kind == "read by the next daemon":
                assert {Opcode.CREATE, Opcode.WRITE, Opcode.RELEASE} <= set(kernel.coroutines)

    run(test)


def test_a_close_that_has_to_store_waits_for_it(tmp_path: Path) -> None:
    """Without write-back, and of a file that is not small."""

    async def test() -> None:
        async with asked(tmp_path, write_back=False) as (kernel, m):
            node, handle = await kernel.made(b"file")
            await kernel.write(node, handle, 0, CONTENT)
            assert error_of(await kernel.change(node, handle, MODE, mode=0o644)) == 0
            kernel.coroutines.clear()
            assert error_of(await kernel.close(node, handle)) == 0
            assert kernel.coroutines == [Opcode.FLUSH, Opcode.RELEASE]
            assert m.store.content("file") == CONTENT

    run(test)


def test_set_id_bits_are_cleared_by_a_change_of_the_owner(tmp_path: Path) -> None:
    async def test() -> None:
        async with asked(tmp_path) as (kernel, _m):
            node, handle = await kernel.made(b"file")
            await kernel.write(node, handle, 0, CONTENT)
            await kernel.change(node, handle, MODE, mode=0o4755)
            answer = await kernel.change(node, handle, UID | KILLS, uid=70)
            assert shown(answer)[1:3] == (0o100755, 70)
            assert Opcode.SETATTR in kernel.coroutines
            await kernel.close(node, handle)

    run(test)


def test_truncating_goes_to_the_handler(tmp_path: Path) -> None:
    async def test() -> None:
        async with asked(tmp_path) as (kernel, m):
            node, handle = await kernel.made(b"file")
            await kernel.write(node, handle, 0, CONTENT)
            assert shown(await kernel.change(node, handle, SIZE, size=5))[0] == 5
            await kernel.close(node, handle)
            await m.fs.sync()
            assert m.store.content("file") == CONTENT[:5]

    run(test)


def test_a_file_that_others_have_open_is_released_at_the_end_only(tmp_path: Path) -> None:
    async def test() -> None:
        async with asked(tmp_path) as (kernel, m):
            node, handle = await kernel.made(b"file")
            await kernel.write(node, handle, 0, CONTENT)
            other = await m.fs.open(node, os.O_RDONLY, 0)
            await kernel.close(node, handle)
            await m.fs.sync()
            assert m.fs.open_files == 1
            assert bytes(m.fs.read_nowait(other.handle, 0, 10) or b"") == CONTENT[:10]
            await m.fs.release(other.handle)
            assert m.fs.open_files == 0
            assert isinstance(m.store.head("file").version, ObjectVersion)

    run(test)


async def opened(kernel: Kernel, name: bytes, flags: int = os.O_RDONLY) -> tuple[int, int]:
    """Node and handle of a stored file."""
    entry = await kernel.look_up(name)
    (node,) = struct.unpack_from("=Q", entry, wire.OUT_HEADER.size)
    answer = await kernel.done(Opcode.OPEN, node, wire.OPEN_IN.pack(flags, 0))
    (handle,) = struct.unpack_from("=Q", answer, wire.OUT_HEADER.size)
    return node, handle


async def release(kernel: Kernel, node: int, handle: int) -> None:
    await kernel.done(Opcode.RELEASE, node, struct.pack("=QIIQ", handle, 0, 0, 0))


def test_who_reads_a_file_opens_and_closes_it_without_a_coroutine(tmp_path: Path) -> None:
    async def test() -> None:
        async with asked(tmp_path) as (kernel, m):
            m.store.seed("file", b"stored")
            await kernel.look_up(b"file")
            kernel.coroutines.clear()
            node, handle = await opened(kernel, b"file")
            again, second = await opened(kernel, b"file")
            assert again == node
            assert second != handle
            assert m.fs.open_files == 1
            await release(kernel, node, handle)
            assert m.fs.open_files == 1
            await release(kernel, node, second)
            assert m.fs.open_files == 0
            assert kernel.coroutines == []
            node, handle = await opened(kernel, b"file")
            assert bytes(await m.fs.read(handle, 0, 4096)) == b"stored"
            await release(kernel, node, handle)
            assert kernel.coroutines == []
            assert m.fs.open_files == 0

    run(test)


def test_what_was_removed_while_it_was_read_is_let_go_by_the_handler(tmp_path: Path) -> None:
    async def test() -> None:
        async with asked(tmp_path, removes_behind=False) as (kernel, m):
            m.store.seed("file", b"stored")
            node, handle = await opened(kernel, b"file")
            await kernel.done(Opcode.UNLINK, 1, b"file\0")
            assert bytes(await m.fs.read(handle, 0, 4096)) == b"stored"
            kernel.coroutines.clear()
            await release(kernel, node, handle)
            assert kernel.coroutines == [Opcode.RELEASE]
            await m.fs.sync()
            assert m.fs.open_files == 0
            keys = m.store.keys()
            assert "file" not in keys

    run(test)


def test_opens_that_have_to_ask_or_that_write_are_left_to_the_handler(tmp_path: Path) -> None:
    async def test() -> None:
        async with asked(tmp_path) as (kernel, m):
            m.store.seed("file", b"stored")
            node, handle = await opened(kernel, b"file", os.O_RDWR)
            assert kernel.coroutines[-1] == Opcode.OPEN
            await kernel.write(node, handle, 0, b"S")
            kernel.coroutines.clear()
            # What is written is not stored yet.
            _, reading = await opened(kernel, b"file")
            assert kernel.coroutines == [Opcode.OPEN]
            assert bytes(await m.fs.read(reading, 0, 4096)) == b"Stored"
            await kernel.close(node, handle)
            await m.fs.sync()
            await release(kernel, node, reading)
            inode = m.fs._namespace.inode(node)
            # It is not known any more which version the store has.
            m.store.seed("file", b"another")
            m.fs._namespace.invalidate(inode)
            kernel.coroutines.clear()
            request = wire.OPEN_IN.pack(os.O_RDONLY, 0)
            answer = await kernel.ask(Opcode.OPEN, node, request)
            assert kernel.coroutines == [Opcode.OPEN]
            assert error_of(answer) in (0, errno.ESTALE, errno.ENOENT)
            directory = await kernel.ask(Opcode.OPEN, 1, request)
            assert error_of(directory) == errno.EISDIR
            assert error_of(await kernel.ask(Opcode.OPEN, 999, request)) == errno.ESTALE

    run(test)


def test_with_records_for_the_next_daemon_a_reader_takes_coroutines(tmp_path: Path) -> None:
    async def test() -> None:
        async with asked(tmp_path) as (kernel, m):
            m.store.seed("file", b"stored")
            await kernel.look_up(b"file")
            m.fs._handles.witness = Witness()
            kernel.coroutines.clear()
            node, handle = await opened(kernel, b"file")
            await release(kernel, node, handle)
            assert kernel.coroutines == [Opcode.OPEN, Opcode.RELEASE]

    run(test)


def test_an_open_that_takes_the_rights_of_a_file_is_left_to_the_handler(tmp_path: Path) -> None:
    async def test() -> None:
        async with asked(tmp_path) as (kernel, m):
            m.store.seed("file", b"stored")
            entry = await kernel.look_up(b"file")
            (node,) = struct.unpack_from("=Q", entry, wire.OUT_HEADER.size)
            kernel.coroutines.clear()
            request = wire.OPEN_IN.pack(os.O_RDONLY, wire.OPEN_KILLS)
            await kernel.done(Opcode.OPEN, node, request)
            assert kernel.coroutines == [Opcode.OPEN]

    run(test)
