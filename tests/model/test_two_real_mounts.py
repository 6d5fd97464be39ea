"""Two real mounts and a third client on one bucket; ``close_to_open`` says what each may answer.

No answer is a mixture, ends early or has NULs (no content has any); what was acknowledged is in
the bucket when the call returns; a change to what somebody else replaced is refused, and kept.
Sequences are made up by hypothesis, each in a directory of its own. In some of their steps two
clients work at once, and the store fails in ways that the mounts promise to survive silently.

``OSSFS_PY_SOAK_STEPS`` says how many steps are done on each data path, ``OSSFS_PY_SOAK_SEED``
which ones.
"""

import errno
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from minio import Minio
from minio.error import S3Error

from tests.conftest import MountFactory
from tests.support.close_to_open import Change, Content, History, View
from tests.support.mounting import Mount
from tests.support.proxy import Proxy
from tests.support.recovering import Recovering
from tests.support.seaweed import SeaweedServer, give_back_space
from tests.support.troubles import EVERY, HARMLESS, Trouble

STEPS = int(os.environ.get("OSSFS_PY_SOAK_STEPS", "160"))
SEED = int(os.environ.get("OSSFS_PY_SOAK_SEED", "1"))
STEPS_OF_EXAMPLE = 40
EXAMPLES_UNTIL_VACUUM = 20
SECONDS_PER_STEP = 0.6
TTL_SECONDS = 0.2
LATE_SECONDS = 0.3
"""An answer may reach the kernel so much later on a busy machine, which then counts from there."""
STALE_SECONDS = TTL_SECONDS + LATE_SECONDS
NAMES = ("f", "g")
GONE = (errno.ENOENT, errno.ESTALE)
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
KIB, MIB = 1024, 1024**2

QUICK = tuple(
    trouble
    for trouble in HARMLESS
    if not any(word in trouble.name for word in ("stall", "trickle", "retry-after", "refused"))
)
"""Troubles that are over at once; the others cost a second or more."""
SLOW_SHARE = 0.1


@dataclass
class Reading:
    """A descriptor that was given bytes."""

    mount: int
    fd: int
    name: str
    contents: list[bytes]
    """Of which all bytes that it was given are."""
    is_shared: bool = False
    """Its own mount has written the file since, which it may see."""
    may_be_stale: bool = False


@dataclass
class Writing:
    """A descriptor with changes that are not stored yet."""

    mount: int
    fd: int
    name: str
    data: bytes
    base: Content
    appends: bool


