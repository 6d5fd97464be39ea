"""What the kernel is made to forget, and when nobody has to ask it to."""

from collections.abc import Callable

import trio
import trio.testing

from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.filesystem.replies import EntryReply, Replies
from ossfs_py.model import Attributes, ObjectInfo, ObjectVersion
from ossfs_py.namespace.inode import Inode, Kind

OLD, NEW = ObjectVersion("file", "old", 3), ObjectVersion("file", "new", 3)
LONGER = ObjectVersion("file", "longer", 5)


class Told:
    """A kernel that notes what it is told, and does it at once or, if it is slow, when told to."""

    def __init__(self, *, slow: bool = False) -> None:
        self.heard: list[tuple[str, int]] = []
        self.names: list[tuple[int, bytes]] = []
        self.slow = slow
        self.under_way: list[Callable[[], None]] = []

    def invalidate_pages(self, inode: int, done: Callable[[], None]) -> None:
        self.heard.append(("pages", inode))
        self._do(done)

    def invalidate_attributes(self, inode: int, done: Callable[[], None]) -> None:
        self.heard.append(("attributes", inode))
        self._do(done)

    def _do(self, done: Callable[[], None]) -> None:
        if self.slow:
            self.under_way.append(done)
        else:
            done()

    def end(self) -> None:
        """Everything asked for is done now."""
        while self.under_way:
            self.under_way.pop()()

    async def told(self) -> None:
        await trio.lowlevel.checkpoint()

    async def expire_attributes(self, inode: int) -> None:
        await trio.lowlevel.checkpoint()
        self.heard.append(("expired", inode))

    async def lengthen(self, inode: int, size_bytes: int, last: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.heard.append((f"{size_bytes} bytes", inode))

    def invalidate_entry(self, directory: int, name: bytes) -> None:
        self.names.append((directory, name))

    def back(self, fd: int) -> int | None:
        self.heard.append(("backed", fd))
        return 1

    def unback(self, local: int) -> None:
        self.heard.append(("not backed", local))

    async def drop_pages(self, inode: int) -> None:
        await trio.lowlevel.checkpoint()
        self.heard.append(("dropped", inode))


class Changing:
    """A namespace that finds out, while it is asked, that the kernel has to ask again."""

    def __init__(self, cache: KernelCache) -> None:
        self._cache = cache

    def attributes_nowait(self, _inode: Inode, _now: float | None = None) -> None:
        """The store has to be asked."""

    async def attributes(self, inode: Inode) -> Attributes:
        await trio.lowlevel.checkpoint()
        self._cache.attributes_changed(inode)
        return self.attributes_known(inode)

    def attributes_known(self, inode: Inode) -> Attributes:
        assert inode.info is not None
        return Attributes(inode.number, 0o100644, inode.info.size, 0, 0, 0, 0, 0)

    def fresh_seconds(self, _inode: Inode, _now: float) -> float:
        return 1.0

    def generation(self, _inode: Inode) -> int:
        return 0


def file(version: ObjectVersion) -> Inode:
    inode = Inode(7, None, "file", Kind.FILE)
    show(inode, version)
    return inode


def show(inode: Inode, version: ObjectVersion) -> None:
    inode.info = ObjectInfo(version.key, version.size, version.etag, 0)


def test_a_kernel_hears_only_while_it_has_the_mount() -> None:
    cache, kernel = KernelCache(), Told()

    async def everything() -> None:
        cache.invalidate_attributes(1)
        await cache.drop_pages(2)

    trio.run(everything)
    with cache.attached(kernel):
        trio.run(everything)
    trio.run(everything)
    assert kernel.heard == [("attributes", 1), ("dropped", 2)]


def test_pages_of_a_replaced_object_go_once() -> None:
    trio.run(_pages_of_a_replaced_object_go_once)


async def _pages_of_a_replaced_object_go_once() -> None:
    cache, kernel = KernelCache(), Told()
    inode = file(OLD)
    with cache.attached(kernel):
        cache.replaced(inode)
        assert kernel.heard == [("attributes", 7)], "the kernel has read nothing of it"
        cache.keeps_pages(inode, OLD, dirty=False)
        cache.gave_bytes(inode)
        cache.replaced(inode)
        assert kernel.heard[1:] == [("attributes", 7)], "it is the version that it has read"
        show(inode, NEW)
        cache.replaced(inode)
        cache.replaced(inode)
        assert kernel.heard[2:] == [("attributes", 7), ("attributes", 7)], "open drops the pages"
        cache.keeps_pages(inode, NEW, dirty=False)
        inode.open_count = 1
        show(inode, OLD)
        cache.replaced(inode)
        assert kernel.heard[4:] == [("pages", 7)]
    assert not cache.has_pages(inode, "old")


def test_pages_are_kept_over_opens_of_one_version_and_over_a_commit() -> None:
    cache = KernelCache()
    inode = file(OLD)

    def asked(version: ObjectVersion, *, dirty: bool = False) -> bool:
        kept = cache.keeps_pages(inode, version, dirty=dirty)
        cache.gave_bytes(inode)
        return kept

    assert asked(OLD)
    assert asked(OLD)
    assert not asked(NEW)
    assert asked(NEW)
    assert asked(OLD, dirty=True)
    cache.note_pages(inode, NEW)
    assert cache.has_pages(inode, "new")
    assert asked(NEW)


def test_who_opens_a_file_late_drops_nothing_that_others_have_read_since() -> None:
    """Of four processes that open one file at once, one may come to drop its pages when the others
    have read most of it: the store would be asked for all of it again.
    """
    cache, inode = KernelCache(), file(OLD)
    assert cache.keeps_pages(inode, OLD, dirty=False), "there is nothing to drop"
    assert cache.keeps_pages(inode, OLD, dirty=False)
    cache.gave_bytes(inode)
    assert cache.keeps_pages(inode, OLD, dirty=False)


def test_old_pages_are_dropped_by_all_who_open_the_new_version_before_its_first_byte() -> None:
    """The first of them may be slow to drop them, and the second must not read them."""
    cache, inode = KernelCache(), file(OLD)
    cache.keeps_pages(inode, OLD, dirty=False)
    cache.gave_bytes(inode)
    assert not cache.keeps_pages(inode, NEW, dirty=False)
    assert not cache.keeps_pages(inode, NEW, dirty=False)
    cache.gave_bytes(inode)
    assert cache.keeps_pages(inode, NEW, dirty=False)


def test_what_an_earlier_daemon_gave_may_be_of_any_version() -> None:
    cache, inode = KernelCache(), file(OLD)
    cache.had_pages({inode.number})
    assert not cache.was_given_bytes(inode)
    assert not cache.keeps_pages(inode, OLD, dirty=False)


def test_nothing_is_remembered_of_an_inode_that_the_kernel_forgot() -> None:
    cache = KernelCache()
    inode = file(OLD)
    cache.keeps_pages(inode, OLD, dirty=False)
    cache.gave_bytes(inode)
    cache.forget(inode.number)
    assert not cache.has_pages(inode, "old")
    assert not cache.was_given_bytes(inode)
    assert cache.keeps_pages(inode, NEW, dirty=False), "it has no page of it"


def test_a_name_that_others_took_is_told_with_the_inode_that_had_it() -> None:
    cache, kernel = KernelCache(), Told(slow=True)
    directory = Inode(3, None, "d", Kind.DIRECTORY)
    with cache.attached(kernel):
        cache.news.name_taken(directory, "模", file(OLD))
        cache.news.attributes_changed(directory)
    cache.news.name_taken(directory, "f", file(OLD))
    assert kernel.names == [(3, "模".encode())]
    assert kernel.heard == [("attributes", 7), ("attributes", 3)]


def test_a_short_answer_to_a_read_during_which_the_size_expired_is_no_end() -> None:
    async def run() -> None:
        cache, inode = KernelCache(), file(OLD)
        cache.answered(inode, 3, trio.current_time())
        began = trio.current_time()
        with cache.attached(Told()):
            assert not cache.must_not_end(inode, 1, began, -1)
            with cache.postponed(inode):
                show(inode, NEW)
                cache.replaced(inode)
            assert cache.is_behind(inode)
            assert not cache.must_not_end(inode, 1, began, -1), (
                "the kernel heeds the end of the answer"
            )
            cache.replaced(inode)
        assert cache.must_not_end(inode, 1, began, -1)
        assert cache.must_not_end(inode, 1, trio.current_time(), -1), (
            "it may have been queued before"
        )
        assert not cache.must_not_end(inode, 1, trio.current_time() + 10, -1)
        now = trio.current_time()
        assert not cache.must_not_end(inode, 1, now, now), "opened after the kernel forgot"
        assert not cache.must_not_end(inode, 3, began, -1), "the kernel knows of no more bytes"
        cache.answered(inode, 1, trio.current_time())
        assert not cache.must_not_end(inode, 1, began, -1)
        assert not cache.is_behind(inode)

    trio.run(run)


def test_a_size_expires_when_the_kernel_has_forgotten_it_however_long_that_takes() -> None:
    """The thread that tells it waits for READs in flight, or does not run on a busy machine."""

    async def run() -> None:
        cache, kernel, inode = KernelCache(), Told(slow=True), file(OLD)
        cache.answered(inode, 3, trio.current_time())
        with cache.attached(kernel):
            cache.replaced(inode)
            await trio.sleep(1000)
            assert cache.must_not_end(inode, 1, trio.current_time(), -1)
            cache.answered(inode, 1, trio.current_time())
            assert cache.must_not_end(inode, 1, trio.current_time(), -1), (
                "it may not have heeded it"
            )
            cache.forget(inode.number)  # another inode of the number is meant, for the thread
            assert cache.must_not_end(inode, 1, trio.current_time(), -1)
            kernel.end()
            asked_before = trio.current_time()
            await trio.sleep(0.01)
            cache.answered(inode, 1, asked_before - 1)
            assert cache.must_not_end(inode, 1, trio.current_time(), -1), "asked before it forgot"
            cache.answered(inode, 1, asked_before)
            assert not cache.must_not_end(inode, 1, asked_before, -1)
            cache.replaced(inode)
            kernel.end()
            cache.forget(inode.number)
            inode.size_told = 3
            assert not cache.must_not_end(inode, 1, trio.current_time(), -1)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_version_that_comes_while_the_kernel_forgets_is_told_and_no_other() -> None:
    """Its bytes may be in memory already: the kernel would end a READ of them by the old size."""

    async def run() -> None:
        cache, kernel, inode = KernelCache(), Told(slow=True), file(OLD)
        namespace = Changing(cache)
        replies: list[EntryReply] = []

        async def ask() -> None:
            replies.append(await Replies(namespace, cache).fresh(inode, trio.current_time()))  # type: ignore[arg-type]

        with cache.attached(kernel):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                show(inode, LONGER)
                cache.replaced(inode)
                kernel.end()
        (reply,) = replies
        assert reply.attributes.size == LONGER.size
        assert inode.size_told == LONGER.size

    trio.run(run)


def test_whatever_makes_the_kernel_forget_a_size_counts() -> None:
    async def run() -> None:
        directory = Inode(3, None, "d", Kind.DIRECTORY)
        for forgets in (
            lambda cache, inode: cache.invalidate_attributes(inode.number),
            lambda cache, inode: cache.news.attributes_changed(inode),
            lambda cache, inode: cache.news.name_taken(directory, "file", inode),
            lambda cache, inode: cache.contents_changed(inode),
            lambda cache, inode: cache.drop_pages(inode.number),
            lambda cache, inode: cache.expire_attributes(inode.number),
        ):
            cache, inode = KernelCache(), file(OLD)
            cache.answered(inode, 3, trio.current_time())
            with cache.attached(Told()):
                waits = forgets(cache, inode)  # type: ignore[no-untyped-call]
                if waits is not None:
                    await waits
            began = trio.current_time()
            assert cache.must_not_end(inode, 1, began, -1)
            await trio.sleep(1)
            assert not cache.must_not_end(inode, 1, trio.current_time(), -1)
            cache.truncated(inode, 0)
            assert not cache.must_not_end(inode, 0, began, -1)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_file_that_became_shorter_than_the_kernel_was_told_meanwhile_does_not_end() -> None:
    """It is told the size of a version before it forgets the attributes, as a thread asks it to;
    then the READ finds a shorter version, and its end is not heeded."""

    async def run() -> None:
        cache, inode = KernelCache(), file(OLD)
        with cache.attached(Told()):
            cache.replaced(inode)
        cache.answered(inode, 3, trio.current_time())
        began = trio.current_time()
        assert not cache.must_not_end(inode, 3, began, -1)
        assert not cache.must_not_end(inode, 4, began, -1), "it grew: nothing is to be filled up"
        assert cache.must_not_end(inode, 2, began, -1)
        assert not cache.must_not_end(inode, 2, began + 10, -1)
        cache.forget(inode.number)
        assert not cache.must_not_end(inode, 2, began, -1)

    trio.run(run)


def test_pages_from_before_a_change_are_dropped_once_nobody_has_the_file_open() -> None:
    """Or who opens the file after others replaced it is told ESTALE at its first byte."""
    cache, inode = KernelCache(), file(OLD)
    cache.keeps_pages(inode, OLD, dirty=False)
    cache.gave_bytes(inode)
    cache.closed(inode)
    assert cache.was_given_bytes(inode)
    assert cache.keeps_pages(inode, OLD, dirty=False)
    cache.wrote(inode)
    assert cache.was_given_bytes(inode)
    assert cache.keeps_pages(inode, OLD, dirty=True)
    cache.closed(inode)
    assert not cache.was_given_bytes(inode)
    assert not cache.keeps_pages(inode, OLD, dirty=False)


def test_little_is_kept_of_files_that_the_kernel_has_forgotten() -> None:
    """Of a file that others delete it drops the name first, and with it the file, before it has
    forgotten the attributes."""

    async def run() -> None:
        directory = Inode(3, None, "d", Kind.DIRECTORY)
        cache, kernel = KernelCache(), Told(slow=True)
        with cache.attached(kernel):
            for number in range(10, 5010):
                gone = Inode(number, directory, "file", Kind.FILE)
                show(gone, OLD)
                cache.answered(gone, 3, trio.current_time())
                cache.news.name_taken(directory, "file", gone)
                assert cache.is_forgetting(gone)
                cache.forget(number)
                if number % 3 == 0:  # the kernel asks for it again meanwhile
                    cache.answered(gone, 3, trio.current_time())
                    assert cache.is_forgetting(gone)
                    kernel.end()
                    cache.forget(number)
                elif number % 3 == 1:
                    kernel.end()
            kernel.end()
            assert held_by(cache) <= 1024

    trio.run(run)


def held_by(cache: KernelCache) -> int:
    """How many inodes it remembers anything of, once for each kind."""
    kept = (cache._etags, cache._behind, cache._expiries, cache._given, cache._written)
    return sum(map(len, kept))
