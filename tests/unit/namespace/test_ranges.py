"""Large directories, which are read in several places at once."""

import gc
import logging
import random
import threading
import time
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ossfs_py.errors import AccessDeniedError, StoreUnavailableError
from ossfs_py.model import ListPage, ListQuery, ObjectInfo
from ossfs_py.namespace.listing import ranges
from ossfs_py.namespace.listing.guessing import Names
from ossfs_py.namespace.opendirectory import DirectoryListing
from tests.support.endless_store import EndlessStore, TreeKeys
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted
from tests.support.ranged import ListPages, Reading
from tests.support.tree_order_store import TreeOrderStore

THREADS = 40
FEW = 8
"""Requests that a large directory may cost beside a tenth of its pages: four that were wasted, and
four of which nobody knew whether the directory goes on to them.
"""
AT_ONCE = 16
AHEAD = 24
PATIENCE_SECONDS = 60.0


class Crowd(FakeStore):
    """Keys that are there, in order, and a measure of how many requests ran at once."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__()
        self.sorted = sorted(keys)
        self.running = self.most = 0
        self.guard = threading.Lock()

    def list_page(self, query: ListQuery) -> ListPage:
        self._enter("list_page", query.prefix)
        with self.guard:
            self.running += 1
            self.most = max(self.most, self.running)
        after = query.token or query.start_after
        begin = 0 if after is None else bisect_right(self.sorted, after)
        time.sleep(0.002)
        found = [ObjectInfo(key, 1, "e", 1) for key in self.sorted[begin : begin + 1000]]
        with self.guard:
            self.running -= 1
        more = begin + 1000 < len(self.sorted)
        return ListPage(tuple(found), (), found[-1].key if more else None)


def counted(number: int) -> list[str]:
    return [f"img-{n:06}.jpg" for n in range(number)]


def drawn(number: int) -> list[str]:
    draw = random.Random(number)
    return sorted(str(uuid.UUID(int=draw.getrandbits(128))) for _ in range(number))


def thinned(number: int) -> list[str]:
    draw = random.Random(number)
    return [f"{n:09}" for n in range(number * 2) if draw.random() < 0.5]


def words(number: int) -> list[str]:
    draw = random.Random(number)
    parts = [
        "ka",
        "ro",
        "mi",
        "to",
        "la",
        "sen",
        "der",
        "ver",
        "an",
        "in",
        "qu",
        "st",
        "pre",
        "con",
        "de",
        "re",
        "al",
    ]
    return sorted({"".join(draw.choices(parts, k=draw.randint(4, 8))) for _ in range(number)})


def in_two_places(number: int) -> list[str]:
    return [f"{stem}{n:06}" for stem in "az" for n in range(number // 2)]


async def read_all(handle: DirectoryListing, offset: int = 0) -> list[str]:
    names: list[str] = []
    while batch := await handle.entries_from(offset):
        names += [name for _next, name, _inode in batch]
        offset = batch[-1][0]
    return names


@pytest.mark.parametrize("made", [counted, drawn, thinned])
def test_a_large_directory_is_read_in_many_places_at_once(
    made: Callable[[int], list[str]],
) -> None:
    store = Crowd(made(60_000))

    async def run(m: Mounted) -> None:
        assert await m.names(m.root) == store.sorted
        pages = -(-len(store.sorted) // 1000)
        assert m.store.take_requests()["list_page"] <= pages * 1.1 + FEW
        assert 4 < store.most <= AT_ONCE

    mounted(run, store, threads=THREADS)


@pytest.mark.parametrize("made", [words, in_two_places])
def test_names_that_cannot_be_guessed_cost_few_requests(made: Callable[[int], list[str]]) -> None:
    store = Crowd(made(60_000))

    async def run(m: Mounted) -> None:
        assert await m.names(m.root) == store.sorted
        pages = -(-len(store.sorted) // 1000)
        assert m.store.take_requests()["list_page"] <= pages * 1.1 + FEW + AT_ONCE

    mounted(run, store, threads=THREADS)


@pytest.mark.parametrize("number", [1, 999, 1000, 1001, 3500, 4000])
@pytest.mark.parametrize("made", [counted, drawn])
def test_a_directory_of_up_to_4000_names_costs_its_pages(
    made: Callable[[int], list[str]], number: int
) -> None:
    async def run(m: Mounted) -> None:
        assert len(await m.names(m.root)) == number
        assert m.store.take_requests()["list_page"] == -(-number // 1000)

    mounted(run, Crowd(made(number)), threads=THREADS)


def test_strangers_at_the_beginning_do_not_hide_what_names_are_like() -> None:
    names = ["", ".DS_Store", "README", *(f"ILSVRC2012_val_{n:08}.JPEG" for n in range(30_000))]
    names.sort()
    store = Crowd([f"d/{name}" for name in names])

    async def run(m: Mounted) -> None:
        assert await m.names(await m.at("d")) == names[1:]
        assert m.store.take_requests()["list_page"] <= 31 * 1.1 + FEW + 1
        assert store.most > 4

    mounted(run, store, threads=THREADS)


def test_gaps_and_strangers_between_numbered_files_lose_nothing() -> None:
    names = [f"img-{n:06}.jpg" for n in range(19_000) if n not in (3500, 5001)]
    names = sorted([*names, "img-012500.txt", "img-0165", "zebra", "a"])

    async def run(m: Mounted) -> None:
        assert await m.names(m.root) == names

    mounted(run, Crowd(names), threads=THREADS)


class StartsAnywhere(EndlessStore):
    """Ignores where a page should begin, as some stores do; continuation tokens work."""

    def list_page(self, query: ListQuery) -> ListPage:
        return super().list_page(replace(query, start_after=None))


@pytest.mark.parametrize("kind", [EndlessStore, StartsAnywhere])
def test_a_reader_can_seek_back_to_where_ranges_met(kind: type[EndlessStore]) -> None:
    store = kind(TreeKeys(12_000))

    async def run(m: Mounted) -> None:
        handle = m.namespace.list_directory(m.root)
        offsets: list[int] = []
        names: list[str] = []
        offset = 0
        while batch := await handle.entries_from(offset):
            names += [name for _next, name, _inode in batch]
            offset = batch[-1][0]
            offsets.append(offset)
        assert names == list(TreeKeys(12_000))
        for offset in (offsets[20], offsets[30], offsets[31], offsets[44]):
            assert await read_all(handle, offset) == names[offset:]

    mounted(run, store, threads=THREADS, max_entries=1000)


def test_a_page_that_was_guessed_and_failed_is_not_missed() -> None:
    store = Crowd(counted(12_000))
    failed: list[str] = []

    async def run(m: Mounted) -> None:
        handle = m.namespace.list_directory(m.root)
        first = await handle.entries_from(0)
        offset = first[-1][0]
        while offset < 3_500:
            offset = (await handle.entries_from(offset))[-1][0]

        def fail(_method: str, key: str) -> None:
            if len(failed) < 3:
                failed.append(key)
                raise StoreUnavailableError("503")

        store.on_request = fail
        names: list[str] = []
        while True:
            try:
                batch = await handle.entries_from(offset)
            except StoreUnavailableError:
                continue
            if not batch:
                break
            names += [name for _next, name, _inode in batch]
            offset = batch[-1][0]
        assert len(failed) == 3
        assert names == store.sorted[-len(names) :]
        assert store.sorted[offset - len(names)] == names[0]

    mounted(run, store, threads=THREADS)


def test_a_store_that_refuses_every_page_is_told_to_the_reader() -> None:
    store = Crowd(counted(60_000))

    async def run(m: Mounted) -> None:
        handle = m.namespace.list_directory(m.root)
        offset = 0
        while offset < 6_000:
            offset = (await handle.entries_from(offset))[-1][0]
        store.on_request = lambda *_: store_fails()
        with pytest.raises(StoreUnavailableError, match="gone"):
            while True:
                offset = (await handle.entries_from(offset))[-1][0]
        store.on_request = None
        assert await read_all(handle, offset) == store.sorted[offset:]

    def store_fails() -> None:
        raise StoreUnavailableError("gone")

    mounted(run, store, threads=THREADS)


NAME = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.lists(NAME, max_size=12), max_size=6), st.integers(0, 10**6))
@example([["1", "2"], ["2", "1", "0"]], 1)
@example([["9", "1"], ["1", "9"], ["9", "1"], ["1", "9", "9"]], 1)
def test_no_names_in_whatever_order_are_too_strange_to_be_looked_at(
    pages: list[list[str]], step: int
) -> None:
    """A store may tell anything; what is guessed from it may be worth nothing."""
    names = Names()
    for page in pages:
        names.note(page)
        assert names.breadth >= 0
        for name in page:
            names.name_at(names.place(name) + step)


def test_nobody_reads_far_ahead_of_a_reader_that_stopped() -> None:
    store = EndlessStore(TreeKeys(1_000_000))

    async def run(m: Mounted) -> None:
        handle = m.namespace.list_directory(m.root)
        offset, read = 0, 0
        while read < 20_000:
            batch = await handle.entries_from(offset)
            offset, read = batch[-1][0], read + len(batch)
        await idle(m)
        assert m.store.requests["list_page"] <= 21 + AHEAD

    mounted(run, store, threads=THREADS)


def test_nothing_is_requested_any_more_when_the_reader_has_gone() -> None:
    store = EndlessStore(TreeKeys(1_000_000))

    async def run(m: Mounted) -> None:
        handle = m.namespace.list_directory(m.root)
        offset = 0
        while offset < 9_500:
            offset = (await handle.entries_from(offset))[-1][0]
        await idle(m)
        workers, before = m.namespace._tree.listings._workers, m.store.requests["list_page"]
        gate = m.store.hold("list_page")
        while offset < 11_500 and not workers.running:
            with trio.move_on_after(0):
                offset = (await handle.entries_from(offset))[-1][0]
            await trio.lowlevel.checkpoint()
        del handle
        gc.collect()
        on_their_way = workers.running + workers.waiting
        assert on_their_way
        gate.set()
        await idle(m)
        assert m.store.requests["list_page"] <= before + on_their_way

    mounted(run, store, threads=THREADS)


async def idle(m: Mounted) -> None:
    """Wait until no request is on its way."""
    workers = m.namespace._tree.listings._workers
    deadline = time.monotonic() + PATIENCE_SECONDS
    while workers.running or workers.waiting:
        assert time.monotonic() < deadline
        await trio.testing.wait_all_tasks_blocked()
        time.sleep(0.001)  # noqa: ASYNC251 - lets the store's threads have the processor


# -- any store, any order of answers, any names ------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def small_pages() -> Iterator[None]:
    """Directories of some pages of some names are large ones, here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ranges, "_MIN_ENTRIES", 2)
        yield


