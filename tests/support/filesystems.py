"""The whole file system over the fake store, driven as the kernel would, without one."""

import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import trio
import trio.testing

from ossfs_py.errors import (
    EntryExistsError,
    NoSuchEntryError,
    NotADirectoryPathError,
    StaleInodeError,
)
from ossfs_py.filesystem.commits import ConflictPolicy
from ossfs_py.filesystem.directories import TakesFiles
from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.filesystem.openinode import OpenInode
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.filesystem.options import FilesystemOptions
from ossfs_py.filesystem.protection import Protected
from ossfs_py.filesystem.removals import COPIED_BYTES
from ossfs_py.filesystem.replies import EntryReply, OpenReply
from ossfs_py.filesystem.surviving import SurvivingFilesystem
from ossfs_py.filesystem.writeback import WriteBackQueue
from ossfs_py.model import AttributeChange, Attributes
from ossfs_py.namespace.inode import ROOT_NUMBER
from ossfs_py.namespace.keys import RESERVED_PREFIX
from ossfs_py.namespace.namespace import Namespace, NamespaceOptions
from ossfs_py.namespace.opendirectory import BATCH_ENTRIES
from ossfs_py.telemetry.metrics import Metrics
from ossfs_py.writing.context import WriteLimits
from tests.support.data_paths import Bench, bench
from tests.support.fake_store import FakeStore
from tests.support.writing import SMALL, TINY_PARTS

Names = tuple[str, ...]

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where tests with many mounts keep their directories. The journal waits for the disk, and nothing
here has to survive a power loss."""
METADATA_TTL_SECONDS = 60.0
UID, GID = 7, 8


@dataclass(eq=False)
class Descriptor:
    """One open file, as a program has it."""

    inode: int
    handle: int
    keep_cache: bool
    past_pages: bool
    append: bool
    writable: bool


class Taken(TakesFiles):
    """What readdir(3) brings, as far as there is room."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.numbers: list[int] = []
        self.replies: list[EntryReply] = []
        self.together = 0
        """How many were taken together with others."""
        self.room = 0
        self.offset = 0

    def __call__(self, name: bytes, reply: EntryReply, following: int) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.offset = following
        if name not in (b".", b".."):
            self.names.append(name.decode())
            self.numbers.append(reply.inode)
            self.replies.append(reply)
        return True

    @property
    def most(self) -> int:
        return self.room

    def count_fitting(self, names: Sequence[bytes]) -> int:
        return min(self.room, len(names))

    def take_files(
        self,
        first: EntryReply,
        names: Sequence[bytes],
        files: Iterable[tuple[int, int, int, int]],
        following: int,
    ) -> None:
        for offset, name, (number, generation, size, mtime_ns) in zip(
            count(following), names, files, strict=False
        ):
            shown = first.attributes._replace(
                ino=number, size=size, atime_ns=mtime_ns, mtime_ns=mtime_ns, ctime_ns=mtime_ns
            )
            assert self(name, first._replace(attributes=shown, generation=generation), offset)
            self.together += 1


class Channel:
    """Stands for the kernel that is told to forget."""

    def __init__(self) -> None:
        self.invalidated: list[int] = []
        self.expired: set[int] = set()
        """Inodes whose attributes it asks for before it sends a READ."""
        self.lengths: dict[int, tuple[int, bytes]] = {}
        """Sizes that it was told before a READ was answered, and the last bytes."""
        self.is_slow = False
        self._under_way: list[Callable[[], object]] = []
        self.absent: dict[tuple[int, bytes], float] = {}
        """Names that the kernel takes for absent until then."""
        self.on_drop: Callable[[int], Awaitable[None]] | None = None

    def invalidate_pages(self, inode: int, done: Callable[[], None]) -> None:
        self.invalidated.append(inode)
        self.invalidate_attributes(inode, done)

    def invalidate_attributes(self, inode: int, done: Callable[[], None]) -> None:
        self._under_way.append(lambda: (self.expired.add(inode), done()))
        if not self.is_slow:
            self.catch_up()

    def catch_up(self) -> None:
        """What it was asked to forget is forgotten."""
        while self._under_way:
            self._under_way.pop()()

    async def told(self) -> None:
        """Nothing here takes time."""
        await trio.lowlevel.checkpoint()

    async def expire_attributes(self, inode: int) -> None:
        self.expired.add(inode)
        await trio.lowlevel.checkpoint()

    async def lengthen(self, inode: int, size_bytes: int, last: bytes) -> None:
        self.lengths[inode] = size_bytes, last
        await trio.lowlevel.checkpoint()

    def invalidate_entry(self, directory: int, name: bytes) -> None:
        """Only absent names are remembered here."""
        self.absent.pop((directory, name), None)

    def back(self, fd: int) -> int | None:
        """It reads no local file itself."""

    def unback(self, local: int) -> None:
        """So it keeps none open."""

    async def drop_pages(self, inode: int) -> None:
        await trio.lowlevel.checkpoint()
        if self.on_drop is not None:
            await self.on_drop(inode)


