"""Random operations on the namespace and on a plain dict, side by side."""

import random

import pytest
import trio

from ossfs_py.errors import (
    DirectoryNotEmptyError,
    EntryExistsError,
    FilesystemError,
    InvalidArgumentError,
    IsADirectoryPathError,
    NoSuchEntryError,
    NotADirectoryPathError,
)
from ossfs_py.namespace.namespace import Inode, Kind
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted

NAMES = ("a", "a-", "a.", "b", "模")
Path = tuple[str, ...]


class Model:
    """A tree of directories (dict) and files (bytes) with POSIX rules."""

    def __init__(self) -> None:
        self.entries: dict[Path, bytes | None] = {}

    def is_directory(self, path: Path) -> bool:
        return not path or (path in self.entries and self.entries[path] is None)

    def children(self, path: Path) -> list[str]:
        depth = len(path)
        return sorted(p[depth] for p in self.entries if len(p) == depth + 1 and p[:depth] == path)

    def require_parent(self, path: Path) -> None:
        for end in range(len(path)):
            if not self.is_directory(path[:end]):
                if path[:end] in self.entries:
                    raise NotADirectoryPathError
                raise NoSuchEntryError

    def require(self, path: Path) -> None:
        self.require_parent(path)
        if path not in self.entries:
            raise NoSuchEntryError

    def mkdir(self, path: Path) -> None:
        self.require_parent(path)
        if path in self.entries:
            raise EntryExistsError
        self.entries[path] = None

    def write(self, path: Path, content: bytes) -> None:
        self.require_parent(path)
        if self.is_directory(path):
            raise IsADirectoryPathError
        self.entries[path] = content

    def unlink(self, path: Path) -> None:
        self.require(path)
        if self.is_directory(path):
            raise IsADirectoryPathError
        del self.entries[path]

    def rmdir(self, path: Path) -> None:
        self.require(path)
        if not self.is_directory(path):
            raise NotADirectoryPathError
        if self.children(path):
            raise DirectoryNotEmptyError
        del self.entries[path]

    def rename(self, old: Path, new: Path) -> None:
        self.require_parent(old)
        self.require_parent(new)
        self.require(old)
        if old == new:
            return
        if self.is_directory(old):
            if new[: len(old)] == old:
                raise InvalidArgumentError
            if new in self.entries:
                if not self.is_directory(new):
                    raise NotADirectoryPathError
                if self.children(new):
                    raise DirectoryNotEmptyError
        elif self.is_directory(new):
            raise IsADirectoryPathError
        self.entries.pop(new, None)
        moved = {path: content for path, content in self.entries.items() if path[: len(old)] == old}
        for path in moved:
            del self.entries[path]
        for path, content in moved.items():
            self.entries[new + path[len(old) :]] = content


class Real:
    """The same operations on the namespace."""

    def __init__(self, m: Mounted, draw: random.Random) -> None:
        self.m = m
        self.draw = draw
        self.unstored: dict[Inode, bytes] = {}

    async def at(self, path: Path) -> Inode:
        inode = self.m.root
        for name in path:
            inode = await self.m.namespace.lookup(inode, name)
        return inode

    async def mkdir(self, path: Path) -> None:
        await self.m.namespace.make_directory(await self.at(path[:-1]), path[-1], 0o755, 0, 0)

    async def write(self, path: Path, content: bytes) -> None:
        parent = await self.at(path[:-1])
        try:
            inode = await self.m.namespace.lookup(parent, path[-1])
        except NoSuchEntryError:
            inode = self.m.create(parent, path[-1])
        if inode.kind is Kind.DIRECTORY:
            raise IsADirectoryPathError
        if inode.local and self.draw.random() < 0.5:
            self.unstored[inode] = content
            return
        self.unstored.pop(inode, None)
        self.m.commit(inode, content)

    async def unlink(self, path: Path) -> None:
        inode = await self.m.namespace.unlink(await self.at(path[:-1]), path[-1])
        self.unstored.pop(inode, None)

    async def rmdir(self, path: Path) -> None:
        await self.m.namespace.remove_directory(await self.at(path[:-1]), path[-1])

    async def rename(self, old: Path, new: Path) -> None:
        source = await self.at(old[:-1])
        if source.kind is not Kind.DIRECTORY:
            raise NotADirectoryPathError
        target = await self.at(new[:-1])
        replaced = self.m.namespace.known_child(target, new[-1])
        moved = await self.m.namespace.rename(source, old[-1], target, new[-1])
        if replaced is not None and replaced is not moved:
            self.unstored.pop(replaced, None)

    async def save_all(self) -> None:
        for inode, content in self.unstored.items():
            self.m.commit(inode, content)
        self.unstored.clear()