def some_names(draw: random.Random) -> list[str]:
    """Names of a kind that people have, or of none."""
    number = draw.randint(0, 200)
    characters = draw.choice(
        ["01", "0123456789abcdef", "a-./", "a/b/-", "aé漢\U0001f600", "\x01 ~é"]
    )
    stem = draw.choice(["", "img-", "é", "a/", "-"])
    kinds: list[Callable[[int], str]] = [
        lambda n: f"{n:05}",
        lambda n: f"{n * 7:06}.jpg",
        str,
        lambda n: f"{n // 40}-{n % 40:03}",
        lambda n: f"{draw.choice('az')}{n:04}",
        lambda n: f"{n:04}/x" if draw.random() < 0.5 else f"{n:04}",
        lambda _n: "".join(draw.choices(characters, k=draw.randint(1, 9))),
        lambda _n: f"{draw.getrandbits(64):016x}",
        lambda n: f"{n}/{draw.choice('ab')}",
    ]
    kind = draw.choice(kinds)
    return sorted({stem + kind(n) for n in range(number)})


def shown(keys: Iterable[str], prefix: str) -> set[str]:
    """What a listing with a delimiter tells of keys."""
    return {
        key[: (key.find("/", len(prefix)) + 1) or len(key)]
        for key in keys
        if key.startswith(prefix)
    }


