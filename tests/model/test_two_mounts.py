"""Two mounts and a third client on one bucket: what each answer may be, and that nothing is lost.

The oracle is close-to-open:

* A whole read gives one version, never a mixture nor a part: the present one, or one that the store
  had since the mount may last have looked (time passes in jumps longer than the TTL). What a mount
  changed itself it sees at once. "No such file" is an answer where the name was free since then.
* A descriptor that was given a byte goes on with that version, or with a later one that begins with
  all of it, or is told ESTALE; its end is that version's end.
* A name that was absent may be so for the lifetime of an absence; where that is zero, opening for
  writing finds it at once.
* Opening for writing sees the present version: what was appended follows it, a part is changed
  within it. Appended to while others write, it follows what they wrote. Anything else that was
  changed under a version that is gone is refused.
* What was acknowledged is in the store when the call returns.

``OSSFS_PY_TEST_SOAK=1000`` tries so many histories; each run tries others.
"""

import os
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ossfs_py.errors import NoSuchEntryError, StaleInodeError, VersionChangedError
from ossfs_py.namespace.keys import RESERVED_PREFIX
from tests.support.close_to_open import History
from tests.support.fake_store import FakeStore
from tests.support.filesystems import (
    IN_MEMORY,
    METADATA_TTL_SECONDS,
    Descriptor,
    Mounted,
    mounted,
)
from tests.support.mounting import DATA_PATHS
from tests.support.writing import TINY_PARTS

NAMES = ("f", "g")
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
REPLACE = os.O_WRONLY | os.O_TRUNC | os.O_CREAT
GONE = (NoSuchEntryError, StaleInodeError)
Action = Callable[["World"], Awaitable[None]]


@dataclass
class Reading:
    """A descriptor that was given a byte."""

    mount: Mounted
    opened: Descriptor
    name: str
    versions: list[bytes]
    """Which it may be reading: those that all bytes it was given are of."""
    is_shared: bool = False
    """Its own mount has written the file since, which it may see."""


@dataclass
class Appending:
    """A descriptor with appended bytes that are not stored yet."""

    mount: Mounted
    opened: Descriptor
    name: str
    data: bytes
    orphan: bool = False
    """Its name was removed or given to another file through its own mount."""


@dataclass
class World:
    """The bucket, its clients, and what each name has been since time last passed."""

    store: FakeStore
    mounts: list[Mounted]
    negative_ttl_seconds: float
    since: dict[str, list[bytes | None]] = field(default_factory=dict)
    past: defaultdict[str, History] = field(default_factory=lambda: defaultdict(History))
    """All that each name has been."""
    by: dict[str, Mounted | None] = field(default_factory=dict)
    """Who changed the name last."""
    readers: list[Reading] = field(default_factory=list)
    appenders: list[Appending] = field(default_factory=list)
    written: int = 0

    def now(self, name: str) -> bytes | None:
        return self.store.content(name) if name in self.store.objects else None

    def share(self, name: str, mount: Mounted) -> None:
        """A mount writes a file that its own readers have open."""
        for reading in self.readers:
            if reading.mount is mount and reading.name == name:
                reading.is_shared = True

    def changed(self, name: str, by: Mounted | None) -> None:
        if by is not None:
            self.share(name, by)
        self.since[name].append(self.now(name))
        self.past[name].becomes(self.now(name), 0.0)
        self.by[name] = by

    def new_bytes(self, size: int) -> bytes:
        """No two writes are alike, and none has a NUL."""
        self.written += 1
        return (b"%d:" % self.written + b"abcdefgh" * size)[: size + 8] + b"\n"

    def is_written(self, mount: Mounted, name: str) -> bool:
        """Whether the mount has the name open with bytes that are not stored yet."""
        return any(one.mount is mount and one.name == name for one in self.appenders)

    def allowed(self, mount: Mounted, name: str) -> list[bytes | None]:
        return [self.now(name)] if self.by.get(name) is mount else self.since[name]


async def whole_read(world: World, mount: Mounted, name: str, step: int) -> None:
    if world.is_written(mount, name):
        return
    try:
        content: bytes | None = await mount.read_file((name,), step)
    except GONE:
        content = None
    except VersionChangedError:
        return  # another descriptor here holds the version before
    assert content in world.allowed(mount, name), (name, content, world.since[name])


async def begin_reading(world: World, mount: Mounted, name: str) -> None:
    if world.is_written(mount, name):
        return
    try:
        opened = await mount.open((name,))
    except GONE:
        assert None in world.allowed(mount, name)
        return
    try:
        first = await mount.read(opened, 0, 8)
    except (*GONE, VersionChangedError):
        await mount.close(opened)
        return
    versions = [v for v in world.allowed(mount, name) if v is not None and v[:8] == first]
    assert versions, (name, first, world.since[name])
    world.readers.append(Reading(mount, opened, name, versions))


async def go_on_reading(world: World, _mount: Mounted, which: int) -> None:
    if not world.readers:
        return
    reading = world.readers[which % len(world.readers)]
    if reading.is_shared:
        return
    position = which * 7 % (len(reading.versions[0]) + 20)
    try:
        got = await reading.mount.read(reading.opened, position, 50)
    except VersionChangedError:
        return
    size = (await reading.mount.fs.attributes(reading.opened.inode)).attributes.size
    past = world.past[reading.name]
    read = [v for v in past.grown(reading.versions) if v[position : position + 50] == got]
    possible = [version for version in past.grown(read) if len(version) == size]
    assert possible, (position, got, size, reading.versions)
    reading.versions = possible


