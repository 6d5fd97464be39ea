"""The shared cache over real memcached nodes, and over ports where something else answers."""

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from ossfs_py.errors import StoreUnavailableError
from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.runtime.workers import Workers
from ossfs_py.sharedcache import cache as cache_module
from ossfs_py.sharedcache import node as node_module
from ossfs_py.sharedcache.blocks import BLOCK_BYTES
from ossfs_py.sharedcache.cache import SharedCacheOptions
from ossfs_py.sharedcache.keeping import Keeping
from tests.support.memcached import Memcached, free_port
from tests.support.pattern_store import pattern
from tests.unit.sharedcache.machines import MIB, PATIENT, SECRET, SIZE, VERSION, Bucket, Machine

# -- sharing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [None, SECRET])
def test_what_one_machine_fetched_the_others_read_from_the_node(
    node: Memcached, bucket: Bucket, secret: bytes | None
) -> None:
    first, second = (Machine(bucket, node.address, secret=secret) for _ in range(2))
    assert first.read() == pattern(0, SIZE)
    assert second.read() == pattern(0, SIZE)
    assert bucket.served == SIZE
    assert (first.counted("won"), second.counted("hit")) == (9, 9)
    # It can be had again as easily, so little of it is kept.
    assert second.cache.get_range_into(VERSION, 0, memoryview(bytearray(SIZE))).was_there
    assert not first.cache.get_range_into(
        VERSION, 0, memoryview(bytearray(MIB // 2))
    ).was_there  # no whole block
    assert second.errors() == {}


def test_spans_that_cut_blocks_are_right_and_share_the_whole_ones(
    node: Memcached, bucket: Bucket
) -> None:
    machine = Machine(bucket, node.address)
    rng = random.Random(3)
    for _ in range(60):
        start, end = sorted(rng.sample(range(SIZE + 1), 2))
        assert machine.read(start, end) == pattern(start, end - start)
    assert machine.counted("hit") > 0
    assert machine.errors() == {}


def test_eight_machines_at_once_download_each_byte_once(node: Memcached, bucket: Bucket) -> None:
    machines = [Machine(bucket, node.address) for _ in range(8)]
    spans = [(start, min(start + 2 * MIB, SIZE)) for start in range(0, SIZE, 2 * MIB)]

    def whole(machine: Machine) -> bytes:
        return b"".join(machine.read(*span) for span in spans)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(whole, machines)) == {pattern(0, SIZE)}
    assert bucket.served == SIZE
    assert sum(machine.counted("late") for machine in machines) == 0


def test_who_lost_the_lease_waits_for_who_won_it(node: Memcached, bucket: Bucket) -> None:
    bucket.gate = threading.Event()
    first, second = (Machine(bucket, node.address) for _ in range(2))
    with ThreadPoolExecutor(2) as pool:
        winner = pool.submit(first.read, 0, MIB)
        assert bucket.asked.wait(30)
        hits = node.statistic("get_hits")
        loser = pool.submit(second.read, 0, MIB)
        while node.statistic("get_hits") == hits:  # the lease is what it finds
            time.sleep(0.01)
        bucket.gate.set()
        assert winner.result() == loser.result() == pattern(0, MIB)
    assert bucket.served == MIB
    assert second.counted("waited") == 1
    # Who only waits learns from that what the bucket takes.
    assert second.cache.pace.wait_seconds != Machine(bucket).cache.pace.wait_seconds


def test_two_who_wait_for_each_other_s_blocks_both_get_them(
    node: Memcached, bucket: Bucket
) -> None:
    """One won block 0 and lost block 1, the other the other way round: neither may wait for the
    end of its own span before it hands on."""
    one, two = (Machine(bucket, node.address) for _ in range(2))
    for machine in (one, two):
        machine.cache.pace.store_took(1, 100.0)  # patient: 30 s
    fetch = one.cache.fetch
    meet = threading.Barrier(2)

    def at_once(version: ObjectVersion, start: int, view: memoryview) -> ObjectInfo | None:
        meet.wait(30)
        return fetch(version, start, view)

    one.cache.fetch = two.cache.fetch = at_once  # type: ignore[method-assign]
    ask = cache_module._Request._ask
    first = threading.Lock()

    def split(request: cache_module._Request, blocks: list[int]) -> object:
        if isinstance(blocks, range):
            with first:
                mine = 0 if request._cache is one.cache else 1
                found = ask(request, [mine])
            meet.wait(30)
            return found | ask(request, [1 - mine])
        return ask(request, blocks)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(cache_module._Request, "_ask", split)
        began = time.monotonic()
        answers = [pool.submit(machine.read, 0, 2 * MIB) for machine in (one, two)]
        assert {answer.result() for answer in answers} == {pattern(0, 2 * MIB)}
        assert time.monotonic() - began < 9
    assert bucket.served == 2 * MIB


def test_a_winner_that_never_delivers_costs_a_bounded_wait(
    node: Memcached, bucket: Bucket, short_waits: None
) -> None:
    dead, reader = (Machine(bucket, node.address) for _ in range(2))
    buffer = memoryview(bytearray(MIB))
    dead.cache.get_range_into(VERSION, 0, buffer)  # and never hands it on
    assert reader.read(0, MIB) == pattern(0, MIB)
    assert reader.counted("late") == 1
    assert Machine(bucket, node.address).read(0, MIB) == pattern(0, MIB)
    assert bucket.served == 2 * MIB


def test_a_download_that_fails_gives_its_leases_up(node: Memcached, bucket: Bucket) -> None:
    bucket.fail = lambda _start: StoreUnavailableError("no")
    failing, reader = (Machine(bucket, node.address) for _ in range(2))
    with pytest.raises(StoreUnavailableError):
        failing.read(0, 2 * MIB)
    bucket.fail = lambda _start: None
    assert reader.read(0, 2 * MIB) == pattern(0, 2 * MIB)
    assert (reader.counted("won"), reader.counted("late")) == (2, 0)


def test_what_is_forgone_can_be_won_by_the_next(node: Memcached, bucket: Bucket) -> None:
    one, two = (Machine(bucket, node.address) for _ in range(2))
    buffer = memoryview(bytearray(MIB))
    (owed,) = one.cache.get_range_into(VERSION, 0, buffer).owed
    one.cache.forgo(VERSION, owed)
    assert two.read(0, MIB) == pattern(0, MIB)
    assert two.counted("won") == 1


def test_a_version_without_an_etag_is_never_shared(node: Memcached, bucket: Bucket) -> None:
    version = ObjectVersion("model", "", MIB)
    for _ in range(2):
        assert Machine(bucket, node.address).read(0, MIB, version) == pattern(0, MIB)
    assert bucket.served == 2 * MIB
    assert node.stored() == []


def test_machines_with_other_secrets_or_block_sizes_do_not_disturb_each_other(
    node: Memcached, bucket: Bucket
) -> None:
    machines = [
        Machine(bucket, node.address),
        Machine(bucket, node.address, secret=SECRET),
        Machine(bucket, node.address, secret=b"another secret of others"),
        Machine(bucket, node.address, block=256 * 1024),
    ]
    for _ in range(2):
        for machine in machines:
            assert machine.read() == pattern(0, SIZE)
    assert bucket.served == len(machines) * SIZE
    assert all(machine.errors() == {} for machine in machines)


# -- small nodes ---------------------------------------------------------------------------------


def test_items_of_a_mebibyte_as_memcached_has_them_without_options_hold_blocks(
    bucket: Bucket,
) -> None:
    with Memcached("-m", "64") as plain:
        for _ in range(2):
            assert Machine(bucket, plain.address).read() == pattern(0, SIZE)
        assert bucket.served == SIZE


def test_values_are_cut_for_a_node_of_small_items(bucket: Bucket) -> None:
    with Memcached("-m", "64", "-I", "64k", "-o", "slab_chunk_max=16384") as small:
        first, second = (Machine(bucket, small.address, secret=SECRET) for _ in range(2))
        assert first.read() == pattern(0, SIZE)
        assert second.read() == pattern(0, SIZE)
        assert bucket.served == SIZE
        assert second.counted("hit") == 9
        # One item of several is gone: the block is fetched again, and whole again then.
        gone = next(key for key in small.stored() if b"." in key)
        assert small.ask(b"md " + gone + b"\r\n") == b"HD\r\n"
        assert Machine(bucket, small.address, secret=SECRET).read() == pattern(0, SIZE)
        assert bucket.served == SIZE + MIB
        assert Machine(bucket, small.address, secret=SECRET).read() == pattern(0, SIZE)
        assert bucket.served == SIZE + MIB
        # One of them is another's.
        one, other = [key for key in small.stored() if b"." in key][:2]
        small.put(one, small.value(other))
        assert Machine(bucket, small.address, secret=SECRET).read() == pattern(0, SIZE)


def test_a_node_with_too_little_memory_evicts_and_nothing_fails(bucket: Bucket) -> None:
    size = 96 * MIB
    version = ObjectVersion("large", "etag", size)
    with Memcached("-m", "64") as small:  # and items of 1 MiB
        machine = Machine(bucket, small.address)
        for _ in range(2):
            for start in range(0, size, 8 * MIB):
                got = machine.read(start, start + 8 * MIB, version)
                assert got == pattern(start, 8 * MIB)
        assert small.statistic("evictions") > 0
        assert set(machine.errors()) <= {"full"}
        assert bucket.served <= 2 * size


# -- nodes that fail -----------------------------------------------------------------------------


def test_a_node_that_is_killed_costs_its_own_blocks_only(bucket: Bucket) -> None:
    version = ObjectVersion("large", "etag", 64 * MIB)
    with Memcached() as one, Memcached() as two:
        machine = Machine(bucket, one.address, two.address)
        spans = [(start, start + 8 * MIB) for start in range(0, version.size, 8 * MIB)]
        for span in spans:
            machine.read(*span, version)
        dead = max((one, two), key=lambda each: len(each.stored()))  # chance gives the shares
        share = len(dead.stored()) * MIB
        dead.kill()
        for start, end in spans:
            assert machine.read(start, end, version) == pattern(start, end - start)
        assert bucket.served == version.size + share
        assert machine.errors() == {"down": 1}
        for span in spans:  # the other node has them now
            machine.read(*span, version)
        assert bucket.served == version.size + share


def test_a_frozen_node_is_waited_for_once(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    # However slow this machine is: the node is not looked at again before the reads are over.
    monkeypatch.setattr(node_module, "FIRST_PAUSE_SECONDS", 600.0)
    with Memcached() as one:
        machine = Machine(bucket, one.address)
        machine.read(0, MIB)
        machine.cache.nodes[0]._least_patience_seconds = 0.08
        one.freeze()
        try:
            for start in range(0, 8 * MIB, MIB):
                assert machine.read(start, start + MIB) == pattern(start, MIB)
        finally:
            one.thaw()
        assert machine.errors().get("slow") == 1
        assert machine.counted("unasked") == 7


def test_a_node_that_was_restarted_empty_is_used_on(bucket: Bucket) -> None:
    with Memcached() as one:
        machine = Machine(bucket, one.address)
        machine.read()
        one.kill()
        with Memcached(port=one.port):
            assert machine.read() == pattern(0, SIZE)
            assert machine.read() == pattern(0, SIZE)
        assert bucket.served == 2 * SIZE
        assert machine.errors() == {}


def test_a_node_that_comes_back_is_found_by_looking_again(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "FIRST_PAUSE_SECONDS", 0.0)
    one = Memcached()
    machine = Machine(bucket, one.address)
    (node,) = machine.cache.nodes
    assert not node.up
    assert machine.read(0, MIB) == pattern(0, MIB)
    with one:
        node.look()
        assert node.up
        machine.read(0, MIB)
        machine.read(0, MIB)
    assert machine.counted("hit") == 1


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A port where ``answer`` is done with each connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    sock, _ = server.accept()
                except OSError:
                    return
                with sock:
                    try:
                        answer(sock)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


SETTINGS = b"STAT maxbytes 67108864\r\nSTAT item_size_max 1048576\r\nEND\r\n"


def saying(*answers: bytes) -> Callable[[socket.socket], None]:
    """Answers a node's settings as a memcached would, anything else with ``answers``."""

    def answer(sock: socket.socket) -> None:
        while question := sock.recv(65536):
            if question.startswith(b"stats"):
                sock.sendall(SETTINGS)
            else:
                for part in answers:
                    sock.sendall(part)
                if not answers:
                    return

    return answer


@pytest.mark.parametrize(
    "answers",
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n",),
        (b"ERROR\r\n",),
        (b"VA x\r\n",),
        (b"VA 99999999999999 s\r\n",),
        (b"VA -1\r\n",),
        (b"x" * 100_000,),
        (b"\r\n",),
        (b"VA 0 W\r\nno end\r\n",),
        (b"VA 40 s\r\n" + b"y" * 100 + b"\r\n",),
        (),
    ],
)
def test_a_port_where_something_else_answers_is_left_alone(
    bucket: Bucket, answers: tuple[bytes, ...]
) -> None:
    with answering(saying(*answers)) as address:
        machine = Machine(bucket, address)
        for start in range(0, 3 * MIB, MIB):
            assert machine.read(start, start + MIB) == pattern(start, MIB)
        assert sum(machine.errors().values()) in (1, 2)
        assert not machine.cache.nodes[0].up


def test_a_node_that_answers_half_a_value_is_left_alone(bucket: Bucket) -> None:
    with answering(saying(b"VA 1048604 W\r\n", b"OSB1")) as address:
        machine = Machine(bucket, address, patience=0.5)
        assert machine.read(0, MIB) == pattern(0, MIB)
        assert not machine.cache.nodes[0].up


def test_answers_in_another_order_are_never_taken_for_the_right_ones(bucket: Bucket) -> None:
    names = cache_module.BlockNames("http://store", "bucket", VERSION, BLOCK_BYTES)
    values = []
    for index in (1, 0):
        view = memoryview(pattern(index * MIB, MIB))
        values.append(b"VA %d\r\n%b\r\n" % (28 + MIB, names.head(index, view, 1) + bytes(view)))
    with answering(saying(*values)) as address:
        machine = Machine(bucket, address)
        assert machine.read(0, 2 * MIB) == pattern(0, 2 * MIB)
        assert machine.errors()["damaged"] == 2


def test_machines_whose_clocks_differ_by_years_share_blocks(
    node: Memcached, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for clock in (0.0, 4e9, 1.7e9):
        monkeypatch.setattr(time, "time", lambda clock=clock: clock)
        assert Machine(bucket, node.address, secret=SECRET).read() == pattern(0, SIZE)
    assert bucket.served == SIZE


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH\r\n", b"", b"STAT maxbytes many\r\nEND\r\n"])
def test_what_is_no_memcached_never_becomes_a_node(bucket: Bucket, said: bytes) -> None:
    with answering(lambda sock: sock.sendall(said)) as address:
        machine = Machine(bucket, address)
        assert not machine.cache.nodes[0].up
        assert machine.read(0, MIB) == pattern(0, MIB)


# -- nodes that lie ------------------------------------------------------------------------------


def flipped(value: bytes, rng: random.Random) -> bytes:
    changed = bytearray(value)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("secret", [None, SECRET])
def test_damaged_values_are_noticed_and_replaced(
    node: Memcached, bucket: Bucket, secret: bytes | None, short_waits: None
) -> None:
    Machine(bucket, node.address, secret=secret).read()
    rng = random.Random(5)
    keys = sorted(node.stored())
    values = {key: node.value(key) for key in keys}
    poisons: list[Callable[[bytes], bytes]] = [
        lambda value: flipped(value, rng),
        lambda value: value[:-1],
        lambda value: value[: len(value) // 2],
        lambda value: value[:10],
        lambda value: value + b"x",
        lambda value: b"",
        lambda value: rng.randbytes(len(value)),
        lambda _value: values[rng.choice(keys)],
    ]
    key = rng.choice(keys[:-1])
    # The block as it was before the object was replaced, from a mount of the group.
    old_version = replace(VERSION, etag="older")
    old = cache_module.BlockNames("http://store", "bucket", old_version, BLOCK_BYTES, secret)
    before = memoryview(bytes(MIB))
    poisons.append(lambda _value: old.head(int(key[-1:], 16), before, 1) + bytes(before))
    for poison in poisons:
        bad = poison(values[key])
        node.put(key, bad)
        served = bucket.served
        reader = Machine(bucket, node.address, secret=secret)
        assert reader.read() == pattern(0, SIZE)
        assert bucket.served - served == (0 if bad == values[key] else MIB)
        assert node.value(key) == values[key]
        key = rng.choice(keys[:-1])


def test_with_a_secret_even_a_forger_who_knows_everything_else_plants_nothing(
    node: Memcached, bucket: Bucket
) -> None:
    Machine(bucket, node.address, secret=SECRET).read()
    forger = cache_module.BlockNames("http://store", "bucket", VERSION, BLOCK_BYTES, b"guess" * 4)
    bad = memoryview(bytes(MIB))
    for key in node.stored():
        index = int(key.rpartition(b"-")[2], 16)
        if index < 8:
            node.put(key, forger.head(index, bad, 1) + bytes(bad))
    reader = Machine(bucket, node.address, secret=SECRET)
    assert reader.read() == pattern(0, SIZE)
    assert reader.errors() == {"damaged": 8}
    assert not reader.cache.nodes[0].up  # so many lies are no accident


# -- who the nodes are ---------------------------------------------------------------------------


def test_nodes_follow_the_file_that_names_them(
    bucket: Bucket, node: Memcached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "nodes"
    path.write_text(f"{node.address}\n")
    machine = Machine(bucket)
    options = SharedCacheOptions(f"file:{path}", "bucket", BLOCK_BYTES, None, PATIENT)

    async def main() -> None:
        workers = Workers("sharing", 2)
        keeping = Keeping(machine.cache, options, workers)

        async def looked() -> list[str]:
            keeping._members_at = 0.0
            await keeping.look()
            return [each.name for each in machine.cache.nodes if each.up]

        assert await looked() == [node.address]
        kept = machine.cache.nodes[0]
        path.write_text(f"{node.address}\n127.0.0.1:{free_port()}\n")
        assert await looked() == [node.address]
        assert len(machine.cache.nodes) == 2
        assert kept in machine.cache.nodes
        path.unlink()
        assert await looked() == [node.address]
        path.write_text("")
        assert await looked() == []
        workers.close()

    trio.run(main)


def test_a_name_that_does_not_resolve_yet_and_moves_later_is_followed(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses: list[str] = []

    real = socket.getaddrinfo

    def resolved(host: str, port: int, *more: int, **named: int) -> list[Any]:
        if host != "nodes.example":
            return real(host, port, *more, **named)
        if not addresses:
            raise socket.gaierror("not known")
        return [(0, 0, 0, "", (address, port)) for address in addresses]

    monkeypatch.setattr("ossfs_py.sharedcache.members.socket.getaddrinfo", resolved)
    machine = Machine(bucket)
    options = SharedCacheOptions("nodes.example:9", "bucket", BLOCK_BYTES, None, PATIENT)

    async def main() -> None:
        workers = Workers("sharing", 2)
        keeping = Keeping(machine.cache, options, workers)
        known: list[str] = []
        for now in ([], ["127.0.0.1", "127.0.0.2"], ["127.0.0.2"], []):
            addresses[:] = now
            keeping._members_at = 0.0
            await keeping.look()
            known = now or known  # while the name says nothing, those known before stay
            assert [each.name for each in machine.cache.nodes] == [f"{each}:9" for each in known]
            assert machine.read(0, MIB) == pattern(0, MIB)
        workers.close()

    trio.run(main)
