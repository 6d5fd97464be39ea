"""Filling the nodes before anybody reads, by any number of mounts at once."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from ossfs_py.datapath.filling import FillProgress
from ossfs_py.datapath.sharedfilling import SharedFiller
from ossfs_py.errors import StoreUnavailableError
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.shared import Stocked
from ossfs_py.runtime.buffers import BufferPool, NothingEvictable
from ossfs_py.runtime.workers import Workers
from ossfs_py.sharedcache import node as node_module
from ossfs_py.sharedcache.stock import Stock
from ossfs_py.telemetry.metrics import Metrics
from tests.support.memcached import Memcached
from tests.support.pattern_store import pattern
from tests.unit.sharedcache.machines import MIB, SECRET, SIZE, VERSION, Bucket, Machine


def fill(machine: Machine, start: int = 0, end: int = SIZE) -> Stocked:
    return Stock(machine.cache).fill(VERSION, start, memoryview(bytearray(end - start)))


def share(machine: Machine, version: ObjectVersion = VERSION) -> int:
    return Stock(machine.cache).share(version)


# -- one span ------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [None, SECRET])
def test_what_one_filled_in_all_others_find_and_read(
    node: Memcached, bucket: Bucket, secret: bytes | None
) -> None:
    one, two = (Machine(bucket, node.address, secret=secret) for _ in range(2))
    assert share(one) == 0
    assert fill(one, 0, 4 * MIB) == Stocked(0, 4 * MIB, ())
    assert share(two) == 4 * MIB
    assert fill(two) == Stocked(4 * MIB, SIZE - 4 * MIB, ())
    assert share(one) == SIZE
    assert one.read() == two.read() == pattern(0, SIZE)
    assert bucket.served == SIZE
    assert one.errors() == two.errors() == {}


def test_what_another_fetches_is_left_to_it_until_it_gives_up(
    node: Memcached, bucket: Bucket
) -> None:
    other, one = (Machine(bucket, node.address) for _ in range(2))
    answer = other.cache.get_range_into(VERSION, 2 * MIB, memoryview(bytearray(MIB)))
    assert share(one) == 0  # a lease is no block
    assert fill(one, 0, 4 * MIB) == Stocked(0, 3 * MIB, ((2 * MIB, 3 * MIB),))
    for owed in answer.owed:
        other.cache.forgo(VERSION, owed)
    assert fill(one, 2 * MIB, 3 * MIB) == Stocked(0, MIB, ())


def test_a_download_that_fails_leaves_the_rest_to_others(node: Memcached, bucket: Bucket) -> None:
    bucket.fail = lambda _start: StoreUnavailableError("no")
    failing, other = (Machine(bucket, node.address) for _ in range(2))
    with pytest.raises(StoreUnavailableError):
        fill(failing, 0, 2 * MIB)
    bucket.fail = lambda _start: None
    assert fill(other, 0, 2 * MIB) == Stocked(0, 2 * MIB, ())


def test_a_block_of_several_items_is_there_when_all_of_them_are(bucket: Bucket) -> None:
    with Memcached("-m", "64", "-I", "64k", "-o", "slab_chunk_max=16384") as small:
        machine = Machine(bucket, small.address)
        fill(machine)
        assert share(machine) == SIZE
        gone = next(key for key in small.stored() if b"-0." in key)
        assert small.ask(b"md " + gone + b"\r\n") == b"HD\r\n"
        assert share(machine) == SIZE - MIB
        assert fill(machine) == Stocked(SIZE - MIB, MIB, ())
        assert share(machine) == SIZE


def test_what_cannot_be_had_or_kept_is_said(node: Memcached, bucket: Bucket) -> None:
    nobody = Machine(bucket)
    assert fill(nobody).problem == "no node of the shared cache answers"
    assert share(nobody) == 0
    machine = Machine(bucket, node.address)
    machine.cache.nodes[0].item_bytes = 1024  # less than a block can be cut to
    assert fill(machine, 0, MIB).problem.startswith("a node of the shared cache does not take it")
    unnamed = ObjectVersion("model", "", MIB)
    told = Stock(machine.cache).fill(unnamed, 0, memoryview(bytearray(MIB)))
    assert told.problem == "the store gives no ETag for it, so it is never shared"
    assert share(machine, unnamed) == 0


# -- whole versions, several mounts at once --------------------------------------------------------

LARGE = ObjectVersion("large", "etag", 24 * MIB + 5)
EMPTY = ObjectVersion("empty", "etag", 0)


class Warming:
    """One mount that warms up."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.progress = FillProgress()
        pool = BufferPool(32 * MIB, 8 * MIB, Metrics(), NothingEvictable())
        self.pool = pool
        self.network = Workers("net", 8)
        self.filler = SharedFiller(Stock(machine.cache), self.network, pool)

    async def run(self) -> None:
        await self.filler.fill([LARGE, EMPTY, VERSION], 8, self.progress)
        assert self.pool.used_bytes == 0
        self.network.close()