@dataclass
class World:
    """One directory of the bucket, on both mounts, and its past."""

    mounts: list[Path]
    client: Minio
    bucket: str
    prefix: str
    proxy: Proxy
    views: list[View] = field(default_factory=lambda: [View(STALE_SECONDS), View(STALE_SECONDS)])
    past: dict[str, History] = field(default_factory=lambda: {name: History() for name in NAMES})
    readers: list[Reading] = field(default_factory=list)
    writers: list[Writing] = field(default_factory=list)
    written: int = 0
    modes: int = 0
    given: set[tuple[int, str]] = field(default_factory=set)
    """Of which name a mount was given bytes since it wrote it: its kernel may have pages."""
    refused: int = 0
    """Changes that were refused, and so are kept as unsaved."""

    # -- the third client -------------------------------------------------------------------------

    def fetch(self, name: str) -> Content:
        try:
            answer = self.client.get_object(self.bucket, self.prefix + name)
        except S3Error as exc:
            assert exc.code == "NoSuchKey"
            return None
        try:
            return bytes(answer.read())
        finally:
            answer.close()
            answer.release_conn()

    def send(self, name: str, content: bytes) -> None:
        key = self.prefix + name
        self.client.put_object(self.bucket, key, BytesIO(content), len(content))

    # -- what is known ----------------------------------------------------------------------------

    def path(self, mount: int, name: str) -> Path:
        return self.mounts[mount] / self.prefix / name

    def new_bytes(self, size: int) -> bytes:
        """No two are alike, and none has a NUL."""
        self.written += 1
        pattern = b"%d-%s:" % (self.written, self.prefix.encode())
        return (pattern * (size // len(pattern) + 1))[: max(size, len(pattern))] + b"\n"

    def is_written(self, mount: int, name: str) -> bool:
        return any(one.mount == mount and one.name == name for one in self.writers)

    def reads(self, mount: int, name: str) -> bool:
        return any(one.mount == mount and one.name == name for one in self.readers)

    def allowed(self, mount: int, name: str, began: float) -> list[Content]:
        return self.views[mount].allowed(name, self.past[name], began)

    def showed(self, mount: int, name: str, began: float, content: Content) -> None:
        self.views[mount].showed(name, self.past[name], began, content)

    def changed(
        self, name: str, content: Content, by: int | None, *, keeps_pages: bool = False
    ) -> None:
        """A change has returned: it is in the bucket, and whoever made it sees it."""
        assert self.fetch(name) == content, (name, by)
        self.past[name].becomes(content, time.monotonic())
        self.note_change(name, by, keeps_pages=keeps_pages)

    def note_change(self, name: str, by: int | None, *, keeps_pages: bool = False) -> None:
        if by is not None:
            self.views[by].sees_present(name, self.past[name])
            if not keeps_pages:
                self.given.discard((by, name))
        for reading in self.readers:
            if reading.name == name:
                reading.may_be_stale = True
                reading.is_shared = reading.is_shared or reading.mount == by

    @contextmanager
    def fails_only_if_free(self, mount: int, name: str) -> Any:
        """ENOENT is an answer where the name was free; ESTALE, where it was freed."""
        began = time.monotonic()
        try:
            yield
        except OSError as exc:
            assert exc.errno in GONE, exc
            self.showed(mount, name, began, None)


# -- reading --------------------------------------------------------------------------------------


def read_whole(world: World, mount: int, name: str, step: int) -> None:
    if world.is_written(mount, name):
        return
    began = time.monotonic()
    try:
        content: Content = all_of(world.path(mount, name), step)
    except FileNotFoundError:
        content = None
    except OSError as exc:
        told_stale(world, mount, name, exc)
        return
    world.showed(mount, name, began, content)
    if content:
        world.given.add((mount, name))


def told_stale(world: World, mount: int, name: str, exc: OSError) -> None:
    """A fresh descriptor may be told ESTALE only where the kernel has given it bytes that it kept,
    or where another one here holds the content before: it has one inode for both. Once.
    """
    assert exc.errno == errno.ESTALE, exc
    assert (mount, name) in world.given or world.reads(mount, name), exc
    world.given.discard((mount, name))
    world.views[mount].sees_present(name, world.past[name])
    if not world.reads(mount, name):
        read_whole(world, mount, name, MIB)


def all_of(path: Path, step: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"".join(iter(lambda: file.read(step), b""))
        assert b"\0" not in content
        assert os.fstat(file.fileno()).st_size == len(content), (size, len(content))
        return content


def begin_reading(world: World, mount: int, name: str) -> None:
    if world.is_written(mount, name):
        return
    began = time.monotonic()
    try:
        fd = os.open(world.path(mount, name), os.O_RDONLY)
    except FileNotFoundError:
        world.showed(mount, name, began, None)
        return
    try:
        first = os.read(fd, 100)
    except OSError as exc:
        os.close(fd)
        if exc.errno == errno.ENOENT:
            world.showed(mount, name, began, None)
        else:
            told_stale(world, mount, name, exc)
        return
    if first:
        world.given.add((mount, name))
    # The kernel gives a read no more than the size it knew at the open: of a file that others made
    # longer since, the first one may end where one ended that could be opened. The next go on.
    contents = [c for c in world.allowed(mount, name, began) if c is not None]
    ends = {len(c) for c in contents if c}
    contents = [
        c
        for c in contents
        if c[: len(first)] == first and (len(first) == min(100, len(c)) or len(first) in ends)
    ]
    assert contents, (name, first)
    present = world.past[name].now
    is_present = present is not None and set(contents) == {present}
    world.readers.append(Reading(mount, fd, name, contents, may_be_stale=not is_present))


def go_on_reading(world: World, which: int) -> None:
    if not world.readers:
        return
    reading = world.readers[which % len(world.readers)]
    if reading.is_shared:
        return
    position = which * 7_777 % (len(reading.contents[0]) + 20)
    try:
        got = os.pread(reading.fd, 500, position)
    except OSError as exc:
        assert exc.errno == errno.ESTALE and reading.may_be_stale, exc
        return
    size = os.fstat(reading.fd).st_size
    grown = world.past[reading.name].grown(reading.contents)
    read = [content for content in grown if content[position : position + 500] == got]
    possible = [c for c in world.past[reading.name].grown(read) if len(c) == size]
    assert possible, (position, got, size, [len(content) for content in grown])
    reading.contents = possible


def end_reading(world: World, which: int) -> None:
    if world.readers:
        os.close(world.readers.pop(which % len(world.readers)).fd)


def look(world: World, mount: int, name: str) -> None:
    if world.is_written(mount, name):
        return
    began = time.monotonic()
    try:
        size: int | None = world.path(mount, name).stat().st_size
    except FileNotFoundError:
        size = None
    sizes = [None if c is None else len(c) for c in world.allowed(mount, name, began)]
    assert size in sizes, (name, size, sizes)


def list_all(world: World, mount: int) -> None:
    began = time.monotonic()
    found = {path.name for path in world.path(mount, "").iterdir()}
    assert found <= {*NAMES, "keep"}
    for name in NAMES:
        if not world.is_written(mount, name):
            allowed = world.allowed(mount, name, began)
            assert any((name in found) == (content is not None) for content in allowed), (
                name,
                found,
            )


# -- writing --------------------------------------------------------------------------------------


def append(world: World, mount: int, name: str, size: int) -> None:
    if world.is_written(mount, name):
        return
    data, before = world.new_bytes(size), world.past[name].now
    append_to(world.path(mount, name), data)
    world.changed(name, (before or b"") + data, mount)


def append_to(path: Path, data: bytes) -> None:
    fd = os.open(path, APPEND)
    try:
        assert os.write(fd, data) == len(data)
    finally:
        os.close(fd)


def begin_appending(world: World, mount: int, name: str, size: int) -> None:
    if world.is_written(mount, name):
        return
    data = world.new_bytes(size)
    fd = os.open(world.path(mount, name), APPEND)
    assert os.write(fd, data) == len(data)
    world.writers.append(Writing(mount, fd, name, data, world.past[name].now, appends=True))
    share(world, mount, name)


def begin_patching(world: World, mount: int, name: str, size: int) -> None:
    if world.is_written(mount, name):
        return
    with world.fails_only_if_free(mount, name):
        fd = os.open(world.path(mount, name), os.O_RDWR)
        before = world.past[name].now
        assert before is not None
        data = world.new_bytes(size)
        position = len(before) // 2
        assert os.pwrite(fd, data, position) == len(data)
        result = before[:position] + data + before[position + len(data) :]
        world.writers.append(Writing(mount, fd, name, result, before, appends=False))
        share(world, mount, name)


def share(world: World, mount: int, name: str) -> None:
    """The mount's own readers of a file may see what is written there."""
    for reading in world.readers:
        if reading.mount == mount and reading.name == name:
            reading.is_shared = True


def go_on_writing(world: World, which: int, size: int) -> None:
    """Write more, and store all of it."""
    if not world.writers:
        return
    one = world.writers[which % len(world.writers)]
    if not one.appends:
        return
    more, before = world.new_bytes(size), world.past[one.name].now
    assert os.write(one.fd, more) == len(more)
    os.fsync(one.fd)
    world.changed(one.name, (before or b"") + one.data + more, one.mount)
    one.data = b""


def end_writing(world: World, which: int) -> None:
    if not world.writers:
        return
    one = world.writers.pop(which % len(world.writers))
    before = world.past[one.name].now
    if one.appends and not one.data:  # nothing is left to store, and the store is not asked
        os.close(one.fd)
        assert world.fetch(one.name) == before
    elif one.appends:
        os.close(one.fd)
        world.changed(one.name, (before or b"") + one.data, one.mount)
    elif before == one.base:
        os.close(one.fd)
        world.changed(one.name, one.data, one.mount)
    else:
        try:
            os.close(one.fd)
        except OSError as exc:
            assert exc.errno == errno.ESTALE, exc
        else:
            pytest.fail("a part was changed of what others had replaced")
        world.refused += 1
        assert world.fetch(one.name) == before
        world.views[one.mount].sees_present(one.name, world.past[one.name])


def replace_whole(world: World, mount: int, name: str, size: int) -> None:
    if world.is_written(mount, name):
        return
    data = world.new_bytes(size)
    world.path(mount, name).write_bytes(data)
    world.changed(name, data, mount)


def patch(world: World, mount: int, name: str, size: int) -> None:
    if not world.is_written(mount, name):
        begin_patching(world, mount, name, size)
        if world.is_written(mount, name):
            end_writing(world, len(world.writers) - 1)


def cut(world: World, mount: int, name: str, size: int) -> None:
    """truncate(2)."""
    if world.is_written(mount, name):
        return
    before, began = world.past[name].now, time.monotonic()
    with world.fails_only_if_free(mount, name):
        size = min(size, len(before or b""))  # NULs are nobody's to see
        os.truncate(world.path(mount, name), size)
        if before is None:  # cut off to nothing it is a whole new content, and the last wins
            assert not size
            assert any(each is not None for each in world.allowed(mount, name, began))
        world.changed(name, (before or b"")[:size], mount)


def create(world: World, mount: int, name: str, size: int) -> None:
    """O_CREAT|O_EXCL makes a name once."""
    if world.is_written(mount, name):
        return
    before, began = world.past[name].now, time.monotonic()
    try:
        fd = os.open(world.path(mount, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        assert any(each is not None for each in world.allowed(mount, name, began))
        return
    data = world.new_bytes(size)
    os.write(fd, data)
    try:
        os.close(fd)
    except FileExistsError:
        world.refused += 1
        assert before is not None
        return
    assert before is None
    world.changed(name, data, mount)


def change_mode(world: World, mount: int, name: str) -> None:
    """To one that it has not had: a mode that the mount knows already asks nobody what is there."""
    if world.is_written(mount, name):
        return
    world.modes += 1
    mode = 0o600 | world.modes % 0o44  # new files have 0o644
    before = world.past[name].now
    with world.fails_only_if_free(mount, name):
        world.path(mount, name).chmod(mode)
        assert before is not None
        world.changed(name, before, mount, keeps_pages=True)


# -- names ----------------------------------------------------------------------------------------


def unlink(world: World, mount: int, name: str) -> None:
    if world.is_written(mount, name):
        return
    with world.fails_only_if_free(mount, name):
        world.path(mount, name).unlink()
        world.changed(name, None, mount)


def rename(world: World, mount: int, name: str) -> None:
    other = NAMES[1 - NAMES.index(name)]
    if world.is_written(mount, name) or world.is_written(mount, other):
        return
    before = world.past[name].now
    with world.fails_only_if_free(mount, name):
        world.path(mount, name).rename(world.path(mount, other))
        assert before is not None
        takes_pages = (mount, name) in world.given
        world.changed(other, before, mount)
        world.changed(name, None, mount)
        if takes_pages:
            world.given.add((mount, other))


# -- others, time and trouble ---------------------------------------------------------------------


def put(world: World, name: str, size: int) -> None:
    content = world.new_bytes(size)
    world.send(name, content)
    world.changed(name, content, None)


def put_longer(world: World, name: str, size: int) -> None:
    content = (world.past[name].now or b"") + world.new_bytes(size)
    world.send(name, content)
    world.changed(name, content, None)


def delete(world: World, name: str) -> None:
    world.client.remove_object(world.bucket, world.prefix + name)
    world.changed(name, None, None)


def pass_time(_world: World) -> None:
    time.sleep(STALE_SECONDS)


def lay_trouble(world: World, seed: int) -> None:
    """One or two of the next requests fail, in ways that no program notices."""
    rng = random.Random(seed)
    known = HARMLESS if rng.random() < SLOW_SHARE else QUICK
    world.proxy.faults = [_fault(trouble, rng) for trouble in rng.sample(known, 2)]


def _fault(trouble: Trouble, rng: random.Random) -> Any:
    anything = len(trouble.requests) == len(EVERY)
    operation = "*" if anything else rng.choice(sorted(trouble.requests))
    return replace(trouble.make(rng), operation=operation)


def race(world: World, name: str, first: str, second: str, size: int) -> None:
    """The two mounts change a name at the same moment, or one does while the other reads it."""
    if any(world.is_written(mount, name) for mount in (0, 1)):
        return
    changes: list[Change] = []
    calls: list[Callable[[], None]] = []
    shown: list[tuple[int, Content]] = []
    for mount, what in enumerate((first, second)):
        call, change = racer(world, mount, name, what, size, shown)
        calls.append(call)
        if change is not None:
            changes.append(change)
    began = time.monotonic()
    errors: list[BaseException] = []

    def guarded(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as exc:  # noqa: BLE001 - raised again below
            errors.append(exc)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error
    if changes:
        world.past[name].race(changes, world.fetch(name), time.monotonic())
        world.note_change(name, None)
        for mount, what in enumerate((first, second)):
            if what != "read":
                share(world, mount, name)
    for mount, content in shown:
        world.showed(mount, name, began, content)
        world.given.add((mount, name))


def racer(
    world: World, mount: int, name: str, what: str, size: int, shown: list[tuple[int, Content]]
) -> tuple[Callable[[], None], Change | None]:
    """What a mount does in a race, and how it changes a content."""
    path, data = world.path(mount, name), world.new_bytes(size)
    if what == "append":
        return (lambda: append_to(path, data)), (lambda before: (before or b"") + data)
    if what == "replace":
        return (lambda: void(path.write_bytes(data))), (lambda _before: data)

    def read() -> None:
        try:
            shown.append((mount, all_of(path, MIB)))
        except FileNotFoundError:
            shown.append((mount, None))
        except OSError as exc:
            assert exc.errno == errno.ESTALE, exc

    return read, None


def void(_result: object) -> None:
    """A call whose result nobody wants."""


names, whiches, mounts = st.sampled_from(NAMES), st.integers(0, 40), st.integers(0, 1)
sizes = st.sampled_from([*(0, 20, 60, 200, 5000) * 4, *(200 * KIB,) * 3, 9 * MIB])
"""Mostly small, as that is fast; the largest is sent in parts."""
racers = st.sampled_from(["append", "replace", "read"])
ON_NAMES = (read_whole, begin_reading, look, unlink, rename, change_mode)
WITH_SIZE = (append, begin_appending, begin_patching, replace_whole, patch, cut, create)
actions = st.one_of(
    st.tuples(st.just("read_whole"), mounts, names, st.sampled_from([70, 4096, MIB])),
    st.tuples(st.just("read_whole"), mounts, names, st.just(MIB)),
    *(st.tuples(st.just(one.__name__), mounts, names) for one in ON_NAMES[1:]),
    *(st.tuples(st.just(one.__name__), mounts, names, sizes) for one in WITH_SIZE),
    st.tuples(st.just("append"), mounts, names, sizes),
    st.tuples(st.just("go_on_reading"), whiches),
    st.tuples(st.just("go_on_reading"), whiches),
    st.tuples(st.just("end_reading"), whiches),
    st.tuples(st.just("go_on_writing"), whiches, sizes),
    st.tuples(st.just("end_writing"), whiches),
    st.tuples(st.just("list_all"), mounts),
    st.tuples(st.just("put"), names, sizes),
    st.tuples(st.just("put_longer"), names, sizes),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("pass_time")),
    st.tuples(st.just("lay_trouble"), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("race"), names, racers, racers, sizes),
    st.tuples(st.just("race"), names, racers, racers, sizes),
)


def take(world: World, steps: list[tuple[Any, ...]]) -> None:
    """Do the steps, and let everything go that they leave."""
    try:
        for what, *arguments in steps:
            globals()[what](world, *arguments)
        while world.writers:
            end_writing(world, 0)
        while world.readers:
            end_reading(world, 0)
        time.sleep(STALE_SECONDS)
        for mount in (0, 1):
            for name in NAMES:
                read_whole(world, mount, name, MIB)
    finally:
        world.proxy.faults = []
        for fd in [one.fd for one in (*world.readers, *world.writers)]:
            with suppress(OSError):
                os.close(fd)


@pytest.mark.timeout(600 + STEPS * SECONDS_PER_STEP)
def test_two_real_mounts_and_a_third_client_lose_nothing_and_answer_as_close_to_open_allows(
    mount: MountFactory,
    proxy: Proxy,
    seaweed: SeaweedServer,
    bucket: str,
    data_path: str,
    minio_client: Minio,
) -> None:
    proxy.keep_exchanges = False
    both: list[Mount] = [
        mount(
            bucket,
            endpoint=proxy.endpoint,
            data_path=data_path,
            metadata_ttl=f"{int(TTL_SECONDS * 1000)}ms",
            stall_timeout="1s",
        )
        for _ in range(2)
    ]
    refused = 0
    done = 0

    @hypothesis.seed(SEED)
    @settings(
        max_examples=max(1, STEPS // STEPS_OF_EXAMPLE),
        phases=(Phase.explicit, Phase.generate),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(actions, min_size=STEPS_OF_EXAMPLE, max_size=STEPS_OF_EXAMPLE))
    def sequence(steps: list[tuple[Any, ...]]) -> None:
        nonlocal refused, done
        done += 1
        if done % EXAMPLES_UNTIL_VACUUM == 0:
            give_back_space(seaweed)
        prefix = f"{done}/"
        minio_client.put_object(bucket, f"{prefix}keep", BytesIO(b""), 0)
        paths = [one.path for one in both]
        world = World(paths, minio_client, bucket, prefix, proxy)
        take(world, steps)
        refused += world.refused
        for name in NAMES:
            minio_client.remove_object(bucket, prefix + name)

    sequence()
    for one in both:
        assert one.unmount() == 0
    left = [str(item.object_name) for item in minio_client.list_objects(bucket, recursive=True)]
    assert not [key for key in left if not key.endswith("/keep")]
    unsaved = sum(len(Recovering(one, seaweed).list()) for one in both)
    assert unsaved == refused