class Mounted:
    """A mounted bucket without a kernel: system calls by path, names walked one by one.

    References to inodes are counted as the kernel counts them, and dropped as soon as the kernel
    may drop them.
    """

    def __init__(self, made: Bench, fs: Filesystem, channel: Channel) -> None:
        self.bench = made
        self.fs = fs
        self.channel = channel
        self.asks_as_the_lane = not isinstance(fs, SurvivingFilesystem)
        """Whether what waits for nothing is asked for first; pyfuse3 never does, nor the lane of a
        mount that outlives its daemon.
        """

    @property
    def store(self) -> FakeStore:
        return self.bench.store

    # -- names ---------------------------------------------------------------------------------

    async def _look(self, parent: int, name: str, taken: list[int]) -> EntryReply:
        place = (parent, name.encode())
        if trio.current_time() < self.channel.absent.get(place, 0.0):
            raise NoSuchEntryError(name)
        try:
            entry = await self.fs.lookup(*place)
        except NoSuchEntryError:
            self.channel.absent[place] = trio.current_time() + self.fs.absent_seconds(*place)
            raise
        taken.append(entry.inode)
        return entry

    def _made(self, parent: int, name: str) -> None:
        """The kernel itself made the name."""
        self.channel.absent.pop((parent, name.encode()), None)

    def drop(self, entry: EntryReply) -> None:
        """Forget what was made: no program uses it."""
        self.fs.forget([(entry.inode, 1)])

    @asynccontextmanager
    async def _walk(self, path: Names) -> AsyncIterator[tuple[int, bool]]:
        """The inode of a path and whether it is a directory; referenced inside the block."""
        taken: list[int] = []
        try:
            number, is_directory = ROOT_NUMBER, True
            for name in path:
                entry = await self._look(number, name, taken)
                number, is_directory = entry.inode, stat.S_ISDIR(entry.attributes.mode)
            yield number, is_directory
        finally:
            self.fs.forget([(number, 1) for number in taken])

    @asynccontextmanager
    async def at(self, path: Names) -> AsyncIterator[int]:
        """The inode of a path; referenced inside the block."""
        async with self._walk(path) as (number, _is_directory):
            yield number

    @asynccontextmanager
    async def directory_at(self, path: Names) -> AsyncIterator[int]:
        """The inode of a path that must be a directory for the call to reach the file system."""
        async with self._walk(path) as (number, is_directory):
            if not is_directory:
                raise NotADirectoryPathError("/".join(path))
            yield number

    @asynccontextmanager
    async def free(self, path: Names) -> AsyncIterator[int]:
        """The directory of a name that has to be free."""
        async with self.directory_at(path[:-1]) as parent:
            if await self.exists(path):
                raise EntryExistsError(path[-1])
            yield parent

    async def exists(self, path: Names) -> bool:
        try:
            async with self.at(path):
                return True
        except NoSuchEntryError:
            return False

    async def mkdir(self, path: Names, mode: int = 0o755) -> None:
        async with self.free(path) as parent:
            self.drop(await self.fs.make_directory(parent, path[-1].encode(), mode, UID, GID))
            self._made(parent, path[-1])

    async def rmdir(self, path: Names) -> None:
        async with self.directory_at(path[:-1]) as parent, self.at(path):
            await self.fs.remove_directory(parent, path[-1].encode())

    async def symlink(self, target: bytes, path: Names) -> None:
        async with self.free(path) as parent:
            self.drop(await self.fs.make_symlink(parent, path[-1].encode(), target, UID, GID))
            self._made(parent, path[-1])

    async def readlink(self, path: Names) -> bytes:
        async with self.at(path) as number:
            return await self.fs.read_link(number)

    async def unlink(self, path: Names) -> None:
        async with self.directory_at(path[:-1]) as parent, self.at(path):
            name = path[-1].encode()
            if not (self.asks_as_the_lane and self.fs.unlinking.unlink_nowait(parent, name)):
                await self.fs.unlink(parent, name)

    async def rename(self, old: Names, new: Names, *, no_replace: bool = False) -> None:
        async with self.directory_at(old[:-1]) as parent, self.directory_at(new[:-1]) as new_parent:
            async with self.at(old):
                await self.exists(new)
            await self.fs.rename(
                parent, old[-1].encode(), new_parent, new[-1].encode(), no_replace=no_replace
            )
            self._made(new_parent, new[-1])

    async def names(self, path: Names = (), *, step: int | None = None) -> list[str]:
        """readdir(3) of everything; ``step`` entries fit one answer to the kernel."""
        taken = Taken()
        async with self.at(path) as number:
            handle = self.fs.open_directory(number)
            while not taken.room:
                taken.room = step or BATCH_ENTRIES
                await self.fs.read_directory(handle, taken.offset, taken)
            self.fs.release_directory(handle)
        self.fs.forget([(number, 1) for number in taken.numbers])
        return taken.names

    # -- attributes -----------------------------------------------------------------------------

    async def stat(self, path: Names) -> Attributes:
        async with self.at(path) as number:
            return (await self.fs.attributes(number)).attributes

    async def change(self, path: Names, size: int | None = None, **change: Any) -> None:
        """chmod, chown, utimens, truncate."""
        async with self.at(path) as number:
            await self.fs.set_attributes(number, AttributeChange(**change), size, None)

    async def set_xattr(self, path: Names, name: str, value: bytes) -> None:
        async with self.at(path) as number:
            await self.fs.set_xattr(number, name.encode(), value)

    async def get_xattr(self, path: Names, name: str) -> bytes:
        async with self.at(path) as number:
            return await self.fs.get_xattr(number, name.encode())

    async def list_xattrs(self, path: Names) -> list[bytes]:
        async with self.at(path) as number:
            return await self.fs.list_xattrs(number)

    async def remove_xattr(self, path: Names, name: str) -> None:
        async with self.at(path) as number:
            await self.fs.remove_xattr(number, name.encode())

    # -- files ---------------------------------------------------------------------------------

    async def open(self, path: Names, flags: int = os.O_RDONLY, mode: int = 0o644) -> Descriptor:
        """open(2)."""
        async with self.directory_at(path[:-1]) as parent:
            try:
                entry, reply = await self._opened(parent, path[-1], flags, mode)
            except StaleInodeError:
                # The kernel looks the path up again, once.
                entry, reply = await self._opened(parent, path[-1], flags, mode)
        # An open file keeps its inode referenced.
        return Descriptor(
            entry.inode,
            reply.handle,
            reply.keep_cache,
            reply.past_pages,
            append=bool(flags & os.O_APPEND),
            writable=flags & os.O_ACCMODE != os.O_RDONLY,
        )

    async def _opened(
        self, parent: int, name: str, flags: int, mode: int
    ) -> tuple[EntryReply, OpenReply]:
        taken: list[int] = []
        try:
            entry = await self._look(parent, name, taken)
            if flags & os.O_EXCL:
                raise EntryExistsError(name)
            return entry, await self.fs.open(entry.inode, flags, UID)
        except NoSuchEntryError:
            if taken or not flags & os.O_CREAT:
                self.fs.forget([(each, 1) for each in taken])
                raise
            reply, entry = await self.fs.create(parent, name.encode(), mode, flags, UID, GID)
            self._made(parent, name)
            return entry, reply
        except BaseException:
            self.fs.forget([(each, 1) for each in taken])
            raise

    async def read(self, opened: Descriptor, offset: int = 0, size: int = 1 << 20) -> bytes:
        """pread(2), never past the size that the kernel knows."""
        if opened.inode in self.channel.expired:
            self.channel.expired.discard(opened.inode)
            await self.fs.attributes(opened.inode)
        data = self.fs.read_nowait(opened.handle, offset, size)
        if data is None:
            data = await self.fs.read(opened.handle, offset, size)
        return bytes(data)

    async def write(self, opened: Descriptor, offset: int, data: bytes) -> int:
        """pwrite(2), or write(2) of a file opened with O_APPEND."""
        if opened.append:
            offset = (await self.fs.attributes(opened.inode)).attributes.size
        return await self.fs.write(opened.handle, offset, data)

    async def truncate(self, opened: Descriptor, size: int) -> None:
        """ftruncate(2)."""
        await self.fs.set_attributes(opened.inode, AttributeChange(), size, opened.handle)

    async def flush(self, opened: Descriptor) -> None:
        await self.fs.flush(opened.handle)

    async def fsync(self, opened: Descriptor) -> None:
        await self.fs.fsync(opened.handle)

    async def release(self, opened: Descriptor) -> None:
        """What follows the last close(2), whatever that returned."""
        await self.fs.release(opened.handle)
        self.fs.forget([(opened.inode, 1)])

    async def close(self, opened: Descriptor) -> None:
        """close(2) of the only descriptor; its error is raised after the file is let go."""
        try:
            await self.flush(opened)
        finally:
            await self.release(opened)

    async def read_file(self, path: Names, step: int = 1 << 20) -> bytes:
        opened = await self.open(path)
        pieces = []
        offset = 0
        while piece := await self.read(opened, offset, step):
            pieces.append(piece)
            offset += len(piece)
        await self.close(opened)
        return b"".join(pieces)

    async def write_file(self, path: Names, content: bytes) -> None:
        opened = await self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        await self.write(opened, 0, content)
        await self.close(opened)

    async def expire(self) -> None:
        """Let enough time pass that nothing remembered of the store is believed."""
        await self.bench.later(METADATA_TTL_SECONDS + 1)