WANTED = LARGE.size + VERSION.size


def all_of(*works: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for work in works:
                    nursery.start_soon(work)

    trio.run(main)


def test_four_at_once_fetch_each_byte_once_and_tell_of_all_of_it(bucket: Bucket) -> None:
    with Memcached() as one, Memcached() as two:
        warmings = []

        async def warm() -> None:
            warmings.append(Warming(Machine(bucket, one.address, two.address)))
            await warmings[-1].run()

        all_of(*[warm] * 4)
        assert bucket.served == WANTED
        assert sum(each.progress.fetched_bytes for each in warmings) == WANTED
        for each in warmings:
            told = each.progress
            assert (told.files_done, told.bytes_done, told.missing) == (3, WANTED, {})
            assert share(each.machine, LARGE) == LARGE.size
        # And once more: nothing is left to be done.
        all_of(warm)
        assert bucket.served == WANTED


def test_what_a_killed_node_took_along_is_fetched_again_by_one(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "FIRST_PAUSE_SECONDS", 600.0)
    with Memcached() as one, Memcached() as two:
        warmings = []

        def fail(_start: int) -> None:
            if bucket.served > 16 * MIB:
                two.kill()

        bucket.fail = fail  # type: ignore[assignment]

        async def warm() -> None:
            warmings.append(Warming(Machine(bucket, one.address, two.address)))
            await warmings[-1].run()

        all_of(warm, warm)
        for each in warmings:
            assert each.progress.missing == {}
            assert (each.progress.files_done, each.progress.bytes_done) == (3, WANTED)
            assert share(each.machine, LARGE) == LARGE.size
            assert share(each.machine) == SIZE
        assert bucket.served <= 2 * WANTED
        names = warmings[0].machine.cache.names(LARGE)
        assert {names.key(index) for index in range(names.count)} <= set(one.stored())


def test_one_that_cannot_be_had_keeps_no_other_from_coming(node: Memcached, bucket: Bucket) -> None:
    bucket.fail = lambda start: StoreUnavailableError("no") if start == 20 * MIB else None
    warmings = []

    async def warm() -> None:
        warmings.append(Warming(Machine(bucket, node.address)))
        await warmings[-1].run()

    all_of(warm)
    assert warmings[0].progress.missing == {"large": "no"}
    assert warmings[0].progress.files_done == 3
    assert share(warmings[0].machine) == SIZE
    assert share(warmings[0].machine, LARGE) == LARGE.size - 2 * MIB


def test_a_slow_bucket_is_asked_for_less_at_a_time(
    node: Memcached, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what is under way would be taken for lost, and fetched by others again."""
    monkeypatch.setattr("ossfs_py.datapath.sharedfilling._SLOW_SECONDS", 0.0)
    running: list[int] = []
    warmings = []

    async def warm() -> None:
        warmings.append(Warming(Machine(bucket, node.address)))
        bucket.fail = lambda _start: running.append(warmings[0].network.running)  # type: ignore[func-returns-value,return-value]
        await warmings[0].run()

    all_of(warm)
    assert len(running) == 13 + 5
    assert max(running[8:]) == 1