async def append(world: World, mount: Mounted, name: str, size: int) -> None:
    if world.is_written(mount, name):
        return
    data, before = world.new_bytes(size), world.now(name)
    opened = await mount.open((name,), APPEND)
    await mount.write(opened, 0, data)
    await mount.close(opened)
    assert world.now(name) == (before or b"") + data
    world.changed(name, mount)


async def begin_appending(world: World, mount: Mounted, name: str, size: int) -> None:
    if world.is_written(mount, name):
        return
    data = world.new_bytes(size)
    opened = await mount.open((name,), APPEND)
    await mount.write(opened, 0, data)
    world.appenders.append(Appending(mount, opened, name, data))
    world.share(name, mount)
    world.by[name] = None


async def end_appending(world: World, _mount: Mounted, which: int) -> None:
    if not world.appenders:
        return
    one = world.appenders.pop(which % len(world.appenders))
    before = world.now(one.name)
    await one.mount.close(one.opened)
    if one.orphan:
        return
    assert world.now(one.name) == (before or b"") + one.data
    world.changed(one.name, one.mount)


async def replace(world: World, mount: Mounted, name: str, size: int) -> None:
    if world.is_written(mount, name):
        return
    data = world.new_bytes(size)
    await mount.write_file((name,), data)
    assert world.now(name) == data
    world.changed(name, mount)


async def patch(world: World, mount: Mounted, name: str, size: int) -> None:
    before = world.now(name)
    if world.is_written(mount, name):
        return
    try:
        opened = await mount.open((name,), os.O_RDWR)
    except GONE:
        # A name may be absent for its lifetime, to whoever opens it in whatever way.
        known = [before] if not world.negative_ttl_seconds else world.allowed(mount, name)
        assert None in known
        return
    assert before is not None
    data = world.new_bytes(size)
    await mount.write(opened, 1, data)
    await mount.close(opened)
    expected = bytearray(before)
    expected[1 : 1 + len(data)] = data
    assert world.now(name) == bytes(expected)
    world.changed(name, mount)


async def unlink(world: World, mount: Mounted, name: str) -> None:
    try:
        await mount.unlink((name,))
    except GONE:
        assert None in world.since[name]
        return
    if world.is_written(mount, name):
        # Never stored, it costs no request: what others have put there meanwhile is theirs.
        for one in world.appenders:
            one.orphan = one.orphan or (one.mount is mount and one.name == name)
        world.changed(name, None)
        return
    assert world.now(name) is None
    world.changed(name, mount)


async def put(world: World, _mount: Mounted, name: str, size: int) -> None:
    world.store.seed(name, world.new_bytes(size))
    world.changed(name, None)


async def delete(world: World, _mount: Mounted, name: str) -> None:
    if name in world.store.objects:
        world.store.erase(name)
        world.changed(name, None)


async def look(world: World, mount: Mounted, name: str) -> None:
    try:
        size: int | None = (await mount.stat((name,))).size
    except GONE:
        size = None
    if not world.is_written(mount, name):
        assert size in [None if v is None else len(v) for v in world.allowed(mount, name)]


async def list_all(world: World, mount: Mounted) -> None:
    await mount.names()


async def pass_time(world: World, _mount: Mounted) -> None:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(METADATA_TTL_SECONDS + 1)
    for name in NAMES:
        world.since[name] = [world.now(name)]


names, sizes, whiches = st.sampled_from(NAMES), st.integers(0, 120), st.integers(0, 40)
steps = st.one_of(
    st.tuples(st.just(whole_read), names, st.sampled_from([7, 64, 1 << 20])),
    st.tuples(st.just(begin_reading), names),
    st.tuples(st.just(go_on_reading), whiches),
    st.tuples(st.just(append), names, sizes),
    st.tuples(st.just(begin_appending), names, sizes),
    st.tuples(st.just(end_appending), whiches),
    st.tuples(st.just(replace), names, sizes),
    st.tuples(st.just(patch), names, sizes),
    st.tuples(st.just(unlink), names),
    st.tuples(st.just(put), names, sizes),
    st.tuples(st.just(delete), names),
    st.tuples(st.just(look), names),
    st.tuples(st.just(list_all)),
    st.tuples(st.just(pass_time)),
)


@pytest.mark.parametrize("negative_ttl_seconds", [0.0, 1.0, 60.0])
@pytest.mark.parametrize("data_path", DATA_PATHS)
@settings(
    max_examples=int(os.environ.get("OSSFS_PY_TEST_SOAK") or 60),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(taken=st.lists(st.tuples(st.integers(0, 1), steps), min_size=5, max_size=40))
def test_two_mounts_and_a_third_client_see_what_close_to_open_allows_and_lose_nothing(
    data_path: str, negative_ttl_seconds: float, taken: list[tuple[int, tuple[object, ...]]]
) -> None:
    async def main() -> None:
        store = FakeStore(min_part_bytes=TINY_PARTS.min_part)
        with TemporaryDirectory(dir=IN_MEMORY) as scratch:
            roots = [Path(scratch) / "a", Path(scratch) / "b"]
            for root in roots:
                root.mkdir()
            async with (
                mounted(
                    data_path, roots[0], store, negative_ttl_seconds=negative_ttl_seconds
                ) as one,
                mounted(
                    data_path, roots[1], store, negative_ttl_seconds=negative_ttl_seconds
                ) as two,
            ):
                world = World(
                    store, [one, two], negative_ttl_seconds, {name: [None] for name in NAMES}
                )
                for which, (action, *arguments) in taken:
                    await action(world, world.mounts[which], *arguments)  # type: ignore[operator]
                while world.appenders:
                    await end_appending(world, one, 0)
                for reading in world.readers:
                    await reading.mount.close(reading.opened)
        assert not [key for key in store.objects if RESERVED_PREFIX in key]

    trio.run(main, clock=trio.testing.MockClock(rate=1.0))