@settings(max_examples=150)
@given(st.randoms(use_true_random=False), st.sampled_from([1, 2, 3, 7, 20]))
def test_every_name_is_told_once_in_order_whatever_the_names(
    draw: random.Random, page_size: int
) -> None:
    store = FakeStore(page_size=page_size)
    prefix = draw.choice(["", "d/", "d é/"])
    keys = [prefix + name for name in some_names(draw)]
    for key in [*keys, "c", "d", "e/x"]:
        store.seed(key)
    reading = Reading(store.list_page, prefix, draw)
    assert reading.keys() == sorted(shown(store.objects, prefix))
    assert reading.most_ahead <= AHEAD
    needed = -(-len(shown(store.objects, prefix)) // page_size)
    assert reading.requests <= 1.1 * max(needed, 1) + FEW + AT_ONCE


@settings(max_examples=150)
@given(st.randoms(use_true_random=False), st.sampled_from([2, 3, 7, 20]))
def test_names_that_are_there_all_the_time_are_told_once_while_others_come_and_go(
    draw: random.Random, page_size: int
) -> None:
    store = FakeStore(page_size=page_size)
    names = some_names(draw)
    staying = {name for name in names if draw.random() < 0.7}
    ever = set(names)
    for name in names:
        store.seed(name)

    def change() -> None:
        if not names or draw.random() < 0.5:
            return
        name = draw.choice(names) + draw.choice(["", "", "0", "-", "/y"])
        if name in staying:
            return
        ever.add(name)
        if name in store.objects:
            store.erase(name)
        else:
            store.seed(name)

    reading = Reading(store.list_page, "", draw)
    reading.between = change
    told = reading.keys()
    assert len(set(told)) == len(told)
    assert shown(staying, "") <= set(told) <= shown(ever, "")
    assert told == sorted(told)


def from_the_beginning(store: FakeStore) -> ListPages:
    """Ignores where to begin."""
    return lambda query: store.list_page(replace(query, start_after=None))


def with_the_key_itself(store: FakeStore) -> ListPages:
    """Begins with the key after which it is asked to begin, or the one after that."""

    def list_page(query: ListQuery) -> ListPage:
        if query.start_after:
            before = [key for key in sorted(store.objects) if key < query.start_after]
            query = replace(query, start_after=before[-1] if before else None)
        return store.list_page(query)

    return list_page


def skipping_one(store: FakeStore) -> ListPages:
    """Loses the first key behind the one that it is given."""

    def list_page(query: ListQuery) -> ListPage:
        if query.start_after:
            behind = [key for key in sorted(store.objects) if key > query.start_after]
            query = replace(query, start_after=behind[0] if behind else query.start_after)
        return store.list_page(query)

    return list_page


def refusing(store: FakeStore) -> ListPages:
    """Has no such parameter."""

    def list_page(query: ListQuery) -> ListPage:
        if query.start_after:
            raise AccessDeniedError("start-after")
        return store.list_page(query)

    return list_page


def backwards(store: FakeStore) -> ListPages:
    """Has keys in an order of its own."""

    def list_page(query: ListQuery) -> ListPage:
        keys = sorted(store.objects, key=lambda key: key[::-1])
        after = query.token or query.start_after
        left = [key for key in keys if after is None or key[::-1] > after[::-1]]
        found = left[: store._page_size]
        objects = tuple(ObjectInfo(key, 1, "e", 1) for key in found)
        return ListPage(objects, (), found[-1] if len(left) > len(found) else None)

    return list_page


def failing(store: FakeStore) -> ListPages:
    """Fails now and then."""
    draw = random.Random(3)

    def list_page(query: ListQuery) -> ListPage:
        if draw.random() < 0.2:
            raise StoreUnavailableError("503")
        return store.list_page(query)

    return list_page


@pytest.mark.parametrize(
    "store_is",
    [from_the_beginning, with_the_key_itself, skipping_one, refusing, backwards, failing],
)
@settings(max_examples=60)
@given(draw=st.randoms(use_true_random=False), step=st.sampled_from([1, 3]))
def test_a_store_that_lies_about_where_pages_begin_is_listed_whole(
    store_is: Callable[[FakeStore], ListPages], draw: random.Random, step: int
) -> None:
    store = FakeStore(page_size=10)
    for number in range(400):
        store.seed(f"{number * step:05}")
    reading = Reading(store_is(store), "", draw)
    assert sorted(reading.keys()) == store.keys()


@pytest.mark.parametrize("store_is", [from_the_beginning, with_the_key_itself, skipping_one])
def test_a_store_that_lies_is_noticed_once_and_asked_in_order_from_then_on(
    store_is: Callable[[FakeStore], ListPages], caplog: pytest.LogCaptureFixture
) -> None:
    store = FakeStore(page_size=10)
    for number in range(1000):
        store.seed(f"{number * 3:05}")
    first = Reading(store_is(store), "", random.Random(1))
    with caplog.at_level(logging.INFO):
        assert first.keys() == store.keys()
    assert ["does not begin pages" in record.message for record in caplog.records] == [True]
    second = Reading(store_is(store), "", random.Random(1))
    second.order = first.order
    assert second.keys() == store.keys()
    assert second.requests == 100


def test_directories_that_sort_beside_their_names_are_not_lost_where_ranges_meet() -> None:
    """SeaweedFS lists by the names of a directory: ``a`` with all that is in it before ``a-b``."""
    names = sorted(f"{n:04}{tail}" for n in range(300) for tail in ("-a", "/x", ".b"))

    def list_page(query: ListQuery) -> ListPage:
        after = (query.token or query.start_after or "").removesuffix("/")
        left = sorted(one for one in shown(names, "") if one.removesuffix("/") > after)
        left.sort(key=lambda one: one.removesuffix("/"))
        found = sorted(left[:10])
        objects = tuple(ObjectInfo(one, 1, "e", 1) for one in found if one[-1] != "/")
        last = left[:10][-1:]
        more = len(left) > 10
        prefixes = tuple(one for one in found if one[-1] == "/")
        return ListPage(objects, prefixes, last[0] if more else None)

    for seed in range(12):
        reading = Reading(list_page, "", random.Random(seed))
        told = reading.keys()
        assert len(told) == len(set(told))
        assert set(told) == shown(names, "")


@given(st.lists(st.text(max_size=12), min_size=2, max_size=60, unique=True))
def test_numbers_of_names_have_their_order_and_come_back(names: list[str]) -> None:
    names.sort()
    known = Names()
    known.note(names)
    numbers = [known.place(name) for name in names]
    assert numbers == sorted(numbers)
    for number in numbers:
        found = known.name_at(number)
        assert found is not None
        assert known.place(found) == number


def test_the_end_of_the_next_page_of_counted_names_is_known_exactly() -> None:
    known = Names()
    known.note([f"img-{n:05}.jpeg" for n in range(1000)])
    assert known.are_counted
    assert known.name_at(known.place("img-00999.jpeg") + 1000) == "img-01999.jpeg"
    assert known.name_at(known.place("img-99999.jpeg") + 1) is None


def test_names_that_a_server_might_not_take_are_not_guessed() -> None:
    for odd in ("\n", "\x7f", "\udcff"):
        known = Names()
        known.note([f"a{odd}{n:05}" for n in range(1000)])
        assert not known.breadth


@pytest.mark.parametrize("kind", [FakeStore, TreeOrderStore])
def test_directories_are_listed_in_several_places_where_their_names_are_left_out(
    kind: type[FakeStore], caplog: pytest.LogCaptureFixture
) -> None:
    store = kind()
    for number in range(9000):
        store.seed(f"d{number:05}/f", b"x")

    async def run(m: Mounted) -> None:
        assert len(await m.names(m.root)) == 9000

    with caplog.at_level("INFO"):
        mounted(run, store)
    assert "page after page" not in caplog.text