async def compare(real: Real, model: Model, path: Path = ()) -> None:
    m = real.m
    entries = await m.entries(await real.at(path))
    assert sorted(name for name, _ in entries) == model.children(path)
    for name, inode in entries:
        below = (*path, name)
        if model.is_directory(below):
            assert inode.kind is Kind.DIRECTORY
            await compare(real, model, below)
        elif inode not in real.unstored:
            content = model.entries[below]
            assert content is not None
            info = await m.namespace.refresh_version(inode)
            buffer = bytearray(info.size)
            m.store.get_range_into(info.version, 0, memoryview(buffer))
            assert bytes(buffer) == content
            assert info.key == m.namespace.key_of(inode)


def step(draw: random.Random) -> tuple[str, tuple[object, ...]]:
    def path() -> Path:
        return tuple(draw.choices(NAMES, k=draw.choice((1, 1, 2, 2, 3))))

    operation = draw.choice(("mkdir", "mkdir", "write", "write", "unlink", "rmdir", "rename"))
    if operation == "write":
        return operation, (path(), draw.randbytes(draw.randint(0, 4)))
    if operation == "rename":
        return operation, (path(), path())
    return operation, (path(),)


@pytest.mark.parametrize("ttl_seconds", [60.0, 0.0])
@pytest.mark.parametrize("posix_metadata", [False, True])
@pytest.mark.parametrize("max_entries", [100_000, 3])
def test_the_namespace_behaves_like_a_tree(
    ttl_seconds: float, posix_metadata: bool, max_entries: int
) -> None:
    draw = random.Random(f"{ttl_seconds} {posix_metadata} {max_entries}")
    model = Model()

    async def run(m: Mounted) -> None:
        real = Real(m, draw)
        for count in range(400):
            operation, arguments = step(draw)
            expected: type[Exception] | None = None
            try:
                getattr(model, operation)(*arguments)
            except FilesystemError as exc:
                expected = type(exc)
            if expected is None:
                await getattr(real, operation)(*arguments)
            else:
                with pytest.raises(FilesystemError) as caught:
                    await getattr(real, operation)(*arguments)
                assert caught.type is expected, (count, operation, arguments)
            if count % 10 == 0:
                m.clock.jump(draw.choice((0, 0.5, 61)))
                await compare(real, model)
        await real.save_all()
        await compare(real, model)

    store = mounted(
        run,
        FakeStore(page_size=3),
        metadata_ttl_seconds=ttl_seconds,
        posix_metadata=posix_metadata,
        max_entries=max_entries,
        prefix="p/q/",
    )

    async def remounted(m: Mounted) -> None:
        await compare(Real(m, draw), model)

    mounted(remounted, store, prefix="p/q/")


def test_many_tasks_at_once_leave_a_tree_that_agrees_with_the_store() -> None:
    """Each task has its own names in shared directories, as programs on one mount do."""
    draw = random.Random(5)

    async def run(m: Mounted) -> None:
        x = await m.namespace.make_directory(m.root, "x", 0o755, 0, 0)
        y = await m.namespace.make_directory(m.root, "y", 0o755, 0, 0)
        shared = [m.root, x, y]
        kept: set[str] = set()

        async def work(task: int) -> None:
            own: dict[tuple[int, str], Inode] = {}
            for count in range(40):
                place = draw.randrange(3)
                name = f"t{task}-{count}"
                with pytest.raises(NoSuchEntryError):
                    await m.namespace.lookup(shared[place], name)
                inode = m.create(shared[place], name)
                if draw.random() < 0.7:
                    m.commit(inode, b"x")
                own[place, name] = inode
                assert name in await m.names(shared[place])
                if draw.random() < 0.3:
                    old_place, old = draw.choice(list(own))
                    new_place = draw.randrange(3)
                    moved = own.pop((old_place, old))
                    await m.namespace.rename(shared[old_place], old, shared[new_place], old + "r")
                    own[new_place, old + "r"] = moved
                    assert old not in await m.names(shared[old_place])
                if draw.random() < 0.3:
                    victim_place, victim = draw.choice(list(own))
                    del own[victim_place, victim]
                    await m.namespace.unlink(shared[victim_place], victim)
                    names = await m.names(shared[victim_place])
                    assert victim not in names
                    assert len(names) == len(set(names))
                for (own_place, own_name), own_inode in own.items():
                    assert await m.namespace.lookup(shared[own_place], own_name) is own_inode
                if draw.random() < 0.1:
                    m.clock.jump(61)
            for (place, name), inode in own.items():
                if inode.local:
                    m.commit(inode, b"x")
                kept.add(f"{place}/{name}")

        async with trio.open_nursery() as nursery:
            for task in range(6):
                nursery.start_soon(work, task)
        m.clock.jump(61)
        listed = {
            f"{place}/{name}"
            for place, directory in enumerate(shared)
            for name, inode in await m.entries(directory)
            if inode.kind is Kind.FILE
        }
        assert listed == kept

    mounted(run, FakeStore(page_size=7))