@asynccontextmanager
async def mounted(
    name: str,
    root: Path,
    store: FakeStore | None = None,
    *,
    fail_on_conflict: bool = False,
    read_only: bool = False,
    copied_bytes: int = COPIED_BYTES,
    protect: Collection[Protected] = (),
    make: type[Filesystem] = Filesystem,
    trash: str = "",
    dedup: bool = False,
    write_back: bool = False,
    removes_behind: bool = False,
    limits: WriteLimits = SMALL,
    takes_over: bool = True,
    **options: Any,
) -> AsyncIterator[Mounted]:
    """Mount a bucket over the data path called ``name``; ``options`` are the namespace's.

    ``removes_behind``: what closed files leave at the store is deleted behind, as with a trash.
    A removed object of more than ``copied_bytes`` stays where it is while it is read. Without
    ``takes_over`` the caller claims and takes over what an earlier daemon has left, and runs it.
    """
    used = store if store is not None else FakeStore(min_part_bytes=TINY_PARTS.min_part)
    namespace_options = NamespaceOptions(
        metadata_ttl_seconds=METADATA_TTL_SECONDS, read_only=read_only, **options
    )
    prefix = namespace_options.prefix
    async with bench(name, root, store=used, limits=limits, prefix=prefix) as made:
        network = made.writes.context.network
        journal = made.writes.journal
        kernel, channel = KernelCache(), Channel()
        namespace = Namespace(
            used, network, namespace_options, Metrics(), news=kernel.news, rename_log=journal
        )
        filesystem_options = FilesystemOptions(
            read_only=read_only,
            protect=frozenset(protect),
            conflicts=ConflictPolicy(fail=fail_on_conflict or "overwrite" in protect),
            trash_prefix=trash,
            dedup=dedup,
            scratch_prefix=f"{namespace_options.prefix}{RESERVED_PREFIX}deleted-",
            copied_bytes=copied_bytes,
        )
        queue: WriteBackQueue[OpenInode] = WriteBackQueue(Metrics())
        fs = make(
            namespace,
            made.data_path,
            used,
            network,
            journal,
            kernel,
            filesystem_options,
            write_back=queue if write_back else None,
            group_sync=made.writes.context.group_sync if write_back or removes_behind else None,
        )
        if takes_over:
            journal.claim_leftovers()
            fs.take_over()
        async with trio.open_nursery() as nursery:
            if takes_over and (write_back or removes_behind):
                nursery.start_soon(fs.run)
            with fs.mounted_through(channel):
                yield Mounted(made, fs, channel)
            nursery.cancel_scope.cancel()
        await fs.close()


def on_mount(
    name: str, root: Path, test: Callable[[Mounted], Awaitable[None]], **options: Any
) -> FakeStore:
    """Run a test on a mount, on a clock that goes on by itself and can be moved."""
    stores: list[FakeStore] = []

    async def main() -> None:
        async with mounted(name, root, **options) as made:
            stores.append(made.store)
            await test(made)

    trio.run(main, clock=trio.testing.MockClock(rate=1.0))
    return stores[0]
