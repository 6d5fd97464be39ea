"""Random system calls on the file system and on plain Python objects, side by side.

Hypothesis makes up the calls: by several descriptors of a file, on names in use, over remounts,
beside another client of the bucket and against a store that fails. Whatever differs is a bug, and
hypothesis finds the shortest way to it. ``OSSFS_PY_TEST_SOAK=1`` looks longer, and elsewhere each
time.
"""

import errno
import os
import tempfile
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar, TypeVar

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ossfs_py.errors import OssfsError, StoreUnavailableError, errno_of
from ossfs_py.namespace.keys import RESERVED_PREFIX
from tests.model.posix import Directory, File, Link, Node, Posix, PosixError
from tests.support.fake_store import FakeStore
from tests.support.filesystems import IN_MEMORY, Descriptor, Mounted, Names, mounted
from tests.support.writing import TINY_PARTS

T = TypeVar("T")

PREFIX = "some/prefix/"
DOWN = StoreUnavailableError("down")
CHANGED = {errno.ESTALE, errno.ENOENT}
"""What a reader may see whose object another client replaced or deleted."""

QUICK = settings(max_examples=60, stateful_step_count=40, derandomize=True)
SOAK = settings(
    report_multiple_bugs=False,
    max_examples=int(os.environ.get("OSSFS_PY_TEST_SOAK") or 1),
    stateful_step_count=80,
)
SETTINGS = settings(
    SOAK if os.environ.get("OSSFS_PY_TEST_SOAK") else QUICK,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

NAMES = st.sampled_from(["a", "a-", "模"])
PATHS = st.one_of(st.tuples(NAMES), st.tuples(NAMES, NAMES), st.tuples(NAMES, NAMES, NAMES))
PICKS = st.integers(0, 1000)
EXISTING = st.one_of(PICKS, PICKS, PICKS, PATHS)
"""Mostly something that is there, of the kind the call is for."""
NEW = st.one_of(st.tuples(PICKS, NAMES), st.tuples(PICKS, NAMES), st.tuples(PICKS, NAMES), PATHS)
"""Mostly a name in a directory that is there."""
OFFSETS = st.integers(0, 90)
SIZES = st.integers(0, 60)
WRITES = st.lists(
    st.tuples(
        st.one_of(st.just(-1), st.just(-1), st.integers(0, 90)), st.binary(min_size=1, max_size=40)
    ),
    max_size=4,
)
"""Offsets and bytes; -1 is the end of the file, wherever that is."""
TARGETS = st.sampled_from([b"a", b"../b/\xff", b"x" * 200])
MODES = st.sampled_from([0o600, 0o640, 0o755, 0o4711])
TIMES = st.integers(0, 4_000_000_000_000_000_000)
ATTRIBUTES = st.sampled_from(["user.a", "user.模"])


@dataclass(eq=False)
class Opened:
    """A descriptor and the file of the model that it is of."""

    descriptor: Descriptor
    file: File
    is_replaced: bool = False
    """Another client has replaced or deleted the object it reads."""


class World:
    """A trio loop in a thread of its own, with a bucket mounted in it."""

    def __init__(self, data_path: str, options: dict[str, Any]) -> None:
        self.store = FakeStore(page_size=3, min_part_bytes=TINY_PARTS.min_part)
        self._data_path = data_path
        self._options = options
        self._directory = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self._ready: SimpleQueue[Mounted | None] = SimpleQueue()
        self._failure: BaseException | None = None
        self._ending = False
        self._unmount: trio.Event
        self._token: trio.lowlevel.TrioToken
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.mount = self._next_mount()

    def _run(self) -> None:
        try:
            trio.run(self._live, clock=trio.testing.MockClock(rate=1.0))
        except BaseException as exc:  # noqa: BLE001 - raised again in the test's thread
            self._failure = exc
        self._ready.put(None)

    async def _live(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        while not self._ending:
            self._unmount = trio.Event()
            root = Path(self._directory.name)
            async with mounted(self._data_path, root, self.store, **self._options) as made:
                self._ready.put(made)
                await self._unmount.wait()

    def _next_mount(self) -> Mounted:
        made = self._ready.get(timeout=120)
        if made is None:
            assert self._failure is not None
            raise self._failure
        return made

    def call(self, function: Callable[..., Awaitable[T]], *args: object, **kwargs: object) -> T:
        """Carry out a system call."""

        async def limited() -> T:
            with trio.fail_after(120):
                return await function(*args, **kwargs)

        try:
            return trio.from_thread.run(limited, trio_token=self._token)
        except trio.RunFinishedError:
            raise (self._failure or AssertionError("the loop has ended")) from None

    def expire(self) -> None:
        """Let time pass until nothing remembered is believed."""
        trio.from_thread.run(self.mount.expire, trio_token=self._token)

    def remount(self) -> None:
        """Unmount and mount again; nothing but the store remembers anything."""
        trio.from_thread.run_sync(self._unmount.set, trio_token=self._token)
        self.mount = self._next_mount()

    def end(self) -> None:
        """Unmount; raises what went wrong behind the scenes."""
        self._ending = True
        if self._thread.is_alive():
            trio.from_thread.run_sync(self._unmount.set, trio_token=self._token)
        self._thread.join(120)
        assert not self._thread.is_alive(), "the mount does not end"
        self._directory.cleanup()
        if self._failure is not None:
            raise self._failure


class FilesystemMachine(RuleBasedStateMachine):
    """Subclasses name the data path."""

    data_path: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.posix = Posix()
        self.opened: list[Opened] = []

    @initialize(posix_metadata=st.booleans())
    def begin(self, posix_metadata: bool) -> None:
        self.posix_metadata = posix_metadata
        # Shown, so that a mode that was stored is the mode that is seen.
        options = {"prefix": PREFIX, "posix_metadata": posix_metadata, "special_modes": True}
        self.world = World(self.data_path, options)
        self.store = self.world.store
        self.store.seed("outside", b"nobody's business")

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.close_everything()
            self.compare_with_the_store()
            self.compare_trees()
            self.world.remount()
            self.forget_attributes()
            self.compare_trees()
            self.compare_with_the_store()
        finally:
            self.world.end()

    # -- both sides ---------------------------------------------------------------------------

    @property
    def mount(self) -> Mounted:
        return self.world.mount

    def real(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T | int:
        """The result of a system call, or its errno."""
        try:
            return self.world.call(function, *args, **kwargs)
        except (OssfsError, OSError) as exc:
            return errno_of(exc)

    def both(
        self,
        function: Callable[..., Awaitable[object]],
        model: Callable[[], object],
        *args: Any,
        **kwargs: Any,
    ) -> bool:
        """Do it on both sides, expecting one outcome; whether it succeeded."""
        try:
            model()
        except PosixError as exc:
            assert self.real(function, *args, **kwargs) == exc.code
            return False
        self.world.call(function, *args, **kwargs)
        return True

    def existing(self, where: int | Names, *kinds: type) -> Names:
        """The path that an ``EXISTING`` stands for now."""
        if not isinstance(where, int):
            return where
        paths = [path for path, node in self.posix.walk() if isinstance(node, kinds or object)]
        return paths[where % len(paths)] if paths else ("a",)

    def new(self, where: tuple[int, str] | Names) -> Names:
        """The path that a ``NEW`` stands for now."""
        number, *names = where
        if isinstance(number, str):
            return (number, *names)
        directories = [path for path, node in self.posix.walk() if isinstance(node, Directory)]
        parent = [(), *directories][number % (1 + len(directories))]
        return (*parent[:3], *names)

    def either(self, where: int | Names, *kinds: type) -> Names:
        return self.existing(where, *kinds) if isinstance(where, int) else self.new(where)

    def pick(self, number: int) -> Opened:
        return self.opened[number % len(self.opened)]

    def readers_of(self, file: File) -> list[Opened]:
        return [each for each in self.opened if each.file is file and not each.is_replaced]

    def key(self, path: Names) -> str:
        return PREFIX + "/".join(path)

    # -- names --------------------------------------------------------------------------------
    # Rules have equal chances: calls that do little share one.

    @rule(where=NEW, directory=st.booleans(), mode=MODES, points_to=TARGETS)
    def make(self, where: Names, directory: bool, mode: int, points_to: bytes) -> None:
        if directory:
            self.mkdir(where, mode)
        else:
            self.symlink(where, points_to)

    @rule(where=EXISTING, directory=st.sampled_from([True, False, False]))
    def remove(self, where: int | Names, directory: bool) -> None:
        (self.rmdir if directory else self.unlink)(where)

    @rule(where=EXISTING, how=st.integers(0, 2), step=st.sampled_from([None, 1, 2]))
    def look(self, where: int | Names, how: int, step: int | None) -> None:
        if how == 0:
            self.look_up(where)
        elif how == 1:
            self.readlink(where)
        else:
            self.list_directory(where, step)

    def mkdir(self, where: Names, mode: int) -> None:
        path = self.new(where)
        self.both(self.mount.mkdir, lambda: self.posix.mkdir(path, mode), path, mode)

    def rmdir(self, where: int | Names) -> None:
        path = self.existing(where, Directory)
        self.both(self.mount.rmdir, lambda: self.posix.rmdir(path), path)

    def symlink(self, where: Names, points_to: bytes) -> None:
        path = self.new(where)
        self.both(self.mount.symlink, lambda: self.posix.symlink(points_to, path), points_to, path)

    def readlink(self, where: int | Names) -> None:
        path = self.existing(where, Link)
        try:
            expected: bytes | int = self.posix.readlink(path)
        except PosixError as exc:
            expected = exc.code
        assert self.real(self.mount.readlink, path) == expected

    def unlink(self, where: int | Names) -> None:
        path = self.existing(where, File, Link)
        self.both(self.mount.unlink, lambda: self.posix.unlink(path), path)

    @rule(
        source=EXISTING,
        goal=st.one_of(NEW, EXISTING),
        no_replace=st.sampled_from([False, False, False, True]),
    )
    def rename(self, source: int | Names, goal: int | Names, no_replace: bool) -> None:
        old, new = self.existing(source), self.either(goal)
        self.both(
            self.mount.rename,
            lambda: self.posix.rename(old, new, no_replace=no_replace),
            old,
            new,
            no_replace=no_replace,
        )
        self.note_stored()

    def look_up(self, where: int | Names) -> None:
        path = self.existing(where)
        node = self.posix.find(path)
        if node is None:
            assert self.real(self.mount.stat, path) in {errno.ENOENT, errno.ENOTDIR}
        else:
            self.compare(path, node)

    def list_directory(self, where: int | Names, step: int | None) -> None:
        path = self.existing(where, Directory)
        node = self.posix.find(path)
        if isinstance(node, Directory):
            names = self.world.call(self.mount.names, path, step=step)
            assert sorted(names) == sorted(node.children)

    # -- attributes ---------------------------------------------------------------------------

    @rule(
        where=EXISTING,
        what=st.integers(0, 4),
        mode=MODES,
        mtime_ns=TIMES,
        name=ATTRIBUTES,
        value=st.binary(max_size=8),
    )
    def change(
        self, where: int | Names, what: int, mode: int, mtime_ns: int, name: str, value: bytes
    ) -> None:
        if what == 0:
            self.chmod(where, mode)
        elif what == 1:
            self.utimens(where, mtime_ns)
        elif what == 2:
            self.set_xattr(where, name, value)
        elif what == 3:
            self.remove_xattr(where, name)
        else:
            self.read_xattrs(where, name)

    def chmod(self, where: int | Names, mode: int) -> None:
        path = self.existing(where)
        node = self.posix.find(path)
        if isinstance(node, File | Directory):
            self.settle_attributes(path)
            self.world.call(self.mount.change, path, mode=mode)
            node.mode = mode
            self.compare(path, node)

    def utimens(self, where: int | Names, mtime_ns: int) -> None:
        path = self.existing(where, File)
        node = self.posix.find(path)
        if isinstance(node, File):
            self.settle_attributes(path)
            self.world.call(self.mount.change, path, mtime_ns=mtime_ns)
            node.mtime_ns = mtime_ns
            self.compare(path, node)

    def set_xattr(self, where: int | Names, name: str, value: bytes) -> None:
        path = self.existing(where, File)
        node = self.posix.find(path)
        if isinstance(node, File):
            self.settle_attributes(path)
            self.world.call(self.mount.set_xattr, path, name, value)
            node.xattrs[name] = value

    def remove_xattr(self, where: int | Names, name: str) -> None:
        path = self.existing(where, File)
        node = self.posix.find(path)
        if isinstance(node, File):
            self.settle_attributes(path)
            expected = None if node.xattrs.pop(name, None) is not None else errno.ENODATA
            assert self.real(self.mount.remove_xattr, path, name) == expected

    def read_xattrs(self, where: int | Names, name: str) -> None:
        path = self.existing(where, File)
        node = self.posix.find(path)
        if isinstance(node, File):
            node.attributes_known = True
            expected: bytes | int = node.xattrs.get(name, errno.ENODATA)
            assert self.real(self.mount.get_xattr, path, name) == expected
            names = self.world.call(self.mount.list_xattrs, path)
            assert sorted(names) == sorted(each.encode() for each in node.xattrs)

    # -- files --------------------------------------------------------------------------------

    @rule(
        where=st.one_of(NEW, EXISTING),
        access=st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR]),
        create=st.sampled_from([0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL]),
        more=st.sampled_from([0, 0, os.O_TRUNC, os.O_APPEND]),
        mode=MODES,
        writes=WRITES,
    )
    def open(
        self,
        where: int | Names,
        access: int,
        create: int,
        more: int,
        mode: int,
        writes: list[tuple[int, bytes]],
    ) -> None:
        path = self.either(where, File)
        if access == os.O_RDONLY:
            more &= ~os.O_TRUNC
        flags = access | create | more
        node = self.posix.find(path)
        if isinstance(node, Link):
            return  # the kernel follows it
        made: list[Opened] = []

        async def real() -> None:
            descriptor = await self.mount.open(path, flags, mode)
            made.append(Opened(descriptor, File()))

        def model() -> File:
            self.posix.directory(path[:-1])
            if node is None:
                if not create:
                    raise PosixError(errno.ENOENT)
                return self.posix.create(path, mode)
            if create & os.O_EXCL:
                raise PosixError(errno.EEXIST)
            if isinstance(node, Directory):
                raise PosixError(errno.EISDIR)
            assert isinstance(node, File)
            return node

        if self.both(real, model):
            made[0].file = file = self.posix.node(path)  # type: ignore[assignment]
            assert isinstance(file, File)
            if more & os.O_TRUNC:
                self.changed(file)
                file.content.clear()
            if access != os.O_RDONLY:
                file.attributes_known = True
            self.opened += made
            self.write(len(self.opened) - 1, writes)

    def changed(self, file: File) -> None:
        file.mtime_ns = None

    @precondition(lambda self: self.opened)
    @rule(number=PICKS, offset=OFFSETS, size=SIZES)
    def read(self, number: int, offset: int, size: int) -> None:
        one = self.pick(number)
        expected = one.file.content[offset : offset + size]
        answer = self.real(self.mount.read, one.descriptor, offset, size)
        if one.is_replaced and isinstance(answer, int):
            assert answer in CHANGED
        else:
            assert answer == bytes(expected)

    @precondition(lambda self: self.opened)
    @rule(number=PICKS, writes=WRITES)
    def write(self, number: int, writes: list[tuple[int, bytes]]) -> None:
        one = self.pick(number)
        if not one.descriptor.writable:
            return
        content = one.file.content
        for wanted, data in writes:
            offset = len(content) if wanted < 0 or one.descriptor.append else wanted
            assert self.world.call(self.mount.write, one.descriptor, offset, data) == len(data)
            self.changed(one.file)
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(data)] = data

    @precondition(lambda self: self.opened)
    @rule(number=PICKS, how=st.integers(0, 3))
    def settle(self, number: int, how: int) -> None:
        if how == 0:
            self.fsync(number)
        elif how == 1:
            self.flush(number)
        else:
            self.close(number)

    @rule(number=PICKS, where=EXISTING, size=SIZES, by_path=st.booleans())
    def resize(self, number: int, where: int | Names, size: int, by_path: bool) -> None:
        if by_path or not self.opened:
            self.truncate(where, size)
        else:
            self.ftruncate(number, size)

    def ftruncate(self, number: int, size: int) -> None:
        one = self.pick(number)
        if one.descriptor.writable:
            self.world.call(self.mount.truncate, one.descriptor, size)
            self.resized(one.file, size)

    def truncate(self, where: int | Names, size: int) -> None:
        path = self.existing(where, File)
        node = self.posix.find(path)
        if isinstance(node, File):
            self.settle_attributes(path)
            self.world.call(self.mount.change, path, size)
            self.resized(node, size)
            self.note_stored()
        elif isinstance(node, Directory):
            assert self.real(self.mount.change, path, size) == errno.EISDIR

    def resized(self, file: File, size: int) -> None:
        self.changed(file)
        del file.content[size:]
        file.content.extend(bytes(size - len(file.content)))

    def fsync(self, number: int) -> None:
        one = self.pick(number)
        self.world.call(self.mount.fsync, one.descriptor)
        self.note_stored(one.file)

    def flush(self, number: int) -> None:
        """close(2) of a duplicate."""
        one = self.pick(number)
        self.world.call(self.mount.flush, one.descriptor)
        if one.descriptor.writable:
            self.note_stored(one.file)

    def close(self, number: int) -> None:
        one = self.pick(number)
        self.opened.remove(one)
        self.world.call(self.mount.close, one.descriptor)
        if one.descriptor.writable or not self.readers_of(one.file):
            self.note_stored(one.file)

    # -- trouble ------------------------------------------------------------------------------

    @precondition(lambda self: self.opened)
    @rule(
        number=PICKS,
        method=st.sampled_from(["put", "start_multipart", "upload_part", "complete", "copy_part"]),
    )
    def fsync_against_a_failing_store(self, number: int, method: str) -> None:
        """The data is kept, and the next fsync stores it."""
        one = self.pick(number)
        self.store.fail(method, DOWN, times=1000)
        assert self.real(self.mount.fsync, one.descriptor) in {None, errno.EIO}
        self.store.mend()
        self.world.call(self.mount.fsync, one.descriptor)
        self.note_stored(one.file)

    @precondition(lambda self: self.opened)
    @rule(number=PICKS, offset=OFFSETS, size=SIZES)
    def read_against_a_failing_store(self, number: int, offset: int, size: int) -> None:
        one = self.pick(number)
        self.store.fail("get_range_into", DOWN, times=1000)
        answer = self.real(self.mount.read, one.descriptor, offset, size)
        self.store.mend()
        if isinstance(answer, int):
            assert answer == errno.EIO or (one.is_replaced and answer in CHANGED)
            self.read(number, offset, size)
        else:
            assert answer == bytes(one.file.content[offset : offset + size])

    @rule(source=EXISTING, goal=NEW)
    def rename_against_a_failing_store(self, source: int | Names, goal: Names) -> None:
        """Copies come first: the source is as it was."""
        old, new = self.existing(source), self.new(goal)
        self.store.fail("copy", DOWN, times=1000)
        answer = self.real(self.mount.rename, old, new)
        self.store.mend()
        if answer == errno.EIO:
            assert self.posix.find(old) is not None
        else:
            try:
                self.posix.rename(old, new, no_replace=False)
            except PosixError as exc:
                assert answer == exc.code
            else:
                assert answer is None
        self.note_stored()

    @rule(where=EXISTING)
    def unlink_against_a_failing_store(self, where: int | Names) -> None:
        path = self.existing(where, File, Link)
        self.store.fail("delete", DOWN, key=self.key(path), times=1000)
        answer = self.real(self.mount.unlink, path)
        self.store.mend()
        if answer == errno.EIO:
            assert self.posix.find(path) is not None
        else:
            try:
                self.posix.unlink(path)
            except PosixError as exc:
                assert answer == exc.code
            else:
                assert answer is None

    # -- other clients, other times -----------------------------------------------------------

    @rule(where=st.one_of(NEW, EXISTING), content=st.binary(max_size=60))
    def another_client_writes(self, where: int | Names, content: bytes) -> None:
        path = self.either(where, File)
        node = self.posix.find(path)
        for end in range(1, len(path)):
            if not isinstance(self.posix.find(path[:end]), Directory | None):
                return  # the object would be hidden, or hide another
        if isinstance(node, File) and self.can_be_replaced(node):
            self.replace(node)
        elif node is not None:
            return
        for end in range(1, len(path)):
            if self.posix.find(path[:end]) is None:
                made = Directory(attributes_known=False)
                self.posix.directory(path[: end - 1]).children[path[end - 1]] = made
        file = self.posix.create(path, 0o644)
        file.content[:] = content
        file.is_stored = True
        self.store.seed(self.key(path), content)
        self.world.expire()

    @rule(where=EXISTING)
    def another_client_deletes(self, where: int | Names) -> None:
        path = self.existing(where, File)
        node = self.posix.find(path)
        if not isinstance(node, File) or not self.can_be_replaced(node):
            return
        if any(not child.is_stored for _, child in self.posix.walk() if isinstance(child, File)):
            return  # whether an unstored file keeps its directory is not settled
        self.replace(node)
        self.posix.vanish(path, lambda each: self.key(each) + "/" in self.store.objects)
        self.store.erase(self.key(path))
        self.world.expire()

    def can_be_replaced(self, file: File) -> bool:
        readers = self.readers_of(file)
        return file.is_stored and not any(each.descriptor.writable for each in readers)

    def replace(self, file: File) -> None:
        for each in self.readers_of(file):
            each.is_replaced = True

    @rule()
    def time_passes(self) -> None:
        self.world.expire()

    @rule()
    def remount(self) -> None:
        self.close_everything()
        self.world.remount()
        self.forget_attributes()

    # -- comparing ----------------------------------------------------------------------------

    def close_everything(self) -> None:
        while self.opened:
            one = self.opened.pop()
            self.world.call(self.mount.close, one.descriptor)
        for _path, node in self.posix.walk():
            self.note_stored(node)

    def note_stored(self, file: Node | None = None) -> None:
        """What the store has by now, which ``file`` must be part of unless it was unlinked."""
        for path, node in self.posix.walk():
            if isinstance(node, File):
                if file is node:
                    assert self.store.content(self.key(path)) == node.content
                    node.hides_another = False
                if self.key(path) in self.store.objects and not node.hides_another:
                    node.is_stored = True

    def forget_attributes(self) -> None:
        for _path, node in self.posix.walk():
            if not isinstance(node, Link):
                node.attributes_known = False

    def settle_attributes(self, path: Names) -> None:
        """Whoever changes an attribute or rewrites a file has learned the others first."""
        node = self.posix.find(path)
        if node is not None and not isinstance(node, Link):
            node.attributes_known = True

    def compare(self, path: Names, node: File | Link | Directory) -> None:
        seen = self.world.call(self.mount.stat, path)
        kinds = {File: 0o100000, Link: 0o120000, Directory: 0o040000}
        assert seen.mode & 0o170000 == kinds[type(node)]
        if isinstance(node, Link):
            assert self.world.call(self.mount.readlink, path) == node.target
            assert seen.size == len(node.target)
            return
        if isinstance(node, File):
            assert seen.size == len(node.content)
        if self.posix_metadata or node.attributes_known:
            assert seen.mode & 0o7777 == node.mode
            if isinstance(node, File) and node.mtime_ns is not None:
                assert seen.mtime_ns == node.mtime_ns

    def compare_trees(self) -> None:
        for path, node in [((), self.posix.root), *self.posix.walk()]:
            if path:
                self.compare(path, node)
            if isinstance(node, Directory):
                names = self.world.call(self.mount.names, path)
                assert sorted(names) == sorted(node.children)
            elif isinstance(node, File):
                assert self.world.call(self.mount.read_file, path) == node.content
                names = [each.decode() for each in self.world.call(self.mount.list_xattrs, path)]
                assert sorted(names) == sorted(node.xattrs)

    def compare_with_the_store(self) -> None:
        """With nothing open: each file one object, and nothing else but markers of directories."""
        self.world.call(self.mount.bench.idle)
        nodes = dict(self.posix.walk())
        expected = {
            self.key(path): node.content if isinstance(node, File) else b""
            for path, node in nodes.items()
            if not isinstance(node, Directory)
        }
        stored = {key: self.store.content(key) for key in self.store.objects if key != "outside"}
        assert not [key for key in stored if RESERVED_PREFIX in key]
        assert {key: c for key, c in stored.items() if not key.endswith("/")} == expected
        for marker in (key for key in stored if key.endswith("/")):
            path = tuple(marker.removeprefix(PREFIX).rstrip("/").split("/"))
            assert isinstance(nodes[path], Directory)
        assert all(upload.result for upload in self.store.uploads.values())
        touched = [key for _method, key in self.store.log if key]
        assert all(key.startswith(PREFIX) for key in touched)


class TempMachine(FilesystemMachine):
    data_path = "temp"


class CacheMachine(FilesystemMachine):
    data_path = "cache"


class DirectMachine(FilesystemMachine):
    data_path = "direct"


TestTemp = pytest.mark.timeout(0 if SETTINGS.max_examples > 100 else 600)(TempMachine.TestCase)
TestCache = CacheMachine.TestCase
TestDirect = DirectMachine.TestCase
for case in (TestTemp, TestCache, TestDirect):
    case.settings = SETTINGS
